"""Jobs in threads: their order, and how far they run ahead."""

import os
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from leukemia_jax import parallel


def test_results_come_in_order():
  def job(i):
    def run():
      time.sleep(0.001 * (i % 7))
      return i

    return run

  got = list(parallel.in_order(map(job, range(50)), workers=4, ahead=8))
  assert got == list(range(50))
  assert list(parallel.in_order([], workers=2, ahead=4)) == []


def test_no_more_jobs_are_taken_than_may_wait():
  taken = []

  def jobs():
    for i in range(100):
      taken.append(i)
      yield lambda i=i: i

  results = parallel.in_order(jobs(), workers=2, ahead=5)
  for i in range(10):
    assert next(results) == i
    assert len(taken) <= i + 5
  results.close()
  assert len(taken) < 20


def test_an_error_ends_it():
  def fail():
    raise ValueError('this one')

  results = parallel.in_order([lambda: 1, fail, lambda: 2], 1, 2)
  assert next(results) == 1
  with pytest.raises(ValueError, match='this one'):
    list(results)


def test_what_waits_is_not_done_once_nobody_takes_it():
  started, ends, done = threading.Event(), threading.Event(), []

  def busy():
    started.set()
    ends.wait(10)

  jobs = [lambda: 1, busy, *[lambda: done.append(0)] * 5]
  results = parallel.in_order(jobs, 1, len(jobs))
  assert next(results) == 1
  assert started.wait(10)
  threading.Timer(0.2, ends.set).start()
  results.close()
  assert not done


@pytest.mark.skipif(
  not hasattr(os, 'sched_setaffinity'), reason='jobs get cores on Linux'
)
def test_a_job_has_the_cores_that_it_got():
  everything = os.sched_getaffinity(0)
  assert parallel.cores() == len(everything)
  ask = (
    'import os; from leukemia_jax import parallel; '
    f'os.sched_setaffinity(0, {{{min(everything)}}}); print(parallel.cores())'
  )
  done = subprocess.run(
    [sys.executable, '-c', ask], capture_output=True, check=True, cwd=ROOT
  )
  assert int(done.stdout) == 1
