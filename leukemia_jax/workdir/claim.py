"""Which run owns a workdir, and which version of the program wrote it."""

import json
import pathlib
import tempfile
from typing import Any

from flax import traverse_util
from ml_collections import ConfigDict

from leukemia_jax import files
from leukemia_jax.config_keys import keys
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import CONFIG, RESULT

# Of every JSON file that the package writes; and the releases that read earlier
# formats.
FORMAT = 5
_READERS = {1: '0.1.0', 2: '0.2.0', 3: '0.3.0', 4: '0.4.0'}


def check_format(content: Any, path: pathlib.Path) -> None:
  """Refuses a run's file that another version of this program wrote.

  Args:
    content: the file's JSON, parsed.
    path: of the file, for the error.

  Raises:
    InputError: names the version that reads it.
  """
  if not isinstance(content, dict):
    raise InputError(f'{path} is damaged: it holds no JSON object')
  number = content.get('format', 1)
  if number != FORMAT:
    raise InputError(
      f'{path} has format {number!r}, this version reads format {FORMAT}: use '
      f'leukemia_jax {_READERS.get(number, "of a later version")} for this '
      'run, or give a new --workdir'
    )


def _content(mode: str, config: ConfigDict, more: dict[str, Any]) -> Any:
  """What config.json holds, as JSON gives it back: tuples become lists."""
  content = {'format': FORMAT, 'mode': mode, **more, **config.to_dict()}
  return json.loads(json.dumps(content))


def _check_writable(workdir: pathlib.Path) -> None:
  """Refuses a folder that can't be written; makes none."""
  place = workdir
  while not place.exists() and place != place.parent:
    place = place.parent
  try:
    with tempfile.TemporaryFile(dir=place):
      pass
  except OSError as error:
    raise InputError(
      f'--workdir={workdir} cannot be written to: {error.strerror}; give '
      'another folder'
    ) from None


def check(
  workdir: pathlib.Path, mode: str, config: ConfigDict, **more: Any
) -> None:
  """Makes sure that a folder can be written and holds no other run.

  Args:
    workdir: the folder; nothing is made.
    mode: the command's.
    config: the config.
    **more: what else identifies the run, as JSON types.

  Raises:
    InputError: it can't be written, or holds a run of another version or with
      another config; names the differing keys.
  """
  _check_writable(workdir)
  path = workdir / CONFIG
  if not path.exists():
    return
  content = files.read_json(path)
  check_format(content, path)
  saved, current = (
    traverse_util.flatten_dict(tree, sep='.')
    for tree in (content, _content(mode, config, more))
  )
  if saved.get('mode') != mode:
    raise InputError(
      f'--workdir={workdir} holds what --mode={saved.get("mode")} wrote; give '
      'another folder'
    )
  free = {name for name, key in keys().items() if not key.identifies}
  # Older shards don't say of how many images they are.
  free |= {'images'} - saved.keys()
  if mode == 'train' or same_place(
    saved.get('data.source'), current.get('data.source')
  ):
    # A training that is resumed compares the images themselves.
    free.add('data.source')
  lines = [
    f'  {key}: {saved.get(key)!r} saved, {current.get(key)!r} now'
    for key in sorted(saved.keys() | current.keys())
    if saved.get(key) != current.get(key) and key not in free
  ]
  if (workdir / RESULT).exists() and any('train.epochs' in x for x in lines):
    lines.append(
      '  It is finished. To train it further, start from its weights in '
      f'another folder: --config.model.weights={workdir}'
    )
  if lines:
    raise InputError(
      f'--workdir={workdir} holds a run with another config:\n'
      + '\n'.join(lines)
      + '\nGive another --workdir, or the same config to resume that run'
    )


def same_place(first: Any, second: Any) -> bool:
  """Whether two texts are paths of one folder or file."""
  if not (isinstance(first, str) and isinstance(second, str)):
    return False
  try:
    return files.expand(first).resolve() == files.expand(second).resolve()
  except (OSError, InputError):
    return False


def claim(
  workdir: pathlib.Path, mode: str, config: ConfigDict, **more: Any
) -> None:
  """Makes a folder this run's; call it once the run's input is known good.

  Args:
    workdir: the folder.
    mode: see `check`.
    config: see `check`.
    **more: see `check`.

  Raises:
    InputError: see `check`.
  """
  check(workdir, mode, config, **more)
  if not (workdir / CONFIG).exists():
    files.write_json(workdir / CONFIG, _content(mode, config, more))
