"""Folds: as scikit-learn's, contiguous with an embargo, the source's own."""

import dataclasses
import functools

import conftest
import jax
import numpy as np
import pytest
from conftest import catalogue
from sklearn.model_selection import StratifiedGroupKFold

from leukemia_jax.data import folds, part_contents, protocols
from leukemia_jax.errors import InputError, TooFewGroupsError

KEY = jax.random.key(3)
protocol = functools.partial(conftest.protocol, block=10, folds=5, fold=0)


class InOrder:
  """A generator that leaves the order as it is."""

  def permutation(self, count):
    return np.arange(count)


@pytest.mark.parametrize('seed', range(8))
def test_stratified_is_scikit_learns(seed):
  rng = np.random.default_rng(seed)
  labels = rng.choice(4, 300, p=(0.1, 0.2, 0.3, 0.4))
  groups = rng.integers(0, 40, 300)
  count = 3 + seed % 3
  got = folds.stratified(InOrder(), labels, groups, count)
  reference = np.empty(300, int)
  for i, (_, test) in enumerate(
    StratifiedGroupKFold(count).split(labels, labels, groups)
  ):
    reference[test] = i
  # Which of several equal folds is filled first hangs on rounding: the sets of
  # images are the same.
  sets, expected = (
    {tuple(np.flatnonzero(of == i)) for i in range(count)}
    for of in (got, reference)
  )
  assert sets == expected


def numbered(counts=(100, 60)):
  """Classes of files that are numbered, listed in another order."""
  labels = np.repeat(np.arange(len(counts)), counts)
  numbers = np.concatenate([np.arange(c) for c in counts])
  mixed = np.random.default_rng(0).permutation(len(labels))
  labels, numbers = labels[mixed], numbers[mixed]
  ids = tuple(f'c{y}/im-{i}.png' for y, i in zip(labels, numbers, strict=True))
  return catalogue(labels, ids=ids), numbers


def test_contiguous_folds_are_runs_of_files():
  of_set, numbers = numbered()
  got = folds.contiguous(of_set, 5)
  for label, size in ((0, 20), (1, 12)):
    for fold in range(5):
      own = np.sort(numbers[(of_set.labels == label) & (got == fold)])
      np.testing.assert_array_equal(own, size * fold + np.arange(size))


@pytest.mark.parametrize('embargo', [0, 3, 7])
@pytest.mark.parametrize('fold', range(5))
def test_an_embargo_is_kept_on_each_side(embargo, fold):
  of_set, numbers = numbered()
  split = protocols.make(
    KEY,
    of_set,
    protocol(grouping='contiguous', embargo=embargo, fold=fold, name='split'),
  )
  train, validation, test = (part[:, 0] for part in split)
  every = np.concatenate([train, validation, test])
  assert len(set(every)) == len(every)
  for label, total in ((0, 100), (1, 60)):
    place = [
      np.sort(numbers[part[of_set.labels[part] == label]])
      for part in (train, validation, test)
    ]
    for held_out, rest in ((2, (0, 1)), (1, (0,))):
      for part in rest:
        gaps = np.abs(place[held_out][:, None] - place[part])
        assert gaps.min() > embargo
    # Nothing but what lies near a held-out run is lost.
    lost = np.setdiff1d(np.arange(total), np.concatenate(place))
    held = np.concatenate(place[1:])
    assert all(np.abs(held - i).min() <= embargo for i in lost)
    assert len(place[2]) == total // 5


def test_too_large_an_embargo_is_refused():
  of_set, _ = numbered()
  with pytest.raises(InputError, match=r'config\.data\.embargo=40 leaves'):
    protocols.make(KEY, of_set, protocol(grouping='contiguous', embargo=40))


def test_equal_images_across_an_embargo_are_not_trained_on():
  of_set, numbers = numbered()
  hashes = list(of_set.pixel_hashes)
  first = np.flatnonzero((of_set.labels == 0) & (numbers == 2))[0]
  twin = np.flatnonzero((of_set.labels == 0) & (numbers == 97))[0]
  hashes[twin] = hashes[first]
  of_set = dataclasses.replace(of_set, pixel_hashes=tuple(hashes))
  split = protocols.make(KEY, of_set, protocol(grouping='contiguous'))
  assert first in split.test[:, 0]
  assert twin not in np.concatenate([split.train, split.validation])[:, 0]


@pytest.mark.parametrize('grouping', ['record', 'blocks', 'none'])
def test_each_image_is_tested_once_and_groups_are_whole(grouping):
  rng = np.random.default_rng(1)
  patients = np.array([f'p{i}' for i in rng.integers(0, 40, 400)])
  labels = np.array([int(p[1:]) % 3 for p in patients])
  of_set = catalogue(labels, None if grouping == 'blocks' else patients)
  tested = []
  for fold in range(4):
    split = protocols.make(
      KEY, of_set, protocol(folds=4, fold=fold, grouping=grouping)
    )
    tested.append(split.test[:, 0])
    parts = part_contents.patients_by_part(split, of_set)
    shared = part_contents.shared_patients(split, of_set)
    assert bool(shared) == (grouping == 'none')
    assert bool(parts['train'] & parts['test']) == (grouping == 'none')
    counts = np.bincount(labels[split.train[:, 0]])
    assert len(set(counts)) == 1  # balanced
  every = np.concatenate(tested)
  np.testing.assert_array_equal(np.sort(every), np.arange(400))


def test_folds_are_one_partition_where_the_first_draw_lacks_a_class():
  # The rarest cells are of few patients: often a fold leaves none to validate.
  rng = np.random.default_rng(0)
  patients = np.repeat(np.arange(40), 10)
  labels = rng.choice(3, 400)
  labels[(patients < 8) & (np.arange(400) % 10 == 0)] = 3
  of_set = catalogue(labels, [f'p{i}' for i in patients])
  for seed in range(6):
    key = jax.random.key(seed)
    tested = [
      protocols.make(key, of_set, protocol(grouping='record', fold=fold)).test
      for fold in range(5)
    ]
    every = np.sort(np.concatenate(tested)[:, 0])
    np.testing.assert_array_equal(every, np.arange(400))


def test_folds_are_drawn_again_where_one_lacks_a_class(monkeypatch):
  labels = np.arange(60) % 3
  draws, stratified = [], folds.stratified

  def draw(rng, labels, groups, count):
    draws.append(rng)
    if len(draws) == 1:
      return np.zeros(len(labels), np.int32)
    return stratified(rng, labels, groups, count)

  monkeypatch.setattr(folds, 'stratified', draw)
  assigned = protocols.assign_folds(KEY, catalogue(labels), protocol())
  assert len(draws) == 2
  for fold in range(5):
    assert set(labels[assigned == fold]) == {0, 1, 2}


def test_more_folds_are_advised_where_groups_are_few():
  # Of three patients a fold of two tests two, and leaves none to validate on.
  labels, patients = np.repeat([0, 1], 12), np.repeat(np.arange(6), 4)
  of_set = catalogue(labels, [f'p{i}' for i in patients])
  few = protocol(folds=2)
  with pytest.raises(TooFewGroupsError, match='more folds than .*folds=2'):
    for fold in range(2):
      protocols.make(KEY, of_set, few._replace(fold=fold))
  for fold in range(3):
    protocols.make(KEY, of_set, few._replace(folds=3, fold=fold))


def test_the_sources_own_folds():
  labels = np.tile([0, 1], 60)
  names = np.array(['fold_2', 'fold_0', 'fold_10'])[np.arange(120) // 2 % 3]
  of_set = catalogue(labels, parts=names)
  for fold, name in enumerate(('fold_0', 'fold_2', 'fold_10')):
    split = protocols.make(
      KEY, of_set, protocol(folds=3, fold=fold, split='source')
    )
    assert set(names[split.test[:, 0]]) == {name}
  with pytest.raises(InputError, match='fold_0, fold_2, fold_10; give their'):
    protocols.make(KEY, of_set, protocol(folds=5, split='source'))


def test_too_few_groups_are_refused():
  of_set = catalogue(np.repeat([0, 1], 8), [f'p{i // 4}' for i in range(16)])
  with pytest.raises(TooFewGroupsError, match="'class 0' has 2 groups"):
    protocols.make(KEY, of_set, protocol(folds=3))


def own_parts(**changes):
  """A set that is split already: per class 12, 4 and 4 images."""
  labels = np.repeat([0, 1], 20)
  parts = (['train'] * 12 + ['validation'] * 4 + ['test'] * 4) * 2
  return catalogue(labels, parts=parts, **changes), np.array(parts)


def test_a_sources_own_parts_are_taken():
  of_set, parts = own_parts()
  for choice in ('auto', 'source'):
    split = protocols.make(
      KEY, of_set, protocol(folds=1, fold=-1, split=choice)
    )
    for part, pairs in split._asdict().items():
      assert set(parts[pairs[:, 0]]) == {part}
    assert [len(p) for p in split[1:]] == [8, 8]
  anew = protocols.make(KEY, of_set, protocol(folds=1, fold=-1, split='random'))
  assert set(parts[anew.test[:, 0]]) > {'train'}


def test_validation_is_drawn_where_the_source_has_none():
  labels = np.repeat([0, 1], 40)
  parts = (['train'] * 30 + ['test'] * 10) * 2
  patients = [f'p{i // 2}' for i in range(80)]
  of_set = catalogue(labels, patients, parts=parts)
  split = protocols.make(KEY, of_set, protocol(folds=1, fold=-1))
  assert set(np.array(parts)[split.test[:, 0]]) == {'test'}
  assert set(np.array(parts)[split.validation[:, 0]]) == {'train'}
  assert len(split.validation) == 12 and len(split.test) == 20
  assert not part_contents.shared_patients(split, of_set)


def test_a_patient_in_two_of_the_sources_parts_is_refused():
  patients = [f'p{i}' for i in range(40)]
  patients[19] = patients[0]  # in test and in training
  of_set, _ = own_parts(groups=patients)
  with pytest.raises(InputError, match="patient 'p0' is in the source's train"):
    protocols.make(KEY, of_set, protocol(folds=1, fold=-1))
  split = protocols.make(
    KEY, of_set, protocol(folds=1, fold=-1, grouping='none')
  )
  assert part_contents.shared_patients(split, of_set) == ['p0']


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'fold': 5}, 'config.data.fold=5 must be below'),
    ({'name': 'balance_then_split'}, 'needs config.data.protocol='),
    ({'option': 2}, 'needs config.data.option=1'),
    ({'folds': 1, 'fold': -1, 'grouping': 'contiguous'}, 'folds of 2 or more'),
    ({'embargo': 3}, 'needs config.data.grouping=contiguous'),
    ({'split': 'source', 'grouping': 'contiguous'}, 'cuts folds of its own'),
    (
      {'split': 'source', 'name': 'disjoint_from_study_tests'},
      'config.data.split=source needs',
    ),
  ],
)
def test_combinations_that_do_not_exist(changes, words):
  assert any(words in text for text in protocols.problems(protocol(**changes)))
  assert not list(protocols.problems(protocol()))
