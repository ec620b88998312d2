"""The machine's limits: matrix products and memory, as JAX reaches them.

The two lines of a roofline (Williams et al., doi:10.1145/1498765.1498785).
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from leukemia_jax.benchmark.record import Machine

# Large enough to be limited by arithmetic, small enough for a laptop.
_SIDE, _SIDE_GPU = 2048, 8192
# Of float32: a quarter of a gigabyte, beyond any cache.
_LENGTH = 2**26
_TURNS = 7


def _best_seconds(call: Callable[[], jax.Array]) -> float:
  """The fastest of some turns: what the machine can do, not what it did."""
  call().block_until_ready()
  seconds = []
  for _ in range(_TURNS):
    started = time.perf_counter()
    call().block_until_ready()
    seconds.append(time.perf_counter() - started)
  return min(seconds)


def measure(dtype: jax.typing.DTypeLike) -> Machine:
  """Measures both limits; takes a few seconds.

  Args:
    dtype: of the products.
  """
  side = _SIDE if jax.default_backend() == 'cpu' else _SIDE_GPU
  matrix = jnp.ones((side, side), dtype)
  product = jax.jit(
    lambda a, b: jax.lax.dot_general(
      a, b, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
  )
  seconds = _best_seconds(lambda: product(matrix, matrix))
  # Two vectors: of one, the second reading is the cache's.
  vector, another = jnp.ones(_LENGTH), jnp.full(_LENGTH, 2.0)
  plus = jax.jit(lambda a, b: a + b)
  moved = 3 * vector.nbytes
  return Machine(
    products=2 * side**3 / seconds,
    bytes=moved / _best_seconds(lambda: plus(vector, another)),
  )
