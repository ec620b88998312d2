"""How a set is split: at random, by the source's own parts, or into folds.

Two loading options and these protocols are known:

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

The second and third of them also take the source's own parts, and the folds of
a cross-validation.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax.data import folds, grouping, part_contents, splits
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.splits import PARTS, Split
from leukemia_jax.errors import InputError, TooFewGroupsError

OPTIONS = (1, 2)
STUDY_PROTOCOLS = ('split_then_balance', 'balance_then_split')
PROTOCOLS = (*STUDY_PROTOCOLS, 'split', 'disjoint_from_study_tests')
SPLITS = ('auto', 'source', 'random')
# Draws of a split before it is said that there is none.
_ATTEMPTS = 100
# Those that keep groups together, and take parts or folds that are fixed.
BY_GROUPS = ('split_then_balance', 'split')


class Protocol(NamedTuple):
  """How a set is split; see `config.data` for the values.

  Attributes:
    name: one of `PROTOCOLS`.
    option: 1 splits by class, 2 globally.
    grouping: see `grouping.group_ids`.
    block: see `grouping.group_ids`.
    per_class: images that every class is filled up to; 0 chooses.
    split: one of `SPLITS`.
    folds: number of folds of a cross-validation; 1 for a single split.
    fold: which one is the test part, from 0; -1 for each in turn.
    embargo: files on each side of a contiguous fold that are not trained on.
  """

  name: str
  option: int
  grouping: str
  block: int
  per_class: int
  split: str = 'auto'
  folds: int = 1
  fold: int = -1
  embargo: int = 0


def problems(protocol: Protocol) -> Iterator[str]:
  """What values of a protocol don't go together, with the key to change."""
  by_parts = ' or '.join(BY_GROUPS)
  if protocol.fold >= protocol.folds:
    yield (
      f'config.data.fold={protocol.fold} must be below '
      f'config.data.folds={protocol.folds}'
    )
  if protocol.folds > 1 and protocol.name not in BY_GROUPS:
    yield (
      f'config.data.folds={protocol.folds} needs config.data.protocol='
      f'{by_parts}, not {protocol.name}'
    )
  if protocol.folds > 1 and protocol.option != 1:
    yield (
      f'config.data.folds={protocol.folds} needs config.data.option=1: folds '
      'are stratified by class'
    )
  if protocol.grouping == 'contiguous' and protocol.folds < 2:
    yield (
      'config.data.grouping=contiguous needs config.data.folds of 2 or more: '
      'each fold is a run of files'
    )
  if protocol.grouping == 'contiguous' and protocol.split == 'source':
    yield (
      'config.data.grouping=contiguous cuts folds of its own: '
      'config.data.split=source must be random'
    )
  if protocol.embargo and protocol.grouping != 'contiguous':
    yield (
      f'config.data.embargo={protocol.embargo} needs '
      f'config.data.grouping=contiguous, not {protocol.grouping}'
    )
  if protocol.split == 'source' and protocol.name not in BY_GROUPS:
    yield (
      f'config.data.split=source needs config.data.protocol={by_parts}, not '
      f'{protocol.name}, which splits anew'
    )


def takes_source_parts(catalogue: Catalogue, protocol: Protocol) -> bool:
  """Whether the source's own parts are the split.

  Args:
    catalogue: of the set.
    protocol: how it is split.

  Returns:
    Whether they are.

  Raises:
    InputError: they are asked for, or are there, and are not whole.
  """
  if protocol.split == 'random' or protocol.folds > 1:
    return False
  names = set(catalogue.parts) - {''}
  others = sorted(names - set(PARTS))
  if parts := [part for part in PARTS if part in names]:
    if others:
      raise InputError(
        f'the source has the parts {", ".join(parts)} and besides '
        f'{", ".join(others)}: split anew with config.data.split=random, or '
        'leave these out'
      )
  whole = {'train', 'test'} <= set(parts)
  if protocol.split == 'auto' and (
    not parts or (whole and protocol.name not in BY_GROUPS)
  ):
    return False
  if whole:
    return True
  counts = ', '.join(f'{p} {catalogue.parts.count(p)}' for p in parts)
  lacking = [p for p in ('train', 'test') if p not in parts]
  raise InputError(
    (
      f'the source is split into {counts} and lacks {" and ".join(lacking)}'
      if parts
      else 'config.data.split=source: the source has no parts train and test'
    )
    + '. Join all and split anew with config.data.split=random, or add what is '
    'missing'
    + (
      f'; if {", ".join(parts)} are classes, '
      "config.data.label='(?:^|/)([^/]+)/' takes them as such"
      if parts
      else ''
    )
  )


def tested(catalogue: Catalogue, study_splits: Iterable[Split]) -> np.ndarray:
  """Which images a test part holds, or copies or twins of them: bool (n,)."""
  sources = np.concatenate([split.test[:, 0] for split in study_splits])
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
    protocol: how; of several folds `protocol.fold` is the test part.
    trainable: bool array, shape (n,), images that may be in the training part;
      None for all.

  Returns:
    The split.

  Raises:
    InputError: a class has too few images or groups to be in every part, or
      none at all; the source's parts can't be used; a patient is in two parts.
  """
  labels, names = catalogue.labels, catalogue.class_names
  empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
  if len(empty):
    raise InputError(
      f'class {names[empty[0]]!r} has no image left: the others could not be '
      'read, or have no mask where masks are learnt. Mend some of its files, '
      'add masks, or leave the class out'
    )
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  takes_source = takes_source_parts(catalogue, protocol)
  draw = _drawing(key, catalogue, groups, protocol, trainable, takes_source)
  checked = list(PARTS[:1] if takes_source else PARTS)
  # Without some images a class may have none to train on; the caller says if
  # no class has.
  if trainable is not None or protocol.name == 'disjoint_from_study_tests':
    checked = checked[1:]
  for attempt in range(_ATTEMPTS):
    # One draw may leave a part without a class where another does not.
    split = draw(jax.random.fold_in(key, attempt) if attempt else key)
    if not part_contents.lacking(split, checked, catalogue):
      break
  _check_classes(split, checked, catalogue, groups, protocol)
  if not len(split.validation):
    raise TooFewGroupsError(
      'no image is left for the validation part: the test part leaves too few '
      'groups. Split anew with config.data.split=random, or accept leaks with '
      'config.data.grouping=none'
    )
  if protocol.grouping != 'none' and protocol.name in BY_GROUPS:
    part_contents.check_patients(split, catalogue)
  return split


def _drawing(
  key: jax.Array,
  catalogue: Catalogue,
  groups: np.ndarray,
  protocol: Protocol,
  trainable: np.ndarray | None,
  takes_source: bool,
) -> Callable[[jax.Array], Split]:
  """Maps the key of one draw to a split; `key` is that of all draws."""
  labels, num_classes = catalogue.labels, len(catalogue.class_names)
  # These are the same for all draws, so for all folds and for the study.
  if protocol.folds > 1:
    fold_key, _ = jax.random.split(key)
    is_tested = assign_folds(fold_key, catalogue, protocol) == protocol.fold
  elif protocol.name == 'disjoint_from_study_tests':
    is_tested = _study_tests(key, catalogue, protocol)
  else:
    is_tested = np.zeros(len(labels), bool)

  def draw(key: jax.Array) -> Split:
    if takes_source:
      held_out = _source_test(key, catalogue, protocol)
    elif protocol.folds > 1:
      held_out = _fold_test(key, catalogue, protocol, is_tested)
    else:
      return _drawn_split(
        key, catalogue, groups, protocol, trainable, is_tested
      )
    return splits.hold_out(
      held_out.key,
      labels,
      groups,
      test=held_out.test,
      validation=held_out.validation,
      usable=held_out.usable,
      num_classes=num_classes,
      target=_target(catalogue, protocol),
      trainable=trainable,
    )

  return draw


def _target(catalogue: Catalogue, protocol: Protocol) -> int | None:
  """Images that a class of the whole set is filled up to; None for none."""
  if protocol.name == 'split':
    return None
  return splits.per_class(
    catalogue.labels, len(catalogue.class_names), protocol.per_class
  )


class _HeldOut(NamedTuple):
  """A test part that is given; see `splits.hold_out`."""

  key: jax.Array
  test: np.ndarray
  validation: np.ndarray | None
  usable: np.ndarray


def source_split(catalogue: Catalogue) -> Split:
  """The source's own parts as they lie on disk, whatever they leak.

  Args:
    catalogue: of the set; see `takes_source_parts`.

  Returns:
    The split; what is in no part is trained on.
  """
  parts = np.array([part or 'train' for part in catalogue.parts])
  return Split(
    *(splits.originals(np.flatnonzero(parts == part)) for part in PARTS)
  )


def _source_test(
  key: jax.Array, catalogue: Catalogue, protocol: Protocol
) -> _HeldOut:
  """The source's own test part; what is in no part trains."""
  parts = np.array(catalogue.parts)
  if protocol.grouping != 'none':
    part_contents.check_source_patients(parts, catalogue)
  test, validation = parts == 'test', parts == 'validation'
  return _HeldOut(key, test, validation if validation.any() else None, ~test)


def _fold_test(
  key: jax.Array, catalogue: Catalogue, protocol: Protocol, test: np.ndarray
) -> _HeldOut:
  """One fold is the test part, validation is drawn from the others."""
  _, split_key = jax.random.split(key)
  # One draw for each fold.
  split_key = jax.random.fold_in(split_key, protocol.fold)
  validation, usable = None, ~test
  if protocol.grouping == 'contiguous':
    validation, usable = folds.with_embargo(
      split_key, catalogue, test, protocol.embargo
    )
  return _HeldOut(split_key, test, validation, usable)


def assign_folds(
  key: jax.Array, catalogue: Catalogue, protocol: Protocol
) -> np.ndarray:
  """The fold of each image.

  Args:
    key: PRNG key.
    catalogue: of the set.
    protocol: with several folds.

  Returns:
    int32 array, shape (n,), from 0.

  Raises:
    InputError: a class has too few groups, or the source has other folds.
  """
  if protocol.split == 'source':
    return folds.of_source(catalogue, protocol.folds)
  if protocol.grouping == 'contiguous':
    return folds.contiguous(catalogue, protocol.folds)
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  for label, name in enumerate(catalogue.class_names):
    count = len(set(groups[catalogue.labels == label].tolist()))
    if count < protocol.folds:
      raise TooFewGroupsError(
        f'config.data.folds={protocol.folds}: class {name!r} has {count} '
        'groups, and a fold needs one: give fewer folds'
      )
  labels = catalogue.labels
  pairs = len(catalogue.class_names) * protocol.folds
  for attempt in range(_ATTEMPTS):
    # One draw may leave a fold without a class where another does not.
    rng = splits.generator(jax.random.fold_in(key, attempt) if attempt else key)
    assigned = folds.stratified(rng, labels, groups, protocol.folds)
    if len(np.unique(labels * protocol.folds + assigned)) == pairs:
      break
  return assigned


def _study_tests(
  key: jax.Array, catalogue: Catalogue, protocol: Protocol
) -> np.ndarray:
  """What the study's splits by this key test on, or copies of it: bool (n,)."""
  study_splits = []
  for name, option in itertools.product(STUDY_PROTOCOLS, OPTIONS):
    # What can't be split that way, no study tests on.
    with contextlib.suppress(InputError):
      own = protocol._replace(name=name, option=option)
      study_splits.append(make(key, catalogue, own))
  if not study_splits:
    return np.zeros(len(catalogue.labels), bool)
  return tested(catalogue, study_splits)


def _drawn_split(
  key: jax.Array,
  catalogue: Catalogue,
  groups: np.ndarray,
  protocol: Protocol,
  trainable: np.ndarray | None,
  held_out: np.ndarray,
) -> Split:
  """Parts that are drawn by the key; `held_out` is the test part, if any."""
  labels, count = catalogue.labels, len(catalogue.class_names)
  if held_out.any():
    trainable = ~held_out if trainable is None else trainable & ~held_out
  target = _target(catalogue, protocol)
  if protocol.name == 'balance_then_split':
    assert target is not None
    split = splits.balance_then_split(
      key, labels, num_classes=count, option=protocol.option, target=target
    )
  else:
    split = splits.split_then_balance(
      key,
      labels,
      groups,
      num_classes=count,
      option=protocol.option,
      target=target,
      trainable=trainable,
    )
  if trainable is not None:
    split = split._replace(train=split.train[trainable[split.train[:, 0]]])
  if held_out.any():
    split = split._replace(
      validation=split.validation[~held_out[split.validation[:, 0]]],
      test=splits.originals(np.flatnonzero(held_out)),
    )
  return split


def _check_classes(
  split: Split,
  parts: list[str],
  catalogue: Catalogue,
  groups: np.ndarray,
  protocol: Protocol,
) -> None:
  """Refuses a split with a part that lacks a class."""
  for part, label in part_contents.lacking(split, parts, catalogue)[:1]:
    of_class = groups[catalogue.labels == label]
    # Images that are there may be in too few groups, whatever their number.
    kind = InputError if len(of_class) < len(PARTS) else TooFewGroupsError
    hints = ''
    if protocol.option != 1:
      hints += ', or give config.data.option=1'
    if 1 < protocol.folds < len(set(of_class)):
      hints += f', or more folds than config.data.folds={protocol.folds}'
    if protocol.grouping == 'blocks':
      hints += f', or give a lower config.data.block than {protocol.block}'
    elif protocol.grouping != 'none' and len(set(of_class)) < len(of_class):
      hints += ', or accept leaks with config.data.grouping=none'
    lacking = 'patients' if catalogue.num_patients else 'images'
    raise kind(
      f'class {catalogue.class_names[label]!r} has no image in the {part} '
      f'part: its {len(of_class)} images in {len(set(of_class))} groups are '
      f'too few to split. Add {lacking}{hints}'
    )
