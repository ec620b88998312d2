"""What the processor can do."""

import os
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT

from leukemia_jax import devices

_ASK = 'from leukemia_jax import devices; print(devices.has_matrix_units())'


_CPUINFO = pathlib.Path('/proc/cpuinfo')
_is_linux = pytest.mark.skipif(
  not _CPUINFO.exists(), reason='what Linux says and refuses'
)


@_is_linux
def test_matrix_units_are_those_of_the_processor():
  about = _CPUINFO.read_text()
  assert devices.has_matrix_units() == ('amx_bf16' in about.split())


@_is_linux
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


@_is_linux
def test_a_processor_is_named():
  about = _CPUINFO.read_text().splitlines()
  lines = [line.split(':') for line in about if line.startswith('model name')]
  # ARM's have none.
  assert devices.processor() == (lines[0][1].strip() if lines else 'cpu')
  assert devices.describe().startswith(f'{devices.processor()}, ')


def test_a_step_on_a_processor_takes_few_images():
  assert devices.step_batching(32, devices.cpu_batch('float32'))[0] == 2
  assert devices.step_batching(32, devices.cpu_batch('bfloat16'))[0] == 4
  assert devices.step_batching(1, 4)[0] == 1


_COMPILE = """
import pathlib, sys
import jax
from leukemia_jax import devices
devices.keep_compiled(pathlib.Path(sys.argv[1]))
print(jax.jit(lambda x: 3 * x)(2.0))
"""


def _compile(folder: pathlib.Path, **environment: str) -> dict[str, bytes]:
  """What lies in the folder after a process has compiled something."""
  inherited = os.environ | {'JAX_ENABLE_COMPILATION_CACHE': '1'}
  inherited.pop('JAX_COMPILATION_CACHE_DIR', None)
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', _COMPILE, str(folder)],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env=inherited | environment,
  )
  assert (done.returncode, done.stdout) == (0, '6.0\n'), done.stderr
  assert not done.stderr
  return {entry.name: entry.read_bytes() for entry in folder.glob('*/*-cache')}


def test_what_was_compiled_is_stored_once(tmp_path):
  stored = _compile(tmp_path / 'compiled')
  assert stored
  assert _compile(tmp_path / 'compiled') == stored
  (folder,) = (tmp_path / 'compiled').iterdir()
  assert folder.stat().st_mode & 0o077 == 0


def test_an_entry_that_was_cut_off_is_made_again(tmp_path):
  stored = _compile(tmp_path)
  (folder,) = tmp_path.iterdir()
  for name, content in stored.items():
    (folder / name).write_bytes(content[: len(content) // 2])
    (folder / name.replace('-cache', '-atime')).unlink()
  assert _compile(tmp_path).keys() == stored.keys()
  assert _compile(tmp_path)[name] != content[: len(content) // 2]


def test_the_environment_says_where_and_whether(tmp_path):
  own, elsewhere = tmp_path / 'own', tmp_path / 'elsewhere'
  assert not _compile(own, JAX_COMPILATION_CACHE_DIR=str(elsewhere))
  assert not own.exists()
  assert not _compile(own, JAX_ENABLE_COMPILATION_CACHE='0')


def test_a_folder_that_others_can_write_is_not_used(tmp_path):
  _compile(tmp_path / 'compiled')
  (tmp_path / 'compiled').chmod(0o777)
  stored = list((tmp_path / 'compiled').glob('*/*-cache'))
  for entry in stored:
    entry.unlink()
  assert stored and not _compile(tmp_path / 'compiled')


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
  (tmp_path / 'file').write_text('')
  assert not _compile(tmp_path / 'file')
