"""Jobs on several threads, whose results come in order; and for how many."""

import collections
import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar('T')


def cores() -> int:
  """Cores that this process may use: a job may have few of a machine's."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def in_order(
  jobs: Iterable[Callable[[], T]], workers: int, ahead: int
) -> Iterator[T]:
  """Runs jobs, few of them ahead of what is taken: memory stays flat.

  Args:
    jobs: taken as they are needed.
    workers: number of threads.
    ahead: jobs that may be under way or done and not yet taken.

  Yields:
    Their results, in the order of the jobs.
  """
  waiting: collections.deque[concurrent.futures.Future[T]] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    try:
      for job in jobs:
        waiting.append(pool.submit(job))
        if len(waiting) >= ahead:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      # Nobody takes them: after an error, or where a caller has enough.
      for future in waiting:
        future.cancel()
