"""Other libraries' models on the same shapes, each in a process of its own.

A script answers each line of its standard input, 'inference' or 'training',
with one turn's images a second, as a line of JSON. Between them it waits.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any, NamedTuple

from leukemia_jax import progress
from leukemia_jax.errors import InputError

# By name of the rate: script, and its further arguments.
SCRIPTS = {
  'keras_jax': ('speed_of_keras', '--backend=jax'),
  'keras_torch': ('speed_of_keras', '--backend=torch'),
  'timm_fp32': ('speed_of_timm', '--dtype=float32'),
  'timm_bf16': ('speed_of_timm', '--dtype=bfloat16'),
  'torch_fp32': ('speed_of_torch', '--dtype=float32'),
  'torch_bf16': ('speed_of_torch', '--dtype=bfloat16'),
}
_FOLDER = pathlib.Path(__file__).parents[2] / 'reproduce'


class Ended(Exception):
  """A script has ended, as when memory runs out; says how."""


class Turn(NamedTuple):
  """What is measured.

  Attributes:
    what: 'inference', 'training', 'augmentation' or 'decoding'.
    name: of the script that does it; '' of ours.
  """

  what: str
  name: str = ''


class Peer(NamedTuple):
  """A process that measures when it is asked.

  Attributes:
    process: of the script.
    errors: what it says of errors.
    versions: of its libraries, by name.
  """

  process: subprocess.Popen[str]
  errors: IO[str]
  versions: dict[str, str]

  def turn(self, what: str) -> float:
    """Measures once: images a second of 'inference' or 'training'.

    Raises:
      Ended: the process has.
    """
    assert self.process.stdin is not None
    try:
      self.process.stdin.write(f'{what}\n')
      self.process.stdin.flush()
    except BrokenPipeError:
      # What is left of it would be written, and fail, when all ends.
      with contextlib.suppress(BrokenPipeError):
        self.process.stdin.close()
    rate: float = _answer(self.process, self.errors)['images_per_second']
    return rate


def _answer(process: subprocess.Popen[str], errors: IO[str]) -> dict[str, Any]:
  """The next line of JSON; libraries may print others before it."""
  assert process.stdout is not None
  for line in process.stdout:
    if line.startswith('{'):
      answer: dict[str, Any] = json.loads(line)
      return answer
  status = process.wait()
  errors.seek(0)
  said = errors.read().strip().splitlines()
  raise Ended(
    f'its process ended with status {status}'
    + (' (perhaps as memory ran out)' if status == -9 else '')
    + (f': {said[-1]}' if said else '')
  )


def names(compare: Collection[str]) -> list[str]:
  """What is measured: by library ('keras') or by name ('keras_jax').

  Raises:
    InputError: there is no such library or name.
  """
  libraries = {name.split('_')[0] for name in SCRIPTS}
  unknown = set(compare) - SCRIPTS.keys() - libraries
  if unknown:
    raise InputError(
      f'--compare={",".join(compare)}: there are {", ".join(sorted(libraries))}'
      f', or one of {", ".join(SCRIPTS)}'
    )
  return [name for name in SCRIPTS if {name, name.split('_')[0]} & set(compare)]


@contextlib.contextmanager
def running(
  compare: Collection[str], model: str, size: int, batch: int
) -> Iterator[tuple[dict[str, Peer], dict[str, str]]]:
  """Starts scripts, one after the other, and ends them in the end.

  Args:
    compare: libraries and names, see `names`.
    model: one of `models.NAMES`.
    size: side of the images, px.
    batch: images a call.

  Yields:
    Processes by name, and why the others are missing.

  Raises:
    InputError: the scripts are not there.
  """
  if compare and not _FOLDER.is_dir():
    raise InputError(
      f'--compare={",".join(compare)} needs {_FOLDER}: run it in a clone of '
      'the repository'
    )
  peers: dict[str, Peer] = {}
  missing: dict[str, str] = {}
  with contextlib.ExitStack() as stack:
    for name in names(compare):
      script, argument = SCRIPTS[name]
      errors = stack.enter_context(
        tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace')
      )
      process = subprocess.Popen(
        [
          *(sys.executable, '-m', f'{_FOLDER.name}.{script}', argument),
          *(f'--model={model}', f'--size={size}', f'--batch={batch}'),
        ],
        cwd=_FOLDER.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
      )
      stack.enter_context(process)
      stack.callback(process.kill)
      try:
        ready = _answer(process, errors)
      except Ended as error:
        ready = {'missing': str(error)}
      if 'missing' in ready:
        missing[name] = ready['missing']
      else:
        peers[name] = Peer(process, errors, ready['versions'])
    yield peers, missing


def take_turns(
  calls: dict[Turn, Callable[[], float]], times: int
) -> tuple[dict[Turn, list[float]], dict[str, str]]:
  """Measures one after the other, again and again: all see the same machine.

  Args:
    calls: give images a second.
    times: each is called.

  Returns:
    Rates of those that came to the end, and why the others didn't, by name.
  """
  taken: dict[Turn, list[float]] = {turn: [] for turn in calls}
  ended: dict[str, str] = {}
  queue = [turn for _ in range(times) for turn in calls]
  for turn in progress.track(queue, 'Measuring', len(queue)):
    if turn.name not in ended:
      try:
        taken[turn].append(calls[turn]())
      except Ended as error:
        ended[turn.name] = str(error)
  rates = {turn: rate for turn, rate in taken.items() if turn.name not in ended}
  return rates, ended
