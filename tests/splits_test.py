"""Splits: the study's numbers, no leak, and properties of every protocol."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from leukemia_jax.data import dataset, splits
from leukemia_jax.errors import InputError

COUNTS = (504, 985, 963, 804)
LABELS = np.repeat(np.arange(4), COUNTS).astype(np.int32)
KEY = jax.random.key(7)


def catalogue(labels, groups=None, ids=None) -> dataset.Catalogue:
  count = len(labels)
  names = tuple(f'class {i}' for i in range(int(max(labels)) + 1))
  return dataset.Catalogue(
    class_names=names,
    labels=np.asarray(labels, np.int32),
    ids=ids or tuple(f'{names[y]}/{i}.png' for i, y in enumerate(labels)),
    pixels=tuple(map(str, range(count))),
    groups=tuple(groups)
    if groups is not None
    else tuple(map(str, range(count))),
    fingerprint='f',
    coverage=np.full(count, np.nan),
    masks=0,
    many_coloured=0,
    mask_side=0,
    skipped=(),
    bad_masks=(),
    unpaired=(),
  )


def settings(**changes) -> ConfigDict:
  values = {
    'option': 1,
    'order': 'split_then_balance',
    'grouping': 'record',
    'block': 40,
    'per_class': 0,
  }
  return ConfigDict(values | changes)


def by_class(rows: np.ndarray, labels=LABELS) -> list[int]:
  return np.bincount(labels[rows[:, 0]], minlength=4).tolist()


def test_the_studys_option_1():
  split = splits.make(
    KEY, catalogue(LABELS), settings(order='balance_then_split')
  )
  assert [by_class(part) for part in split] == [[700] * 4, [150] * 4, [150] * 4]


def test_the_studys_option_2():
  order = 'balance_then_split'
  split = splits.make(KEY, catalogue(LABELS), settings(order=order, option=2))
  assert [len(part) for part in split] == [2800, 600, 600]
  split = splits.make(KEY, catalogue(LABELS), settings(option=2))
  assert [len(part) for part in split[1:]] == [489, 489]
  assert len(splits.unique(split.train)) == 2278


def test_both_options_share_one_set_of_4000():
  every = []
  for option in (1, 2):
    split = splits.make(
      KEY,
      catalogue(LABELS),
      settings(order='balance_then_split', option=option),
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
  split = splits.make(KEY, catalogue(LABELS, groups), settings(option=option))
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
  split = splits.make(KEY, catalogue(labels, groups), settings())
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
  split = splits.make(KEY, catalogue(both, names), settings())
  for part in split:
    assert set(both[part[:, 0]]) == {0, 1}


def test_a_class_without_images_is_named():
  there = catalogue(np.repeat([0, 2], 10))
  for order in splits.ORDERS:
    with pytest.raises(InputError, match="'class 1' has no image left"):
      splits.make(KEY, there, settings(order=order))


def test_learnt_from_is_training_and_validation():
  there = catalogue(np.repeat([0, 1], 30))
  split = splits.make(KEY, there, settings())
  learnt = splits.learnt_from(json.loads(splits.to_json(split, there)))
  test = {there.pixels[i] for i in split.test[:, 0]}
  assert learnt == set(there.pixels) - test


def test_split_is_a_function_of_the_key():
  one, same = (splits.make(KEY, catalogue(LABELS), settings()) for _ in 'ab')
  other = splits.make(jax.random.key(8), catalogue(LABELS), settings())
  for a, b, c in zip(one, same, other, strict=True):
    np.testing.assert_array_equal(a, b)
    assert (np.sort(a[:, 0])[:100] != np.sort(c[:, 0])[:100]).any()


def test_a_group_across_classes_stays_whole():
  labels = np.repeat([0, 1], 40)
  groups = [str(i % 20) for i in range(80)]
  split = splits.make(KEY, catalogue(labels, groups), settings())
  parts = [{groups[i] for i in part[:, 0]} for part in split]
  assert sum(map(len, parts)) == 20


def test_blocks_follow_file_numbers_and_keep_twins_together():
  ids = tuple(f'a/im-{i}.png' for i in range(1, 101)) + tuple(
    f'b/im-{i}.png' for i in range(1, 101)
  )
  groups = [str(i) for i in range(200)]
  groups[5] = groups[95]  # equal images in the first and the last block
  labels = np.repeat([0, 1], 100)
  numbers = splits.group_ids(catalogue(labels, groups, ids), 'blocks', 10)
  assert len(set(numbers)) == 19
  assert numbers[5] == numbers[95] == numbers[0] == numbers[99]
  assert len(set(numbers[10:20])) == 1
  assert numbers[10] != numbers[20]
  alone = splits.group_ids(catalogue(labels, groups, ids), 'none', 10)
  assert len(set(alone)) == 200


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
    splits.make(KEY, catalogue(labels), settings())


def test_three_images_a_class_are_enough():
  split = splits.make(KEY, catalogue(np.repeat([0, 1], 3)), settings())
  assert [len(splits.unique(part)) for part in split] == [2, 2, 2]


def test_json_gives_the_split_back():
  there = catalogue(LABELS)
  split = splits.make(KEY, there, settings(order='balance_then_split'))
  back, fingerprint = splits.from_json(json.loads(splits.to_json(split, there)))
  assert fingerprint == 'f'
  for a, b in zip(split, back, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('option', [1, 2])
def test_split_alone_holds_every_original_once(option):
  split = splits.make(
    KEY, catalogue(LABELS), settings(order='split', option=option)
  )
  rows = np.concatenate(split)
  assert not rows[:, 1].any()
  assert sorted(rows[:, 0].tolist()) == list(range(len(LABELS)))
  if option == 2:
    # The study's 2278 / 489 / 489.
    assert [len(part) for part in split] == [2278, 489, 489]


@pytest.mark.parametrize('option', [1, 2])
@pytest.mark.parametrize(
  'order', ['split_then_balance', 'balance_then_split', 'split']
)
def test_what_is_not_trainable_is_held_out_or_nowhere(order, option):
  trainable = np.random.default_rng(0).uniform(size=len(LABELS)) < 0.7
  given = {'order': order, 'option': option}
  whole = splits.make(KEY, catalogue(LABELS), settings(**given))
  some = splits.make(
    KEY, catalogue(LABELS), settings(**given), trainable=trainable
  )
  assert trainable[some.train[:, 0]].all()
  # All that may train still does, and the other parts are untouched.
  kept = whole.train[trainable[whole.train[:, 0]]]
  assert set(map(tuple, some.train)) == set(map(tuple, kept))
  for one, other in zip(whole[1:], some[1:], strict=True):
    np.testing.assert_array_equal(one, other)
  if order == 'split_then_balance':
    # Left out before rare classes are filled up, not after.
    assert len(set(np.bincount(LABELS[some.train[:, 0]]))) == 1


@pytest.mark.parametrize('option', [1, 2])
def test_outside_of_the_study_nothing_is_seen_of_its_tests(option):
  # Patients of forty images; every third image is a twin of the one before.
  names = tuple(str(i - (i % 3 == 2)) for i in range(len(LABELS)))
  patients = [f'{label}-{i // 40}' for i, label in enumerate(LABELS)]
  known = dataclasses.replace(catalogue(LABELS, patients), pixels=names)
  outside = splits.make(
    KEY, known, settings(order='outside_study', option=option)
  )
  tested = {
    int(i)
    for order in splits.STUDY_ORDERS
    for o in splits.OPTIONS
    for i in splits.make(KEY, known, settings(order=order, option=o)).test[:, 0]
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
