"""Training, validation and test parts: pure functions of labels, groups, key.

A part is an int array of shape (n, 2) of (source index, copy number); copy 0
is the original image. Two loading options and these protocols are known:

* option 1 splits every class by itself (the study's 700 / 150 / 150 of 1,000),
  option 2 splits all images at once (70 / 15 / 15 %);
* `balance_then_split`, the study's: every class is filled up by augmented
  copies, then all are split, so copies of one image land in several parts;
* `split_then_balance`: originals are split by group, then the training part of
  every class is filled up by repeating indices. No image and no group is in
  two parts, and all training images are augmented the same way, while training;
* `split` is the same without the repeating;
* `disjoint_from_study_tests` is `split_then_balance` without what a test part
  of the first two protocols holds, in either option; that is its test part. A
  backbone that was trained on it has seen none of the images that the study
  tests on, nor their copies, whichever way it splits.
"""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax.data import grouping
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.errors import InputError

PARTS = ('train', 'validation', 'test')
OPTIONS = (1, 2)
STUDY_PROTOCOLS = ('split_then_balance', 'balance_then_split')
PROTOCOLS = (*STUDY_PROTOCOLS, 'split', 'disjoint_from_study_tests')
# The study's numbers: images a class is filled up to, of a set of that size.
STUDY_PER_CLASS = 1000
STUDY_SIZE = 3256
# Shares of validation and test, as exact fractions of 100; the rest trains.
_HELD_OUT_PERCENT = 15


class Split(NamedTuple):
  """The three parts, each int32 of shape (n, 2): source index, copy number."""

  train: np.ndarray
  validation: np.ndarray
  test: np.ndarray


class Protocol(NamedTuple):
  """How a set is split; see `config.data` for the values.

  Attributes:
    name: one of `PROTOCOLS`.
    option: 1 splits by class, 2 globally.
    grouping: see `grouping.group_ids`.
    block: see `grouping.group_ids`.
    per_class: images that every class is filled up to; 0 chooses.
  """

  name: str
  option: int
  grouping: str
  block: int
  per_class: int


def _generator(key: jax.Array) -> np.random.Generator:
  """A NumPy generator for index work on the host, seeded by a JAX key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _held_out(count: int, round_up: bool) -> int:
  """15 % of a count: up as the study's option 2, else to the nearest.

  Three images or more leave at least one for every part.
  """
  extra = 99 if round_up else 50
  return max(int(count >= 3), (count * _HELD_OUT_PERCENT + extra) // 100)


def per_class(labels: np.ndarray, num_classes: int, wanted: int = 0) -> int:
  """The number of images that every class is filled up to.

  Args:
    labels: int array, the originals' labels.
    num_classes: number of classes.
    wanted: `config.data.per_class`; 0 scales the study's 1,000 of 3,256 to the
      size of this set.

  Returns:
    The number; never below the size of the largest class.

  Raises:
    InputError: `wanted` is smaller than a class.
  """
  largest = int(np.bincount(labels, minlength=num_classes).max())
  if wanted and wanted < largest:
    raise InputError(
      f'config.data.per_class={wanted}: the largest class has {largest} '
      'images; give that or more, or 0 to choose it from the size of the set'
    )
  scaled = round(STUDY_PER_CLASS * len(labels) / STUDY_SIZE)
  return wanted or max(largest, scaled)


def _choose(sizes: list[int], wanted: int, leave: int = 0) -> list[int]:
  """Positions of items whose sizes sum as near to `wanted` as they can.

  If that took all but fewer than `leave` of them, the largest `leave` are kept
  out of it: parts that are filled later need some too.

  Subset sum by dynamic programming over bit sets: bit s of `reach[i]` says
  whether the first i items can sum to s. Early items are preferred, so a
  shuffled list gives a random choice. Nothing is chosen only if nothing is
  wanted or there is nothing to choose.
  """
  if not wanted or not sizes:
    return []
  reach, largest = [1], wanted + max(sizes)
  for size in sizes:
    reach.append((reach[-1] | reach[-1] << size) & ((2 << largest) - 1))
  sums = [s for s in range(1, largest + 1) if reach[-1] >> s & 1]
  total = min(sums, key=lambda s: abs(s - wanted))
  chosen = []
  for i in range(len(sizes), 0, -1):
    if not reach[i - 1] >> total & 1:
      chosen.append(i - 1)
      total -= sizes[i - 1]
  if len(sizes) - len(chosen) >= leave:
    return chosen
  smaller = sorted(range(len(sizes)), key=lambda i: sizes[i])[:-leave]
  smaller.sort()
  return [smaller[i] for i in _choose([sizes[i] for i in smaller], wanted)]


def _split_groups(
  indices: np.ndarray,
  groups: np.ndarray,
  held_out: int,
  fixed: dict[int, int],
  rng: np.random.Generator,
) -> list[np.ndarray]:
  """Splits images by group; `fixed` holds, and takes, groups' parts."""
  parts: list[list[int]] = [[], [], []]
  members: dict[int, list[int]] = {}
  for i in indices:
    members.setdefault(int(groups[i]), []).append(int(i))
  for group in [g for g in members if g in fixed]:
    parts[fixed[group]] += members.pop(group)
  names = list(members)
  names = [names[i] for i in rng.permutation(len(names))]
  for part in (2, 1):
    sizes = [len(members[name]) for name in names]
    wanted = max(0, held_out - len(parts[part]))
    # Test is filled first: validation and training need a group each.
    chosen = {names[i] for i in _choose(sizes, wanted, leave=part)}
    for name in chosen:
      parts[part] += members[name]
      fixed[name] = part
    names = [name for name in names if name not in chosen]
  for name in names:
    parts[0] += members[name]
    fixed[name] = 0
  return [rng.permutation(np.array(part, np.int32)) for part in parts]


def copies_for(
  labels: np.ndarray, num_classes: int, target: int, key: jax.Array
) -> np.ndarray:
  """Which augmented copies fill every class up, the same in both options.

  Args:
    labels: int array, the originals' labels.
    num_classes: number of classes.
    target: images a class is filled up to.
    key: PRNG key.

  Returns:
    int32 array of shape (m, 2): source index and copy number, from 1. Sources
    go round a shuffled class, so copies spread evenly.
  """
  rng, pairs = _generator(key), []
  for label in range(num_classes):
    members = rng.permutation(np.flatnonzero(labels == label))
    numbers = np.arange(max(0, target - len(members)))
    sources = members[numbers % len(members)]
    pairs.append(np.stack([sources, 1 + numbers // len(members)], 1))
  return np.concatenate(pairs).astype(np.int32)


def _cut(
  pairs: np.ndarray, held_out: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  pairs = pairs[rng.permutation(len(pairs))]
  first, second = len(pairs) - 2 * held_out, len(pairs) - held_out
  return pairs[:first], pairs[first:second], pairs[second:]


def balance_then_split(
  key: jax.Array,
  labels: np.ndarray,
  *,
  num_classes: int,
  option: int,
  target: int,
) -> Split:
  """The study's protocol: fills classes by copies, then splits; leaks.

  Args:
    key: PRNG key.
    labels: int array, the originals' labels.
    num_classes: number of classes.
    option: 1 splits by class, 2 globally.
    target: images a class is filled up to.

  Returns:
    The split; pairs with a copy number above 0 are augmented copies.
  """
  copy_rows_key, split_key = jax.random.split(key)
  copies = copies_for(labels, num_classes, target, copy_rows_key)
  originals = np.stack([np.arange(len(labels)), np.zeros(len(labels), int)], 1)
  pairs = np.concatenate([originals, copies]).astype(np.int32)
  rng = _generator(split_key)
  if option == 2:
    return Split(*_cut(pairs, _held_out(len(pairs), True), rng))
  cuts = []
  for label in range(num_classes):
    of_class = pairs[labels[pairs[:, 0]] == label]
    cuts.append(_cut(of_class, _held_out(len(of_class), False), rng))
  joined = [np.concatenate(part) for part in zip(*cuts, strict=True)]
  return Split(*(part[rng.permutation(len(part))] for part in joined))


def split_then_balance(
  key: jax.Array,
  labels: np.ndarray,
  groups: np.ndarray,
  *,
  num_classes: int,
  option: int,
  target: int | None,
  trainable: np.ndarray | None = None,
) -> Split:
  """Splits originals by group, then fills the training part by repeating.

  Args:
    key: PRNG key.
    labels: int array, the originals' labels.
    groups: int array, the originals' groups; none is torn apart.
    num_classes: number of classes.
    option: 1 splits by class, 2 globally.
    target: images a class of the whole set is filled up to; its training part
      is filled up to 70 % of that. None fills up nothing.
    trainable: bool array, the originals that may be in the training part; None
      for all. The others of that part are in none.

  Returns:
    The split; validation and test hold every original once, all copy numbers
    are 0.
  """
  rng = _generator(key)
  fixed: dict[int, int] = {}
  if option == 2:
    held_out = _held_out(len(labels), True)
    indices = np.arange(len(labels))
    parts = _split_groups(indices, groups, held_out, fixed, rng)
  else:
    by_class = []
    for label in range(num_classes):
      of_class = np.flatnonzero(labels == label)
      held_out = _held_out(len(of_class), False)
      by_class.append(_split_groups(of_class, groups, held_out, fixed, rng))
    parts = [
      rng.permutation(np.concatenate(part))
      for part in zip(*by_class, strict=True)
    ]
  if trainable is not None:
    parts[0] = parts[0][trainable[parts[0]]]
  if target is not None:
    train = parts[0]
    counts = np.bincount(labels[train], minlength=num_classes)
    fill = max(target - 2 * _held_out(target, False), int(counts.max()))
    repeated = [train]
    for label in range(num_classes):
      of_class = rng.permutation(train[labels[train] == label])
      if len(of_class):
        repeated.append(np.resize(of_class, fill - len(of_class)))
    parts[0] = rng.permutation(np.concatenate(repeated))
  return Split(
    *(np.stack([p, np.zeros_like(p)], 1).astype(np.int32) for p in parts)
  )


def tested(catalogue: Catalogue, splits: Iterable[Split]) -> np.ndarray:
  """Which images a test part holds, or copies or twins of them: bool (n,)."""
  sources = np.concatenate([split.test[:, 0] for split in splits])
  hashes = np.array(catalogue.pixel_hashes)
  return np.isin(hashes, hashes[sources])


def make(
  key: jax.Array,
  catalogue: Catalogue,
  protocol: Protocol,
  *,
  trainable: np.ndarray | None = None,
) -> Split:
  """Splits a set.

  Args:
    key: PRNG key.
    catalogue: of the set.
    protocol: how.
    trainable: bool array, shape (n,), images that may be in the training part;
      None for all.

  Returns:
    The split.

  Raises:
    InputError: a class has too few images or groups to be in every part, or
      none at all.
  """
  labels, names = catalogue.labels, catalogue.class_names
  empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
  if len(empty):
    raise InputError(
      f'class {names[empty[0]]!r} has no image left '
      f'({len(catalogue.skipped)} bad images were left out); mend some of its '
      'files or remove its folder'
    )
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  target = per_class(labels, len(names), protocol.per_class)

  def by_protocol(name: str, option: int) -> Split:
    if name == 'balance_then_split':
      return balance_then_split(
        key, labels, num_classes=len(names), option=option, target=target
      )
    return split_then_balance(
      key,
      labels,
      groups,
      num_classes=len(names),
      option=option,
      target=None if name == 'split' else target,
      trainable=trainable,
    )

  held_out = np.zeros(len(labels), bool)
  if protocol.name == 'disjoint_from_study_tests':
    studies = itertools.product(STUDY_PROTOCOLS, OPTIONS)
    held_out = tested(catalogue, (by_protocol(*study) for study in studies))
    trainable = ~held_out if trainable is None else trainable & ~held_out
  split = by_protocol(protocol.name, protocol.option)
  if trainable is not None:
    split = split._replace(train=split.train[trainable[split.train[:, 0]]])
  if held_out.any():
    originals = np.flatnonzero(held_out).astype(np.int32)
    split = split._replace(
      validation=split.validation[~held_out[split.validation[:, 0]]],
      test=np.stack([originals, np.zeros_like(originals)], 1),
    )
  # Without some images a class may have none to train on; the caller says if
  # no class has.
  checked = PARTS if trainable is None else PARTS[1:]
  _check_classes(split, checked, catalogue, groups, protocol)
  return split


def _check_classes(
  split: Split,
  parts: tuple[str, ...],
  catalogue: Catalogue,
  groups: np.ndarray,
  protocol: Protocol,
) -> None:
  """Refuses a split with a part that lacks a class."""
  labels, names = catalogue.labels, catalogue.class_names
  for part in parts:
    sources = getattr(split, part)[:, 0]
    counts = np.bincount(labels[sources], minlength=len(names))
    if counts.all():
      continue
    label = int(np.argmin(counts))
    of_class = groups[labels == label]
    hints = ''
    if protocol.option != 1:
      hints += ', or give config.data.option=1'
    if protocol.grouping != 'none':
      hints += ', or accept leaks with config.data.grouping=none'
    raise InputError(
      f'class {names[label]!r} has no image in the {part} part: its '
      f'{len(of_class)} images in {len(set(of_class))} groups are too few '
      f'to split. Add images{hints}'
    )


def unique(pairs: np.ndarray) -> np.ndarray:
  """The distinct pairs of a part, in order of source and copy."""
  return np.unique(pairs, axis=0)


def part_counts(
  split: Split, catalogue: Catalogue
) -> dict[str, dict[str, int]]:
  """Number of images by part and class, repeated ones counted again."""
  names = catalogue.class_names
  counts = {}
  for part, pairs in split._asdict().items():
    labels = catalogue.labels[pairs[:, 0]]
    by_class = np.bincount(labels, minlength=len(names))
    counts[part] = dict(zip(names, by_class.tolist(), strict=True))
  return counts
