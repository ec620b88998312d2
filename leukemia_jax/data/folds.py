"""Folds of a cross-validation: which images are tested together."""

import jax
import numpy as np
from scipy import ndimage

from leukemia_jax.data import grouping
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.names import natural_key
from leukemia_jax.data.splits import generator, held_out_count
from leukemia_jax.errors import InputError


def stratified(
  rng: np.random.Generator, labels: np.ndarray, groups: np.ndarray, count: int
) -> np.ndarray:
  """Folds by group, each with its share of every class.

  Groups go one by one, those of the most uneven classes first, to the fold
  that evens out the classes' shares best, as scikit-learn's
  `StratifiedGroupKFold` does it.

  Args:
    rng: shuffles the groups.
    labels: int array, shape (n,).
    groups: int array, shape (n,); none is torn apart.
    count: number of folds.

  Returns:
    int32 array, shape (n,), from 0.
  """
  _, group = np.unique(groups, return_inverse=True)
  size = int(labels.max()) + 1
  counts = np.zeros((int(group.max()) + 1, size))
  np.add.at(counts, (group, labels), 1)
  shuffled = rng.permutation(len(counts))
  uneven_first = shuffled[
    np.argsort(-counts[shuffled].std(axis=1), kind='stable')
  ]
  total = counts.sum(0)
  present = total > 0
  filled = np.zeros((count, size))
  fold_of_group = np.empty(len(counts), np.int32)
  for index in uneven_first:
    # With this group in each fold in turn: shape (tried, fold, class).
    tried = filled + np.eye(count)[:, :, None] * counts[index]
    shares = tried[:, :, present] / total[present]
    uneven = shares.std(axis=1).mean(axis=1)
    images = tried.sum(2).diagonal()
    best = np.isclose(uneven, uneven.min())
    fold_of_group[index] = min(np.flatnonzero(best), key=lambda f: images[f])
    filled[fold_of_group[index]] += counts[index]
  return fold_of_group[group]


def contiguous(catalogue: Catalogue, count: int) -> np.ndarray:
  """Folds that are runs of files, class by class.

  Args:
    catalogue: of the set.
    count: number of folds.

  Returns:
    int32 array, shape (n,), from 0.

  Raises:
    InputError: a class has fewer images than folds.
  """
  folds = np.empty(len(catalogue.ids), np.int32)
  for name, members in zip(
    catalogue.class_names, grouping.in_file_order(catalogue), strict=True
  ):
    if len(members) < count:
      raise InputError(
        f'config.data.folds={count}: class {name!r} has {len(members)} images; '
        'give fewer folds'
      )
    folds[members] = np.arange(len(members)) * count // len(members)
  return folds


def with_embargo(
  key: jax.Array, catalogue: Catalogue, test: np.ndarray, embargo: int
) -> tuple[np.ndarray, np.ndarray]:
  """A validation run of files, and what a test run of files leaves usable.

  Args:
    key: PRNG key: says where the validation run lies.
    catalogue: of the set.
    test: bool array, shape (n,): a run of files of each class.
    embargo: files on each side of a run that are in no part, by class.

  Returns:
    bool arrays, shape (n,): validation; and what is in it or may be trained on.

  Raises:
    InputError: nothing is left to train on in a class.
  """
  rng = generator(key)
  validation = np.zeros(len(test), bool)
  usable = np.zeros(len(test), bool)
  for name, members in zip(
    catalogue.class_names, grouping.in_file_order(catalogue), strict=True
  ):
    left = ~_near(test[members], embargo)
    places = np.flatnonzero(left)
    wanted = held_out_count(len(members))
    run = np.zeros(len(members), bool)
    if len(places) > wanted:
      first = int(rng.integers(len(places) - wanted + 1))
      run[places[first : first + wanted]] = True
    train = left & ~_near(run, embargo)
    if not train.any() or not run.any():
      raise InputError(
        f'config.data.embargo={embargo} leaves class {name!r} nothing to train '
        f'on: it has {len(members)} files. Give a smaller embargo'
      )
    validation[members[run]] = True
    usable[members[run | train]] = True
  return validation, usable


def apart(catalogue: Catalogue, test: np.ndarray, distance: int) -> np.ndarray:
  """What lies further from a test part than some files, class by class.

  Args:
    catalogue: of the set.
    test: bool array, shape (n,).
    distance: in files; 0 for what is not in the test part.

  Returns:
    bool array, shape (n,).
  """
  far = np.empty(len(test), bool)
  for members in grouping.in_file_order(catalogue):
    far[members] = ~_near(test[members], distance)
  return far


def _near(chosen: np.ndarray, distance: int) -> np.ndarray:
  """What lies at most so many places from something chosen: bool array."""
  return ndimage.binary_dilation(chosen, np.ones(2 * distance + 1, bool))


def of_source(catalogue: Catalogue, count: int) -> np.ndarray:
  """The source's own folds.

  Args:
    catalogue: of the set.
    count: number of folds that it must have.

  Returns:
    int32 array, shape (n,), from 0, in natural order of their names.

  Raises:
    InputError: it has another number.
  """
  names = sorted(set(catalogue.parts), key=natural_key)
  if '' in names or len(names) != count:
    listed = ', '.join(name or 'none' for name in names)
    raise InputError(
      f"config.data.split=source with config.data.folds={count}: the source's "
      f'folds are {listed}; give their number, or config.data.split=random'
    )
  return np.array([names.index(part) for part in catalogue.parts], np.int32)
