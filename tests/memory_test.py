"""Memory that is free again."""

import gc
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


@pytest.mark.full
@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='of glibc alone')
def test_a_step_uses_the_memory_of_one_before():
  done = subprocess.run(
    [sys.executable, '-c', _COMPUTE], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  # Both copies are 16 MB, of pages of 4 kB. The first steps find their places.
  assert int(done.stdout) < 1000


def test_new_objects_are_rarely_looked_through():
  memory.collect_rarely()
  before = gc.get_stats()[0]['collections']
  new = [[] for _ in range(200_000)]
  assert gc.get_stats()[0]['collections'] - before <= 4 < len(new)
