"""Checkpoints: what is saved comes back; what can't be, is said."""

import collections
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax.errors import InputError
from leukemia_jax.workdir import checkpoint

ARRAYS = {'a': jnp.arange(6.0).reshape(2, 3), 'b': {'c': jnp.int32(7)}}


@pytest.fixture
def manager(tmp_path):
  manager = checkpoint.open_manager(tmp_path / 'latest')
  yield manager
  manager.close()


def test_round_trip(manager):
  assert checkpoint.restore(manager, ARRAYS) is None
  notes = {'best': float('inf'), 'loss': 0.1 + 0.2}
  checkpoint.save(manager, 3, ARRAYS, notes)
  arrays, back = checkpoint.restore(manager, ARRAYS)
  jax.tree.map(np.testing.assert_array_equal, arrays, ARRAYS)
  assert back == notes
  assert checkpoint.fingerprint(arrays) == checkpoint.fingerprint(ARRAYS)


def test_a_folder_that_is_opened_but_not_saved_to_is_empty(manager):
  directory = pathlib.Path(manager.directory)
  assert directory.is_dir()
  assert checkpoint.is_empty(directory)
  assert checkpoint.is_empty(directory / 'no such')
  checkpoint.save(manager, 3, ARRAYS, {})
  assert not checkpoint.is_empty(directory)


def test_what_is_opened_to_read_is_left_as_it_is(manager):
  directory = pathlib.Path(manager.directory)
  checkpoint.save(manager, 3, ARRAYS, {})
  cut_off = directory / '4.orbax-checkpoint-tmp-0'
  cut_off.mkdir()
  reader = checkpoint.open_manager(directory, read_only=True)
  arrays, _ = checkpoint.restore(reader, ARRAYS)
  reader.close()
  jax.tree.map(np.testing.assert_array_equal, arrays, ARRAYS)
  assert cut_off.is_dir()


def test_the_newest_is_kept_and_no_number_is_written_twice(manager):
  for number in (1, 5):
    checkpoint.save(manager, number, {'a': jnp.full(2, number)}, {})
  checkpoint.save(manager, 5, {'a': jnp.zeros(2)}, {})
  assert list(manager.all_steps()) == [5]
  arrays, _ = checkpoint.restore(manager, {'a': jnp.zeros(2, int)})
  assert np.asarray(arrays['a']).tolist() == [5, 5]


def test_a_full_disk_is_said_before_anything_is_written(manager, monkeypatch):
  usage = collections.namedtuple('usage', 'free')
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(1000))
  with pytest.raises(InputError, match=r'cannot write a checkpoint.*Make room'):
    checkpoint.save(manager, 1, ARRAYS, {})
  assert manager.latest_step() is None


def test_a_damaged_checkpoint_is_named(manager):
  checkpoint.save(manager, 1, ARRAYS, {})
  for path in pathlib.Path(manager.directory / '1' / 'arrays').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with pytest.raises(InputError, match='cannot be read'):
    checkpoint.restore(manager, ARRAYS)


def test_fingerprint_sees_names_shapes_and_values():
  base = checkpoint.fingerprint(ARRAYS)
  assert checkpoint.fingerprint(ARRAYS | {'a': ARRAYS['a'] + 1}) != base
  assert checkpoint.fingerprint(ARRAYS | {'a': ARRAYS['a'].T}) != base
  assert checkpoint.fingerprint({'x': ARRAYS['a'], 'b': ARRAYS['b']}) != base
