"""What the processor can do."""

import pathlib
import subprocess
import sys

from conftest import ROOT

from leukemia_jax import devices

_ASK = 'from leukemia_jax import devices; print(devices.has_matrix_units())'


def test_matrix_units_are_those_of_the_processor():
  about = pathlib.Path('/proc/cpuinfo').read_text()
  assert devices.has_matrix_units() == ('amx_bf16' in about.split())


def test_a_kernel_may_refuse_matrix_units():
  done = subprocess.run(
    [
      *(sys.executable, str(ROOT / 'tests/without_matrix_units.py')),
      *(sys.executable, '-c', _ASK),
    ],
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stdout) == (0, 'False\n'), done.stderr


def test_a_step_on_a_processor_takes_few_images():
  assert devices.step_batching(32, 'float32')[0] == 2
  assert devices.step_batching(32, 'bfloat16')[0] == 4
  assert devices.step_batching(1, 'bfloat16')[0] == 1
