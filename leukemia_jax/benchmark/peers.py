"""Other libraries' models on the same shapes, each in a process of its own.

A script answers each line of its standard input, 'inference' or 'training',
with one turn's images a second, as a line of JSON. Between them it waits.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from leukemia_jax.errors import InputError

# By what --compare names: (name of the rate, script, further arguments).
SCRIPTS = {
  'keras': (
    ('keras_jax', 'speed_of_keras', ('--backend=jax',)),
    ('keras_torch', 'speed_of_keras', ('--backend=torch',)),
  ),
  'timm': (
    ('timm_fp32', 'speed_of_timm', ('--dtype=float32',)),
    ('timm_bf16', 'speed_of_timm', ('--dtype=bfloat16',)),
  ),
  'torch': (
    ('torch_fp32', 'speed_of_torch', ('--dtype=float32',)),
    ('torch_bf16', 'speed_of_torch', ('--dtype=bfloat16',)),
  ),
}
_FOLDER = pathlib.Path(__file__).parents[2] / 'reproduce'


class Peer(NamedTuple):
  """A process that measures when it is asked.

  Attributes:
    process: of the script.
    versions: of its libraries, by name.
  """

  process: subprocess.Popen[str]
  versions: dict[str, str]

  def turn(self, what: str) -> float:
    """Measures once: images a second of 'inference' or 'training'.

    Raises:
      InputError: the process has ended.
    """
    assert self.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
      self.process.stdin.write(f'{what}\n')
      self.process.stdin.flush()
    rate: float = _answer(self.process)['images_per_second']
    return rate


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
  """The next line of JSON; libraries may print others before it."""
  assert process.stdout is not None
  for line in process.stdout:
    if line.startswith('{'):
      answer: dict[str, Any] = json.loads(line)
      return answer
  raise InputError(
    f'--compare: {process.args!r} ended with status {process.wait()}'
  )


@contextlib.contextmanager
def running(
  compare: list[str], model: str, size: int, batch: int
) -> Iterator[tuple[dict[str, Peer], dict[str, str]]]:
  """Starts scripts, one after the other, and ends them in the end.

  Args:
    compare: names of libraries, see `SCRIPTS`.
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
    for library in compare:
      for name, script, arguments in SCRIPTS[library]:
        process = subprocess.Popen(
          [
            *(sys.executable, '-m', f'{_FOLDER.name}.{script}', *arguments),
            *(f'--model={model}', f'--size={size}', f'--batch={batch}'),
          ],
          cwd=_FOLDER.parent,
          stdin=subprocess.PIPE,
          stdout=subprocess.PIPE,
          stderr=subprocess.DEVNULL,
          text=True,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        ready = _answer(process)
        if 'missing' in ready:
          missing[name] = ready['missing']
        else:
          peers[name] = Peer(process, ready['versions'])
    yield peers, missing
