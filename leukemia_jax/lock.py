"""Folders that one process at a time works in."""

import contextlib
import pathlib
from collections.abc import Iterator

import filelock

from leukemia_jax.errors import InputError


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


@contextlib.contextmanager
def lock_run(workdir: pathlib.Path, part: str = '') -> Iterator[None]:
  """Refuses a second run in a workdir while one is at work there.

  Args:
    workdir: of the run; it is made if need be, and goes again if nothing is
      written into it.
    part: of the run, if others may work on other parts meanwhile.

  Yields:
    Nothing.

  Raises:
    InputError: another process holds it.
  """
  missing = [p for p in (workdir, *workdir.parents) if not p.exists()]
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / f'.run{part}.lock'
  try:
    with filelock.FileLock(path).acquire(timeout=0):
      try:
        yield
      finally:
        # Nobody waits for it. On Windows it can't be removed while it is open.
        with contextlib.suppress(OSError):
          path.unlink()
  except filelock.Timeout:
    raise InputError(
      f'--workdir={workdir}: another run is at work here; wait for its end, or '
      'give another folder'
    ) from None
  finally:
    # What another process has begun in one of them stays.
    with contextlib.suppress(OSError):
      if missing and not list(workdir.iterdir()):
        for folder in missing:
          folder.rmdir()
