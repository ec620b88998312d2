"""Paths as users give them."""

import pathlib

import pytest

from leukemia_jax import files
from leukemia_jax.errors import InputError


def test_home_is_expanded(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert files.expand('~/runs') == tmp_path / 'runs'
  assert files.expand('a/~') == pathlib.Path('a/~')


def test_a_path_that_cannot_be_written_down_is_named():
  with pytest.raises(InputError, match='is not UTF-8; rename it'):
    files.expand('caf\udce9')


def test_without_a_home_nothing_is_called_tilde(monkeypatch):
  monkeypatch.delenv('HOME')
  # As in a container whose user is not in its list of users.
  monkeypatch.setattr('os.path.expanduser', lambda path: path)
  with pytest.raises(InputError, match='HOME is not set'):
    files.expand('~/runs')
