"""How fast something is: the same for models of ours and of others."""

import time
from collections.abc import Callable

# A turn takes about as long, s, and at least as many calls.
_TURN_SECONDS, _FEWEST_CALLS = 2.0, 2


def measure_rate(call: Callable[[], object], images: int) -> float:
  """Images a second of a call that waits for what it computes."""
  started, calls = time.perf_counter(), 0
  while calls < _FEWEST_CALLS or time.perf_counter() - started < _TURN_SECONDS:
    call()
    calls += 1
  return calls * images / (time.perf_counter() - started)
