"""Progress bars for people; silent where nobody looks (no terminal)."""

import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import console, progress

T = TypeVar('T')

# Standard error, so that what a command prints can be piped.
_CONSOLE = console.Console(stderr=True)


def printable(text: str) -> str:
  """A text in which names can't command a terminal."""
  return ''.join(
    sign if sign.isprintable() else repr(sign)[1:-1] for sign in text
  )


def bar(*fields: str) -> progress.Progress:
  """A bar with time left; `fields` are further columns, task fields' names."""
  return progress.Progress(
    progress.TextColumn('{task.description}'),
    progress.BarColumn(),
    progress.MofNCompleteColumn(),
    progress.TimeRemainingColumn(),
    *(progress.TextColumn(f'{{task.fields[{field}]}}') for field in fields),
    console=_CONSOLE,
    # A terminal shows one at a time.
    disable=not _CONSOLE.is_terminal
    or threading.current_thread() is not threading.main_thread(),
    transient=True,
  )


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
  """Yields the items under a bar.

  Args:
    items: what to go through.
    description: what is being done.
    total: how many items there are.

  Yields:
    The items.
  """
  with bar() as running:
    yield from running.track(items, total=total, description=description)
