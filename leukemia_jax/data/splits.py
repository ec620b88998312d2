"""Training, validation and test parts: pure functions of labels, groups, key.

A part is an int array of shape (n, 2) of (source index, copy number); copy 0
is the original image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.errors import InputError

PARTS = ('train', 'validation', 'test')
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


def generator(key: jax.Array) -> np.random.Generator:
  """A NumPy generator for index work on the host, seeded by a JAX key."""
  return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def held_out_count(count: int, round_up: bool = False) -> int:
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
    if reach[-1] >> wanted & 1:
      break  # later ones would not be chosen
  sums = [s for s in range(1, largest + 1) if reach[-1] >> s & 1]
  total = min(sums, key=lambda s: abs(s - wanted))
  chosen = []
  for i in range(len(reach) - 1, 0, -1):
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
  drawn: tuple[int, ...] = (2, 1),
) -> list[np.ndarray]:
  """Splits images by group; `fixed` holds, and takes, groups' parts.

  `drawn` are the parts that are drawn: test is filled before validation.
  """
  parts: list[list[int]] = [[], [], []]
  members: dict[int, list[int]] = {}
  for i in indices:
    members.setdefault(int(groups[i]), []).append(int(i))
  for group in [g for g in members if g in fixed]:
    parts[fixed[group]] += members.pop(group)
  names = list(members)
  names = [names[i] for i in rng.permutation(len(names))]
  for part in drawn:
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
  rng, pairs = generator(key), []
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
  pairs = np.concatenate([originals(np.arange(len(labels))), copies])
  rng = generator(split_key)
  if option == 2:
    return Split(*_cut(pairs, held_out_count(len(pairs), True), rng))
  cuts = []
  for label in range(num_classes):
    of_class = pairs[labels[pairs[:, 0]] == label]
    cuts.append(_cut(of_class, held_out_count(len(of_class), False), rng))
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
  rng = generator(key)
  fixed: dict[int, int] = {}
  if option == 2:
    held_out = held_out_count(len(labels), True)
    indices = np.arange(len(labels))
    parts = _split_groups(indices, groups, held_out, fixed, rng)
  else:
    by_class = []
    for label in range(num_classes):
      of_class = np.flatnonzero(labels == label)
      held_out = held_out_count(len(of_class), False)
      by_class.append(_split_groups(of_class, groups, held_out, fixed, rng))
    parts = [
      rng.permutation(np.concatenate(part))
      for part in zip(*by_class, strict=True)
    ]
  return balanced(
    parts,
    labels,
    rng,
    num_classes=num_classes,
    target=target,
    trainable=trainable,
  )


def balanced(
  parts: Sequence[np.ndarray],
  labels: np.ndarray,
  rng: np.random.Generator,
  *,
  num_classes: int,
  target: int | None,
  trainable: np.ndarray | None,
) -> Split:
  """A split from parts of originals, the training part filled up by repeating.

  Args:
    parts: int arrays, the indices of training, validation and test images.
    labels: int array, the originals' labels.
    rng: draws what is repeated, and the order.
    num_classes: number of classes.
    target: see `split_then_balance`.
    trainable: see `split_then_balance`.

  Returns:
    The split.
  """
  parts = list(parts)
  if trainable is not None:
    parts[0] = parts[0][trainable[parts[0]]]
  if target is not None:
    train = parts[0]
    counts = np.bincount(labels[train], minlength=num_classes)
    fill = max(target - 2 * held_out_count(target, False), int(counts.max()))
    repeated = [train]
    for label in range(num_classes):
      of_class = rng.permutation(train[labels[train] == label])
      if len(of_class):
        repeated.append(np.resize(of_class, fill - len(of_class)))
    parts[0] = rng.permutation(np.concatenate(repeated))
  return Split(*map(originals, parts))


def hold_out(
  key: jax.Array,
  labels: np.ndarray,
  groups: np.ndarray,
  *,
  test: np.ndarray,
  validation: np.ndarray | None,
  usable: np.ndarray,
  num_classes: int,
  target: int | None,
  trainable: np.ndarray | None = None,
) -> Split:
  """A split whose test part is given.

  Args:
    key: PRNG key.
    labels: int array, the originals' labels.
    groups: int array, the originals' groups: what shares one with a test image
      is in no other part, and what shares one with validation is not trained
      on.
    test: bool array, the test images.
    validation: bool array; None to draw it by group, class by class, from what
      is left: as many as 15 % of the class.
    usable: bool array, the images that may be in the other parts.
    num_classes: number of classes.
    target: see `split_then_balance`.
    trainable: see `split_then_balance`.

  Returns:
    The split.
  """
  rng = generator(key)
  usable = usable & ~np.isin(groups, groups[test])
  if validation is None:
    fixed: dict[int, int] = {}
    drawn = np.zeros(len(labels), bool)
    for label in range(num_classes):
      of_class = labels == label
      members = np.flatnonzero(of_class & usable)
      if len(members):
        wanted = held_out_count(int(of_class.sum()))
        parts = _split_groups(members, groups, wanted, fixed, rng, (1,))
        drawn[parts[1]] = True
    validation = drawn
  validation = validation & usable
  train = usable & ~np.isin(groups, groups[validation])
  return balanced(
    [rng.permutation(np.flatnonzero(p)) for p in (train, validation, test)],
    labels,
    rng,
    num_classes=num_classes,
    target=target,
    trainable=trainable,
  )


def originals(indices: np.ndarray) -> np.ndarray:
  """Pairs of originals, from their indices: int32 (n, 2), copy number 0."""
  return np.stack([indices, np.zeros_like(indices)], 1).astype(np.int32)


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
