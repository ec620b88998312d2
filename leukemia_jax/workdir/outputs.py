"""Files that grow while a command works, and go on after a kill.

A journal says how long each of them was when all were known to be whole; what
a kill left behind that is cut off.
"""

import contextlib
import csv
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from leukemia_jax import files
from leukemia_jax.errors import InputError
from leukemia_jax.workdir.claim import FORMAT, check_format


class Progress(NamedTuple):
  """How far a command came.

  Attributes:
    items: number that are done.
    last: name of the last one.
    flawed: number that could not be done.
    scale: factor on the size of all images; None if none is done.
    names: of all that are done, by `with_name`; '' in older journals.
  """

  items: int = 0
  last: str = ''
  flawed: int = 0
  scale: float | None = None
  names: str = ''


def with_name(names: str, name: str) -> str:
  """What says which items are done, in which order, with one more of them."""
  return hashlib.sha256(f'{names}{name}'.encode()).hexdigest()


class Outputs:
  """CSV files that are appended to.

  Attributes:
    progress: of the command.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    journal: str,
    headers: Mapping[str, Sequence[str]],
  ):
    """Opens files, as they were when the journal was last written.

    Args:
      folder: where they lie.
      journal: name of the journal.
      headers: columns by the files' names.

    Raises:
      InputError: the journal is damaged, or a file is shorter than it says.
    """
    self._journal = folder / journal
    begun = self._journal.exists()
    self.progress, sizes = _read(self._journal)
    if begun and (
      sizes.keys() != headers.keys() or min(sizes.values(), default=0) < 0
    ):
      raise InputError(f'{self._journal} is damaged: sizes={sizes}')
    self._streams: dict[str, BinaryIO] = {}
    for name, header in headers.items():
      path = folder / name
      if not begun:
        path.write_bytes(_lines([header]))
      elif not path.exists() or path.stat().st_size < sizes[name]:
        raise InputError(
          f'{path} is missing or was cut; remove {folder}, or give another '
          '--workdir'
        )
      else:
        os.truncate(path, sizes[name])
      self._streams[name] = path.open('ab')

  def append(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
    """Appends rows to a file."""
    self._streams[name].write(_lines(rows))

  def commit(self, progress: Progress) -> None:
    """Makes what was appended last, whatever happens next."""
    sizes = {}
    for name, stream in self._streams.items():
      stream.flush()
      os.fsync(stream.fileno())
      sizes[name] = stream.tell()
    self.progress = progress
    content = {'format': FORMAT, **progress._asdict(), 'sizes': sizes}
    files.write_json(self._journal, content)

  def close(self) -> None:
    """Closes the files."""
    for stream in self._streams.values():
      stream.close()


@contextlib.contextmanager
def opened(
  folder: pathlib.Path, journal: str, headers: Mapping[str, Sequence[str]]
) -> Iterator[Outputs]:
  """`Outputs` that are closed in the end."""
  with contextlib.closing(Outputs(folder, journal, headers)) as outputs:
    yield outputs


def known_scale(journals: Iterable[pathlib.Path]) -> float | None:
  """The scale that a command began with, here or in another shard.

  Args:
    journals: of all shards.

  Returns:
    The scale; None if no image is done.

  Raises:
    InputError: a journal is damaged.
  """
  scales = (_read(journal)[0].scale for journal in journals)
  return next((own for own in scales if own is not None), None)


def _read(journal: pathlib.Path) -> tuple[Progress, dict[str, int]]:
  if not journal.exists():
    return Progress(), {}
  content = files.read_json(journal)
  check_format(content, journal)
  try:
    items, last, flawed = (content[n] for n in ('items', 'last', 'flawed'))
    # Older journals have no scale.
    scale = content.get('scale')
    scale = scale if scale is None else float(scale)
    progress = Progress(
      items, last, flawed, scale, str(content.get('names', ''))
    )
    return progress, {str(k): int(v) for k, v in content['sizes'].items()}
  except (AttributeError, LookupError, TypeError, ValueError) as error:
    raise InputError(f'{journal} is damaged: {error!r}') from None


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
  stream = io.StringIO()
  csv.writer(stream, lineterminator='\n').writerows(rows)
  return stream.getvalue().encode()
