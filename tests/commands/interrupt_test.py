"""Ctrl-C: one line, status 130, at once, whatever the command is doing."""

import signal
import subprocess
import sys
import time

import pytest
from command import SMALL, result, run
from conftest import ROOT

# What main.py runs, and a line once Ctrl-C is no longer Python's own affair: on
# a busy machine it takes long to come so far.
_COMMAND = """
from leukemia_jax import __main__, interrupts

def install(install=interrupts.install):
  install()
  print('installed', flush=True)

interrupts.install = install
__main__.main()
"""


def interrupt(seconds: float, *flags: str) -> bool:
  """Starts the command, sends SIGINT, and looks at how it ends.

  Says whether it was interrupted; else it had ended by itself.
  """
  process = subprocess.Popen(
    [sys.executable, '-u', '-c', _COMMAND, *flags],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout
    assert process.stdout.readline() == 'installed\n'
    time.sleep(seconds)
    if process.poll() is None:
      process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
  finally:
    process.kill()  # where it went on
  if process.returncode == 0:  # it has ended before, or just then
    return False
  assert process.returncode == 130, errors
  assert errors.count('stopped; the same command goes on') == 1
  assert 'Traceback' not in errors and 'KeyboardInterrupt' not in errors
  return True


def without_times(got: dict) -> dict:
  return {k: v for k, v in got.items() if k not in ('cost', 'versions')}


def test_while_it_starts(cache, tmp_path):
  for seconds in (0, 0.5, 2):
    assert interrupt(seconds, f'--workdir={tmp_path}/w', cache, *SMALL)


_ENDING = """
import sys, time
from leukemia_jax import interrupts

class Slow:
  def __del__(self, out=sys.stdout, sleep=time.sleep):
    out.write('ending\\n')
    out.flush()
    sleep(0.5)

interrupts.install()
sys.slow = Slow()
"""


def test_a_command_that_has_ended_keeps_its_status():
  process = subprocess.Popen(
    [sys.executable, '-c', _ENDING], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )
  assert process.stdout
  assert process.stdout.readline() == 'ending\n'
  process.send_signal(signal.SIGINT)
  assert process.wait() == 0


@pytest.mark.full
def test_interrupted_again_and_again(trained, cache, tmp_path):
  flags = [f'--workdir={tmp_path}/w', cache, *SMALL]
  for seconds in (0, 0.5, 2, 5, 9):
    interrupt(seconds, *flags)
  done = run(*flags)
  assert done.returncode == 0, done.stderr
  assert without_times(result(tmp_path / 'w')) == without_times(result(trained))


@pytest.mark.full
def test_ten_moments(cache, tmp_path):
  flags = [f'--workdir={tmp_path}/w', cache, *SMALL]
  flags.append('--config.train.epochs=20')
  times = sum(interrupt(0.1 * 1.8**moment, *flags) for moment in range(10))
  assert times > 4


@pytest.mark.full
@pytest.mark.parametrize('seconds', [15, 40])
def test_inside_a_compilation_of_a_large_network(
  cache, tmp_path, seconds, monkeypatch
):
  # Nothing comes from a cache of compiled programs.
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  config = ROOT / 'configs/nasnet_large.py'
  flags = [f'--workdir={tmp_path}/w', cache, f'--config={config}']
  flags += ['--config.synthetic.scale=0.03', '--config.train.epochs=1']
  flags += ['--config.model.weights=none', '--config.data.image_size=96']
  assert interrupt(seconds, *flags, '--config.train.freeze_backbone=False')
  assert not (tmp_path / 'w/metrics.jsonl').exists()
