"""A trained run that the tests of several commands look at."""

import pathlib

import pytest
from command import SMALL, run


@pytest.fixture(scope='session')
def trained(once, cache) -> pathlib.Path:
  """A finished run of `SMALL`; not to be changed."""

  def train(folder: pathlib.Path) -> None:
    done = run(f'--workdir={folder}', cache, *SMALL)
    assert done.returncode == 0, done.stderr

  return once('trained', train)
