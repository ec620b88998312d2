"""What a run left behind comes back, or is named as damaged."""

import json

import jax
import numpy as np
import pytest
from conftest import catalogue

from leukemia_jax.data import protocols, splits
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import saved

NOTHING = saved.Learnt(frozenset(), True)
LABELS = np.repeat(np.arange(4), (50, 98, 96, 80)).astype(np.int32)


def make(name: str) -> splits.Split:
  protocol = protocols.Protocol(name, 1, 'record', 40, 0)
  return protocols.make(jax.random.key(7), catalogue(LABELS), protocol)


@pytest.mark.parametrize('name', protocols.STUDY_PROTOCOLS)
def test_a_split_comes_back(tmp_path, name):
  named = [f'patient {i // 5}' if i % 3 else '' for i in range(len(LABELS))]
  split, known = make(name), catalogue(LABELS, groups=named)
  saved.write_split(tmp_path, split, known, NOTHING)
  back = saved.read_split(tmp_path)
  assert back.fingerprint == 'f'
  for before, after in zip(split, back.split, strict=True):
    np.testing.assert_array_equal(before, after)
  # What was learnt from is all that is in training or validation.
  learnt = np.concatenate(split[:2])[:, 0]
  own = {known.pixel_hashes[i] for i in learnt}
  patients = {named[i] for i in learnt} - {''}
  assert back.learnt == (own, True, patients) and back.before == NOTHING
  # With what its weights had learnt from, and so on.
  earlier = frozenset({'elsewhere', *sorted(own)[:1]})
  before = saved.Learnt(earlier, False, frozenset({'somebody'}))
  saved.write_split(tmp_path, split, known, before)
  back = saved.read_split(tmp_path)
  assert back.before == before
  everybody = patients | {'somebody'}
  assert back.learnt == (own | {'elsewhere'}, False, everybody)
  # Runs of 0.5.0 say nothing of it.
  content = json.loads((tmp_path / 'split.json').read_text())
  del content['before']
  (tmp_path / 'split.json').write_text(json.dumps(content))
  for weights, is_known in (('none', True), ('runs/first', False)):
    config = {'model': {'weights': weights}}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    back = saved.read_split(tmp_path)
    assert back.before is None and back.learnt == (own, is_known, patients)


@pytest.mark.parametrize(
  'change',
  [
    lambda c: c.pop('pixel_hashes'),
    lambda c: c['parts'].pop('test'),
    lambda c: c['parts'].update(test=[]),
    lambda c: c['parts'].update(test=[[10**6, 0]]),
    lambda c: c['parts'].update(test=[[-1, 0]]),
    lambda c: c['parts'].update(test=[[10**12, 0]]),
    lambda c: c['parts'].update(test='all'),
    lambda c: c.update(parts=None),
    lambda c: c.update(before=[]),
  ],
)
def test_a_damaged_split_is_named(tmp_path, change):
  saved.write_split(tmp_path, make('split'), catalogue(LABELS), NOTHING)
  content = json.loads((tmp_path / 'split.json').read_text())
  change(content)
  (tmp_path / 'split.json').write_text(json.dumps(content))
  with pytest.raises(InputError, match=r'split\.json is damaged'):
    saved.read_split(tmp_path)
