"""Files that are written whole or not at all, and JSON."""

import errno
import json
import os
import pathlib
from typing import Any

from leukemia_jax.errors import InputError

# What a disk, a network drive or a full process says, whatever the file.
_OF_THE_MACHINE = frozenset(
  getattr(errno, name)
  for name in (
    *('EIO', 'ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM', 'EROFS'),
    *('ESTALE', 'ENOTCONN', 'ETIMEDOUT', 'EHOSTDOWN', 'EHOSTUNREACH'),
  )
  if hasattr(errno, name)
)


def expand(path: str | pathlib.Path) -> pathlib.Path:
  """A path as a user gave it, `~` being the home folder.

  Raises:
    InputError: `~` stands for nothing, or the name can't be written down.
  """
  try:
    os.fspath(path).encode()
    return pathlib.Path(path).expanduser()
  except UnicodeEncodeError:
    raise InputError(f'{path!r} is not UTF-8; rename it') from None
  except RuntimeError:
    raise InputError(
      f'{path}: there is no home folder (HOME is not set); give a whole path, '
      'for records and weights as --config.data.cache_dir=/data/leukemia_jax'
    ) from None


def check_machine(error: Exception, path: str | pathlib.Path) -> None:
  """Refuses to take for a file's flaw what is the machine's, and may pass.

  Args:
    error: that working on a file ended with.
    path: of the file.

  Raises:
    InputError: memory or a disk is full, or a drive is away.
  """
  reason = 'memory ran out' if isinstance(error, MemoryError) else ''
  if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
    reason = str(error.strerror)
  if reason:
    raise InputError(
      f'{path}: {reason}; once that is mended the same command goes on'
    ) from None


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


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads a file of one JSON object a line; [] if there is no file yet."""
  if not path.exists():
    return []
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
    objects = [json.loads(line) for line in lines]
  except (ValueError, OSError) as error:
    raise InputError(f'{path} is damaged: {error}; remove it') from None
  if not all(isinstance(item, dict) for item in objects):
    raise InputError(f'{path} is damaged: a line is no object; remove it')
  return objects
