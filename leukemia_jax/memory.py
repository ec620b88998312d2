"""What the C library, and Python, do with memory that is free again."""

import ctypes
import gc
import os
import pathlib
import platform

# Of glibc's mallopt: M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX.
_OPTIONS = {-1: -1, -4: 0, -8: 1}
# Of madvise, and the size of the pages that it asks for.
_HUGEPAGE, _PAGE_BYTES = 14, 1 << 21
# Where Linux counts what is reserved as if it were used, it is 2.
_OVERCOMMIT = pathlib.Path('/proc/sys/vm/overcommit_memory')
# New objects after which Python looks for dead ones that name each other.
_OBJECTS = 50_000


def keep_freed() -> None:
  """Lets steps on a CPU use the same memory again, in huge pages.

  Otherwise glibc gives back what a step frees, and Linux clears page after page
  of it for the next one. Does nothing with another C library, and little where
  a thread was started before.
  """
  if platform.libc_ver()[0] != 'glibc':
    return
  libc = ctypes.CDLL(None)
  for option, value in _OPTIONS.items():
    libc.mallopt(option, value)
  if _is_free_to_reserve():
    _use_huge_pages(libc)


def _is_free_to_reserve() -> bool:
  """Whether addresses cost nothing until memory is used behind them."""
  import resource  # not on Windows

  limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
  return (
    all(resource.getrlimit(n)[0] == resource.RLIM_INFINITY for n in limits)
    and _OVERCOMMIT.exists()
    and _OVERCOMMIT.read_text().strip() != '2'
  )


def _use_huge_pages(libc: ctypes.CDLL) -> None:
  """Makes the heap as large as it may become, and asks for pages of 2 MB.

  With pages of 4 kB a step waits for their addresses. Nothing is used until it
  is written to; glibc keeps the addresses, as it keeps what is freed.
  """
  libc.malloc.restype = ctypes.c_void_p
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  size = memory // 4 * 3  # Linux refuses more than there is
  block = libc.malloc(ctypes.c_size_t(size))
  if block is None:
    return
  first = -(-block // _PAGE_BYTES) * _PAGE_BYTES
  last = (block + size) // _PAGE_BYTES * _PAGE_BYTES
  libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _HUGEPAGE)
  libc.free(ctypes.c_void_p(block))


def collect_rarely() -> None:
  """Lets Python look for dead objects more rarely.

  Tracing a network makes millions of objects that live on, and looking through
  them takes a fifth of its time.
  """
  gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
