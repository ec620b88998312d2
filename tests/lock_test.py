"""One run at a time in a workdir."""

import multiprocessing

import pytest

from leukemia_jax import lock
from leukemia_jax.errors import InputError


def try_lock(workdir, answers):
  try:
    with lock.lock_run(workdir):
      answers.put('free')
  except InputError as error:
    answers.put(str(error))


def test_a_second_run_is_refused(tmp_path):
  context = multiprocessing.get_context('spawn')
  answers = context.Queue()

  def ask() -> str:
    process = context.Process(target=try_lock, args=(tmp_path / 'w', answers))
    process.start()
    answer = answers.get(timeout=60)
    process.join()
    return answer

  with lock.lock_run(tmp_path / 'w'):
    assert 'another run is at work here' in ask()
  assert ask() == 'free'


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path):
  with pytest.raises(KeyError), lock.lock_run(tmp_path / 'a/b/c'):
    raise KeyError
  assert not list(tmp_path.iterdir())
  # Another run may begin in a folder that this one made.
  with pytest.raises(KeyError), lock.lock_run(tmp_path / 'a/b'):
    (tmp_path / 'a/other').mkdir()
    raise KeyError
  assert [path.name for path in (tmp_path / 'a').iterdir()] == ['other']
  with lock.lock_run(tmp_path / 'a/b'):
    (tmp_path / 'a/b/x').touch()
  assert (tmp_path / 'a/b/x').exists()
