"""A folder that one process at a time works in."""

import contextlib
import pathlib
from collections.abc import Iterator

import filelock


@contextlib.contextmanager
def lock_folder(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other processes that ask for the same lock waiting.

  The system frees it when the process ends, however that happens.

  Args:
    folder: what is locked; it is made if need be.

  Yields:
    Nothing.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with filelock.FileLock(folder / '.lock'):
    yield
