"""What the C library, and Python, do with memory that is free again."""

import ctypes
import gc
import platform

# Of glibc's mallopt: M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX.
_OPTIONS = {-1: -1, -4: 0, -8: 1}
# New objects after which Python looks for dead ones that name each other.
_OBJECTS = 50_000


def keep_freed() -> None:
  """Lets steps on a CPU use the same memory again.

  Otherwise glibc gives back what a step frees, and Linux clears page after page
  of it for the next one. Does nothing with another C library, and little for
  threads that have taken memory before.
  """
  if platform.libc_ver()[0] == 'glibc':
    libc = ctypes.CDLL(None)
    for option, value in _OPTIONS.items():
      libc.mallopt(option, value)


def collect_rarely() -> None:
  """Lets Python look for dead objects more rarely.

  Tracing a network makes millions of objects that live on, and looking through
  them takes a fifth of its time.
  """
  gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
