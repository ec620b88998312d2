"""What a benchmark says of programs and of the machine."""

import jax.numpy as jnp
import pytest

from leukemia_jax.benchmark import machine, programs
from leukemia_jax.benchmark.record import Machine, to_rate


def test_a_program_is_what_its_arithmetic_says():
  matrix = jnp.ones((64, 64))
  compiled, program = programs.compile_program(
    lambda a, b: a @ b, matrix, matrix, batch=4, at_once=1
  )
  assert compiled(matrix, matrix)[0, 0] == 64
  rate = to_rate([2.0, 8.0, 4.0])
  own = program(rate, Machine(products=10 * 2 * 64**3, bytes=3 * 64 * 64 * 4))
  assert (rate.lowest, rate.median, rate.highest) == (2, 4, 8)
  # An image is a quarter of the call.
  assert own.flops == 2 * 64**3 / 4
  assert own.share_of_products == pytest.approx(4 * 0.25 / 10)
  assert own.bytes == 3 * 64 * 64 * 4 / 4
  assert own.share_of_bytes == pytest.approx(4 * 0.25)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_machine_has_limits(dtype):
  limits = machine.measure(dtype)
  # A pocket calculator, and more than any device of today.
  assert 1e6 < limits.products < 1e17
  assert 1e6 < limits.bytes < 1e15
