"""The files of a run: written whole or not at all, never over another run's."""

import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from leukemia_jax.errors import InputError

CONFIG = 'config.json'
SPLIT = 'split.json'
METRICS = 'metrics.jsonl'
RESULT = 'result.json'
LATEST = 'checkpoints/latest'
BEST = 'checkpoints/best'
ROWS = 'rows'

# They change no number that is there: where records are cached, which row of a
# study is asked for, and what is shown beside its rows.
_FREE_KEYS = ('data.cache_dir', 'study.row', 'study.segmentation')


def write(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file under a temporary name, then moves it into place."""
  data = content.encode() if isinstance(content, str) else content
  path.parent.mkdir(parents=True, exist_ok=True)
  # One name for all tries: what a kill leaves is removed by the next. A link
  # in its place is not followed.
  temporary = path.with_name(f'.{path.name}.part')
  temporary.unlink(missing_ok=True)
  with temporary.open('xb') as stream:
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())
  temporary.replace(path)


@contextlib.contextmanager
def lock(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other processes that ask for the same lock waiting.

  The system frees it when the process ends, however that happens.

  Args:
    folder: what is locked; it is made if need be.

  Yields:
    Nothing.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / '.lock').open('a') as stream:
    fcntl.flock(stream, fcntl.LOCK_EX)
    yield


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes JSON for people to read too: indented, one trailing newline."""
  write(path, json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def read_json(path: pathlib.Path) -> Any:
  """Reads JSON; a damaged or missing file is an `InputError`."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise InputError(
      f'{path} is missing: {path.parent} is no workdir of a finished run'
    ) from None
  except (ValueError, OSError, RecursionError) as error:
    raise InputError(f'{path} cannot be read: {error}') from None


def read_log(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the epochs' lines; none if there is no file yet."""
  if not path.exists():
    return []
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
    rows = [json.loads(line) for line in lines]
  except (ValueError, OSError) as error:
    raise InputError(f'{path} is damaged: {error}; remove it') from None
  if not all(isinstance(row, dict) for row in rows):
    raise InputError(f'{path} is damaged: a line is no object; remove it')
  return rows


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': 1}} to {'a.b': 1}."""
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat


def create(workdir: pathlib.Path) -> None:
  """Makes the folder and proves that it can be written to.

  Args:
    workdir: the folder.

  Raises:
    InputError: it can't be made or written to.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise InputError(
      f'--workdir={workdir} cannot be written to: {error.strerror}; give '
      'another folder'
    ) from None


def claim(workdir: pathlib.Path, settings: dict[str, Any]) -> None:
  """Makes the folder this run's; call it once the run's input is known good.

  Args:
    workdir: the folder.
    settings: see `check_claim`.

  Raises:
    InputError: see `check_claim`.
  """
  check_claim(workdir, settings)
  if not (workdir / CONFIG).exists():
    write_json(workdir / CONFIG, settings)


def check_claim(workdir: pathlib.Path, settings: dict[str, Any]) -> None:
  """Makes sure that the folder can be written and holds no other run.

  Args:
    workdir: the folder.
    settings: everything that identifies the run, as JSON types.

  Raises:
    InputError: it can't be written, or holds a run with other settings; names
      the differing keys.
  """
  create(workdir)
  path = workdir / CONFIG
  if not path.exists():
    return
  saved = read_json(path)
  if not isinstance(saved, dict):
    raise InputError(f'{path} is damaged; give another --workdir')
  there = flatten(saved)
  # As JSON would give it back: tuples become lists.
  here = flatten(json.loads(json.dumps(settings)))
  lines = [
    f'  {key}: {there.get(key)!r} there, {here.get(key)!r} now'
    for key in sorted(there.keys() | here.keys())
    if there.get(key) != here.get(key) and key not in _FREE_KEYS
  ]
  if lines:
    raise InputError(
      f'--workdir={workdir} holds a run with other settings:\n'
      + '\n'.join(lines)
      + '\nGive another --workdir, or the same settings to go on with that run'
    )
