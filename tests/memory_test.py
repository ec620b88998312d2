"""Memory that is free again."""

import gc
import pathlib
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

from leukemia_jax import memory

_COMPUTE = """
import resource
from leukemia_jax import memory
memory.keep_freed()
import jax, jax.numpy as jnp

@jax.jit
def step(x):
  turned = jax.lax.optimization_barrier(x.T)
  return (turned + jax.lax.optimization_barrier(x[::-1])).sum()

x = jnp.ones((2048, 2048))
faults = []
for _ in range(40):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(x).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""

# Prints reserved, used, and huge memory in MB after 64 were written to.
_WRITE = """
import ctypes, resource, sys
limit = int(sys.argv[1])
if limit:
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from leukemia_jax import memory
memory.keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
ctypes.memset(ctypes.c_void_p(libc.malloc(1 << 26)), 1, 1 << 26)
for file, name in (
  ('status', 'VmSize'), ('status', 'VmRSS'), ('smaps_rollup', 'AnonHugePages')
):
  lines = open(f'/proc/self/{file}').read().splitlines()
  value = next(line.split()[1] for line in lines if line.startswith(name))
  print(int(value) // 1024)
"""
# Writes to a file what glibc says of the heaps of a command and its threads.
_RUN = """
import ctypes, sys, threading
from leukemia_jax import __main__
file = sys.argv.pop()
sys.argv.append('--version')
try:
  __main__.main()
except SystemExit:
  pass
thread = threading.Thread(target=lambda: bytearray(100))
thread.start()
thread.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fopen(file.encode(), b'w'))
libc.malloc_info(0, stream)
libc.fclose(stream)
"""
_HUGE_PAGES = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')

of_glibc = pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='of glibc alone'
)


def run(script: str, *arguments: str) -> str:
  """What a script prints in a process of its own."""
  done = subprocess.run(
    [sys.executable, '-c', script, *arguments],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def printed(script: str, *arguments: str) -> list[int]:
  """The numbers that a script prints."""
  return [*map(int, run(script, *arguments).split())]


@pytest.mark.full
@of_glibc
def test_a_step_uses_the_memory_of_one_before():
  (faults,) = printed(_COMPUTE)
  # Both copies are 16 MB, of pages of 4 kB. The first steps find their places.
  assert faults < 1000


@of_glibc
def test_what_is_reserved_is_not_used():
  reserved, used, huge = printed(_WRITE, '0')
  assert reserved > 1000 and used < 200
  if _HUGE_PAGES.exists() and '[never]' not in _HUGE_PAGES.read_text():
    assert huge >= 60


@of_glibc
def test_nothing_is_reserved_where_addresses_are_limited():
  reserved, _, _ = printed(_WRITE, str(1 << 32))
  assert reserved < 500


@of_glibc
def test_all_threads_of_a_command_share_one_heap(tmp_path):
  # What another heap frees is given back to Linux.
  run(_RUN, str(tmp_path / 'heaps.xml'))
  assert (tmp_path / 'heaps.xml').read_text().count('<heap nr=') == 1


def test_new_objects_are_rarely_looked_through():
  memory.collect_rarely()
  before = gc.get_stats()[0]['collections']
  new = [[] for _ in range(200_000)]
  assert gc.get_stats()[0]['collections'] - before <= 4 < len(new)
