"""Splits: the study's numbers, no leak, and properties of every protocol."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from conftest import catalogue, protocol

from leukemia_jax.data import protocols, splits
from leukemia_jax.errors import InputError

COUNTS = (504, 985, 963, 804)
LABELS = np.repeat(np.arange(4), COUNTS).astype(np.int32)
KEY = jax.random.key(7)


def by_class(rows: np.ndarray, labels=LABELS) -> list[int]:
  return np.bincount(labels[rows[:, 0]], minlength=4).tolist()


def test_the_studys_option_1():
  split = protocols.make(
    KEY, catalogue(LABELS), protocol(name='balance_then_split')
  )
  assert [by_class(part) for part in split] == [[700] * 4, [150] * 4, [150] * 4]


def test_the_studys_option_2():
  name = 'balance_then_split'
  split = protocols.make(KEY, catalogue(LABELS), protocol(name=name, option=2))
  assert [len(part) for part in split] == [2800, 600, 600]
  split = protocols.make(KEY, catalogue(LABELS), protocol(option=2))
  assert [len(part) for part in split[1:]] == [489, 489]
  assert len(splits.unique(split.train)) == 2278


def test_both_options_share_one_set_of_4000():
  every = []
  for option in (1, 2):
    split = protocols.make(
      KEY,
      catalogue(LABELS),
      protocol(name='balance_then_split', option=option),
    )
    rows = np.concatenate(split)
    assert len(rows) == len(splits.unique(rows)) == 4000
    every.append(splits.unique(rows))
  np.testing.assert_array_equal(*every)


def test_copies_spread_evenly():
  rows = splits.copies_for(LABELS, 4, 1200, KEY)
  for label in range(4):
    members = rows[LABELS[rows[:, 0]] == label]
    times = np.bincount(members[:, 0], minlength=len(LABELS))[LABELS == label]
    assert len(members) == 1200 - COUNTS[label]
    assert times.max() - times.min() <= 1


@pytest.mark.parametrize('option', [1, 2])
def test_no_image_and_no_group_in_two_parts(option):
  rng = np.random.default_rng(0)
  groups = [f'{y}-{rng.integers(25)}' for y in LABELS]
  split = protocols.make(
    KEY, catalogue(LABELS, groups), protocol(option=option)
  )
  seen = [{groups[i] for i in part[:, 0]} for part in split]
  for one, other in itertools.combinations(seen, 2):
    assert not one & other
  sources = np.concatenate([splits.unique(part)[:, 0] for part in split])
  np.testing.assert_array_equal(np.sort(sources), np.arange(len(LABELS)))
  assert not np.concatenate(split)[:, 1].any()
  train = by_class(split.train)
  assert len(set(train)) == 1
  assert train[0] >= 700
  # Validation and test hold every original once.
  for part in split[1:]:
    assert len(part) == len(splits.unique(part))


def test_part_sizes_are_as_near_as_groups_allow():
  # 20 groups of 50: 15 % of 1,000 is three groups exactly.
  labels = np.repeat([0, 1], 1000)
  groups = [f'{i // 50}' for i in range(2000)]
  split = protocols.make(KEY, catalogue(labels, groups), protocol())
  assert [by_class(part, labels)[:2] for part in split[1:]] == [[150, 150]] * 2


@pytest.mark.parametrize('seed', range(20))
def test_subset_sum_against_brute_force(seed):
  rng = np.random.default_rng(seed)
  sizes = rng.integers(1, 30, rng.integers(1, 10)).tolist()
  wanted = int(rng.integers(1, 60))
  chosen = splits._choose(sizes, wanted)
  total = sum(sizes[i] for i in chosen)
  assert len(chosen) == len(set(chosen)) > 0
  subsets = itertools.chain.from_iterable(
    itertools.combinations(sizes, n) for n in range(1, len(sizes) + 1)
  )
  assert abs(total - wanted) == min(abs(sum(s) - wanted) for s in subsets)


@pytest.mark.parametrize(
  'sizes', [(6, 6, 88), (5, 5, 90), (4, 4, 4, 88), (1, 1, 1), (50, 50, 1)]
)
def test_few_groups_still_fill_every_part(sizes):
  groups = np.repeat(np.arange(len(sizes)), sizes)
  labels = np.zeros(len(groups), int)
  both = np.concatenate([labels, labels + 1])
  names = [str(g) for g in groups] + [f'b{g}' for g in groups]
  split = protocols.make(KEY, catalogue(both, names), protocol())
  for part in split:
    assert set(both[part[:, 0]]) == {0, 1}


def test_a_class_without_images_is_named():
  there = catalogue(np.repeat([0, 2], 10))
  for name in protocols.PROTOCOLS:
    with pytest.raises(InputError, match="'class 1' has no image left"):
      protocols.make(KEY, there, protocol(name=name))


def test_split_is_a_function_of_the_key():
  one, same = (protocols.make(KEY, catalogue(LABELS), protocol()) for _ in 'ab')
  other = protocols.make(jax.random.key(8), catalogue(LABELS), protocol())
  for a, b, c in zip(one, same, other, strict=True):
    np.testing.assert_array_equal(a, b)
    assert (np.sort(a[:, 0])[:100] != np.sort(c[:, 0])[:100]).any()


def test_a_group_across_classes_stays_whole():
  labels = np.repeat([0, 1], 40)
  groups = [str(i % 20) for i in range(80)]
  split = protocols.make(KEY, catalogue(labels, groups), protocol())
  parts = [{groups[i] for i in part[:, 0]} for part in split]
  assert sum(map(len, parts)) == 20


def test_per_class():
  assert splits.per_class(LABELS, 4) == 1000
  assert splits.per_class(LABELS, 4, 1500) == 1500
  assert splits.per_class(LABELS[::10], 4) == 100
  with pytest.raises(InputError, match=r'per_class=900.*985'):
    splits.per_class(LABELS, 4, 900)


@pytest.mark.parametrize('counts', [(2, 50), (50, 1)])
def test_too_few_images_names_the_class(counts):
  labels = np.repeat([0, 1], counts)
  with pytest.raises(InputError, match=f"'class {np.argmin(counts)}'"):
    protocols.make(KEY, catalogue(labels), protocol())


def test_three_images_a_class_are_enough():
  split = protocols.make(KEY, catalogue(np.repeat([0, 1], 3)), protocol())
  assert [len(splits.unique(part)) for part in split] == [2, 2, 2]


@pytest.mark.parametrize('option', [1, 2])
def test_split_alone_holds_every_original_once(option):
  split = protocols.make(
    KEY, catalogue(LABELS), protocol(name='split', option=option)
  )
  rows = np.concatenate(split)
  assert not rows[:, 1].any()
  assert sorted(rows[:, 0].tolist()) == list(range(len(LABELS)))
  if option == 2:
    # The study's 2278 / 489 / 489.
    assert [len(part) for part in split] == [2278, 489, 489]


@pytest.mark.parametrize('option', [1, 2])
@pytest.mark.parametrize(
  'name', ['split_then_balance', 'balance_then_split', 'split']
)
def test_what_is_not_trainable_is_held_out_or_nowhere(name, option):
  trainable = np.random.default_rng(0).uniform(size=len(LABELS)) < 0.7
  given = {'name': name, 'option': option}
  whole = protocols.make(KEY, catalogue(LABELS), protocol(**given))
  some = protocols.make(
    KEY, catalogue(LABELS), protocol(**given), trainable=trainable
  )
  assert trainable[some.train[:, 0]].all()
  # All that may train still does, and the other parts are untouched.
  kept = whole.train[trainable[whole.train[:, 0]]]
  assert set(map(tuple, some.train)) == set(map(tuple, kept))
  for one, other in zip(whole[1:], some[1:], strict=True):
    np.testing.assert_array_equal(one, other)
  if name == 'split_then_balance':
    # Left out before rare classes are filled up, not after.
    assert len(set(np.bincount(LABELS[some.train[:, 0]]))) == 1


@pytest.mark.parametrize('seed', range(6))
def test_outside_of_the_study_nothing_is_seen_where_draws_are_many(seed):
  # A class of few patients: often the first draws leave a part without it.
  patients = np.repeat(np.arange(40), 5)
  labels = np.where(patients < 4, 2, patients % 2)
  known = catalogue(labels, [f'p{i}' for i in patients])
  key = jax.random.key(seed)
  outside = protocols.make(
    key, known, protocol(name='disjoint_from_study_tests')
  )
  learnt = {int(i) for part in outside[:2] for i in part[:, 0]}
  for name in protocols.STUDY_PROTOCOLS:
    for option in protocols.OPTIONS:
      own = protocols.make(key, known, protocol(name=name, option=option))
      assert not learnt & set(own.test[:, 0].tolist())


def test_a_test_part_that_leaves_nothing_to_validate_on_is_refused():
  parts = ['train'] * 30 + ['test'] * 10
  patients = ['a'] * 15 + ['b'] * 15 + ['c'] * 5 + ['d'] * 5
  labels = [0] * 15 + [1] * 15 + [0] * 5 + [1] * 5
  known = catalogue(labels, patients, parts=parts)
  with pytest.raises(InputError, match='validation part.*split=random'):
    protocols.make(KEY, known, protocol())


@pytest.mark.parametrize('option', [1, 2])
def test_outside_of_the_study_nothing_is_seen_of_its_tests(option):
  # Patients of forty images; every third image is a twin of the one before.
  names = tuple(str(i - (i % 3 == 2)) for i in range(len(LABELS)))
  patients = [f'{label}-{i // 40}' for i, label in enumerate(LABELS)]
  known = dataclasses.replace(catalogue(LABELS, patients), pixel_hashes=names)
  outside = protocols.make(
    KEY, known, protocol(name='disjoint_from_study_tests', option=option)
  )
  tested = {
    int(i)
    for name in protocols.STUDY_PROTOCOLS
    for o in protocols.OPTIONS
    for i in protocols.make(KEY, known, protocol(name=name, option=o)).test[
      :, 0
    ]
  }
  learnt = {int(i) for part in outside[:2] for i in part[:, 0]}
  assert tested <= set(outside.test[:, 0].tolist())
  assert not {names[i] for i in tested} & {names[i] for i in learnt}
  # Every image is somewhere, and no patient is in training and validation.
  assert learnt | set(outside.test[:, 0].tolist()) == set(range(len(LABELS)))
  one, other = ({patients[i] for i in part[:, 0]} for part in outside[:2])
  assert not one & other
  # Enough is left to learn from, and classes are balanced.
  counts = np.bincount(LABELS[outside.train[:, 0]])
  assert len(set(counts)) == 1
  assert np.bincount(LABELS[np.unique(outside.train[:, 0])]).min() >= 80
