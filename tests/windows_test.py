"""What Windows lacks is not needed: fcntl, resource, array_record."""

import subprocess
import sys

import pytest
from command import SMALL
from conftest import ROOT

_WITHOUT = """
import sys
for name in ('fcntl', 'resource', 'array_record', 'termios', 'pwd', 'grp'):
  sys.modules[name] = None
sys.argv = ['main.py', *{flags!r}]
from leukemia_jax import cli
cli.main()
"""


def run_without(*flags: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-c', _WITHOUT.format(flags=flags)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


@pytest.mark.full
def test_prepare_and_train(tmp_path):
  flags = [f'--config.data.cache_dir={tmp_path}/cache', *SMALL]
  flags.append('--config.train.epochs=1')
  done = run_without(f'--workdir={tmp_path}/w', *flags)
  assert done.returncode == 0, done.stderr
  assert list((tmp_path / 'cache').rglob('*.parquet*'))
  assert not list((tmp_path / 'cache').rglob('*.array_record*'))
  assert (tmp_path / 'w/result.json').exists()
