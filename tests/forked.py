"""Runs main.py in a fork of a process that has imported what it needs.

Of a command that is refused two of three seconds are imports.
"""

import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile

# Not conftest's: what that sets up is for tests, not for commands.
ROOT = pathlib.Path(__file__).parents[1]
_CONTEXT = multiprocessing.get_context('forkserver')
_COMMANDS = (ROOT / 'leukemia_jax/commands').glob('[!_]*.py')
_CONTEXT.set_forkserver_preload(
  [f'leukemia_jax.commands.{path.stem}' for path in _COMMANDS]
)


def _be_main(flags: list[str], output: str, errors: str) -> None:
  """What a process of its own does: it is main.py from here on."""
  for number, path in ((1, output), (2, errors)):
    os.dup2(os.open(path, os.O_WRONLY), number)
  os.chdir(ROOT)
  sys.argv = ['main.py', *flags]
  from leukemia_jax import __main__

  __main__.main()


def run(flags: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
  """Runs main.py with flags to its end.

  Raises:
    subprocess.TimeoutExpired: it took longer than `timeout` seconds.
  """
  with (
    tempfile.NamedTemporaryFile('r', encoding='utf-8') as output,
    tempfile.NamedTemporaryFile('r', encoding='utf-8') as errors,
  ):
    process = _CONTEXT.Process(
      target=_be_main, args=(flags, output.name, errors.name)
    )
    process.start()
    process.join(timeout)
    if process.exitcode is None:
      process.kill()
      raise subprocess.TimeoutExpired(flags, timeout)
    return subprocess.CompletedProcess(
      flags, process.exitcode, output.read(), errors.read()
    )
