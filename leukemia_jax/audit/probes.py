"""How well simple properties alone tell the class: shortcuts of a set.

Each property is given to a random forest and to 3-nearest-neighbours, under
the same folds and groups as a network would be; whichever is better on an
inner validation part is scored.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from leukemia_jax import progress
from leukemia_jax.audit import permutation
from leukemia_jax.data import folds, grouping, protocols
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.protocols import Protocol
from leukemia_jax.errors import InputError, TooFewGroupsError
from leukemia_jax.metrics import bootstrap, classification, statistics

_TREES, _LEAF = 64, 2
_FEW_IMAGES = 500
_NEIGHBOURS = 3
_INNER_FOLDS = 4
_COMPONENTS = 6  # of a property, where all are joined
_FOLDS = (5, 3, 2)
# Distances in file numbers of the curve, and most images that it tests.
GAPS = (0, 1, 2, 5, 10, 20, 37, 50, 100, 150)
_CURVE_IMAGES = 4000


class Folds(NamedTuple):
  """How probes are tested.

  Attributes:
    train: int arrays, indices of each fold's training side.
    test: int arrays, indices of each fold's test part.
    groups: int, shape (n,): what an inner validation part keeps together.
    interval_groups: int, shape (n,): what intervals are over.
    group: what such a group is, in words.
  """

  train: list[np.ndarray]
  test: list[np.ndarray]
  groups: np.ndarray
  interval_groups: np.ndarray
  group: str


def make_folds(
  key: jax.Array, catalogue: Catalogue, protocol: Protocol
) -> Folds:
  """The folds that a run's groups allow.

  Args:
    key: PRNG key of the split.
    catalogue: of the set.
    protocol: of the run; its own folds if it has several, else five by its
      grouping, or three or two where a class has fewer groups.

  Returns:
    The folds.

  Raises:
    InputError: a class is in a single group, or the run's folds can't be made.
  """
  tried = [protocol]
  if protocol.folds == 1:
    tried = [
      protocol._replace(name='split', option=1, split='random', folds=count)
      for count in _FOLDS
    ]
  fold_key, _ = jax.random.split(key)
  for folded in tried:
    try:
      fold_of = protocols.assign_folds(fold_key, catalogue, folded)
      break
    except TooFewGroupsError as error:
      if folded is protocol:
        raise
      if folded is tried[-1]:
        raise InputError(_in_one_group(catalogue, folded)) from error
  groups = grouping.group_ids(catalogue, folded.grouping, folded.block)
  train, test = [], []
  for fold in range(folded.folds):
    tested = fold_of == fold
    usable = folds.apart(catalogue, tested, folded.embargo)
    usable &= ~np.isin(groups, groups[tested])
    if not usable.any():
      raise InputError(
        f'fold {fold} leaves nothing to learn from: groups reach over all '
        f'folds, or config.data.embargo={folded.embargo} does'
      )
    train.append(np.flatnonzero(usable))
    test.append(np.flatnonzero(tested))
  if folded.grouping == 'contiguous':
    # Neighbours on both sides of the inner part would choose what remembers.
    groups = grouping.join(groups, grouping.runs(catalogue, folded.block))
  return Folds(
    train,
    test,
    groups,
    *grouping.for_intervals(catalogue, folded.grouping, folded.block),
  )


def _in_one_group(catalogue: Catalogue, protocol: Protocol) -> str:
  """Why a set can't be cut into two folds."""
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  lonely = [
    repr(name)
    for label, name in enumerate(catalogue.class_names)
    if len(set(groups[catalogue.labels == label])) < 2
  ]
  return (
    'each class must be in two groups or more (patients, where they are '
    f'known), to learn it from one and test it on another: {", ".join(lonely)}'
  )


@dataclasses.dataclass(frozen=True)
class ProbeScore:
  """What a property reaches.

  Attributes:
    balanced_accuracy: over all folds.
    interval: its 95 % interval over groups; None where a class has one group.
    p_value: how often permuted classes score as well, see `permutation`;
      Holm's method corrects it for the number of probes.
    forests: number of folds in which the random forest was the better model.
  """

  balanced_accuracy: float
  interval: list[float] | None
  p_value: float
  forests: int


def models(seed: int, images: int) -> dict[str, Any]:
  """The kinds of model that a probe may be.

  Args:
    seed: of the forest.
    images: number of images of the training side.

  Returns:
    scikit-learn's models by kind, not fitted; too few images have no
    neighbours.
  """
  from sklearn.ensemble import RandomForestClassifier
  from sklearn.neighbors import KNeighborsClassifier
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  kinds = {
    'forest': RandomForestClassifier(
      _TREES,
      min_samples_leaf=_LEAF,
      class_weight='balanced',
      # Its own threads, where they pay: scikit-learn's warnings don't stand
      # several of ours.
      n_jobs=-1 if images > _FEW_IMAGES else 1,
      random_state=seed,
    ),
    'neighbours': make_pipeline(
      StandardScaler(), KNeighborsClassifier(_NEIGHBOURS)
    ),
  }
  if images < _NEIGHBOURS:
    del kinds['neighbours']
  return kinds


def _inner_parts(
  labels: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
  """A training and a validation side by group; None if groups are too few."""
  from sklearn.model_selection import StratifiedGroupKFold

  fewest = min(
    len(set(groups[labels == label])) for label in set(labels.tolist())
  )
  if fewest < 2:
    return None
  count = min(_INNER_FOLDS, fewest)
  folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
  return next(folds.split(labels, labels, groups))


def _predict_fold(
  features: np.ndarray,
  labels: np.ndarray,
  train: np.ndarray,
  inner: tuple[np.ndarray, np.ndarray] | None,
  test: np.ndarray,
  seed: int,
) -> tuple[np.ndarray, bool]:
  """The labels of a test part, and whether a forest predicted them."""
  from sklearn.metrics import balanced_accuracy_score

  kinds = models(seed, len(train))
  scores = dict.fromkeys(kinds, 0.0)
  if inner is not None and len(inner[0]) >= _NEIGHBOURS:
    fit, held_out = train[inner[0]], train[inner[1]]
    for name, model in kinds.items():
      model.fit(features[fit], labels[fit])
      predicted = model.predict(features[held_out])
      scores[name] = balanced_accuracy_score(labels[held_out], predicted)
  best = max(scores, key=lambda name: scores[name])
  model = kinds[best].fit(features[train], labels[train])
  return model.predict(features[test]), best == 'forest'


def join(properties: Sequence[np.ndarray]) -> np.ndarray:
  """Properties as one, none of which drowns the others.

  Args:
    properties: float arrays, shape (n, k).

  Returns:
    float, shape (n, m): of each its first principal components.
  """
  from sklearn.decomposition import PCA
  from sklearn.preprocessing import StandardScaler

  joined = [np.zeros((len(properties[0]), 0))]
  for values in properties:
    varied = values[:, values.std(0) > 0]
    if varied.size:
      scaled = StandardScaler().fit_transform(varied)
      count = min(_COMPONENTS, *scaled.shape)
      joined.append(PCA(count, svd_solver='full').fit_transform(scaled))
  return np.concatenate(joined, 1)


def score_probes(
  properties: Mapping[str, np.ndarray],
  labels: np.ndarray,
  num_classes: int,
  tests: Folds,
  *,
  seed: int,
) -> dict[str, ProbeScore]:
  """Scores every property, alone.

  Args:
    properties: float arrays, shape (n, k), by name.
    labels: int, shape (n,).
    num_classes: number of classes.
    tests: how they are tested.
    seed: of the models and of the intervals.

  Returns:
    The scores by name, the best first.
  """
  inner = [
    _inner_parts(labels[train], tests.groups[train], seed)
    for train in tests.train
  ]
  jobs = [(name, i) for name in properties for i in range(len(tests.test))]

  def run(job: tuple[str, int]) -> tuple[np.ndarray, bool]:
    name, fold = job
    return _predict_fold(
      *(properties[name], labels, tests.train[fold], inner[fold]),
      *(tests.test[fold], seed),
    )

  done = map(run, progress.track(jobs, 'Probing shortcuts', len(jobs)))
  outcomes = dict(zip(jobs, done, strict=True))
  tested = np.concatenate(tests.test)
  predicted = [
    np.concatenate([outcomes[name, i][0] for i in range(len(tests.test))])
    for name in properties
  ]
  over_groups = _over_groups(
    labels[tested],
    np.stack(predicted),
    tests.interval_groups[tested],
    num_classes,
    seed,
  )
  corrected = statistics.holm([p_value for *_, p_value in over_groups])
  scores = {
    name: ProbeScore(
      score,
      interval,
      p_value,
      sum(outcomes[name, i][1] for i in range(len(tests.test))),
    )
    for name, (score, interval, _), p_value in zip(
      properties, over_groups, corrected, strict=True
    )
  }
  best_first = sorted(scores, key=lambda name: -scores[name].balanced_accuracy)
  return {name: scores[name] for name in best_first}


def can_tell(
  labels: np.ndarray, tests: Folds, count: int, level: float
) -> bool:
  """Whether a property that tells every class would be told from chance.

  Args:
    labels: int, shape (n,).
    tests: how properties are tested.
    count: number of properties, whose p-values are corrected for each other.
    level: of p-values below which one is above chance.

  Returns:
    False where there are too few groups.
  """
  tested = np.concatenate(tests.test)
  grouped = bootstrap.make_groups(tests.interval_groups[tested], labels[tested])
  return count * permutation.smallest(labels[tested], grouped) < level


def _over_groups(
  truth: np.ndarray,
  predicted: np.ndarray,
  groups: np.ndarray,
  num_classes: int,
  seed: int,
) -> list[tuple[float, list[float] | None, float]]:
  """Balanced accuracy, its interval, and how often chance would reach it.

  Args:
    truth: int, shape (n,).
    predicted: int, shape (classifiers, n).
    groups: int, shape (n,).
    num_classes: number of classes.
    seed: draws the groups, the same for every classifier.

  Returns:
    One entry a classifier.
  """
  grouped = bootstrap.make_groups(groups, truth)
  classifiers = len(predicted)
  # Shape (groups, classifiers, classes, classes).
  counts = np.stack(
    [grouped.confusions(truth, own, num_classes) for own in predicted], 1
  )
  present = counts.sum((0, 1, 3)) > 0

  def score(sums: np.ndarray, required: np.ndarray | None = None) -> np.ndarray:
    flat = sums.reshape(-1, num_classes, num_classes)
    scored = classification.of_confusions(flat, required=required)
    return scored['balanced_accuracy'].reshape(sums.shape[:-2])

  scores = score(counts.sum(0), present)
  spread = bootstrap.spreads(
    np.random.default_rng(seed),
    grouped,
    lambda times: {'all': score(np.tensordot(times, counts, 1), present)},
    width=classifiers * num_classes**2,
  )['all']
  ends = bootstrap.interval(scores, spread, grouped)
  p_values = permutation.p_values(
    np.random.default_rng(seed),
    truth,
    predicted,
    grouped,
    counts,
    score,
  )
  known = np.isfinite(ends).all(0)
  return [
    (
      float(scores[i]),
      ends[:, i].tolist() if known[i] else None,
      float(p_values[i]),
    )
    for i in range(classifiers)
  ]


class DistancePoint(NamedTuple):
  """Accuracy of a probe whose neighbours are so many files away or more."""

  gap: int
  balanced_accuracy: float
  interval: list[float] | None


def distance_curve(
  features: np.ndarray,
  labels: np.ndarray,
  in_file_order: Sequence[np.ndarray],
  interval_groups: np.ndarray,
  *,
  seed: int,
) -> list[DistancePoint]:
  """Nearest neighbours that must lie some file numbers away.

  Files of one patient or slide lie side by side. Where accuracy falls with the
  distance, part of it was recognising them again. Of every class the same share
  of files is left out, around the same relative place, so that none gets rarer.

  Args:
    features: float, shape (n, k).
    labels: int, shape (n,).
    in_file_order: indices of each class's images, by their file numbers.
    interval_groups: int, shape (n,): what intervals are over.
    seed: of the intervals.

  Returns:
    A point for each gap that leaves half of the smallest class.
  """
  deviations = features.std(0)
  values = (features - features.mean(0)) / np.where(deviations, deviations, 1)
  columns = np.concatenate(in_file_order)
  sizes = [len(members) for members in in_file_order]
  edges = np.concatenate([[0], np.cumsum(sizes)])
  gaps = [gap for gap in GAPS if 4 * gap <= min(sizes)]
  step = -(-len(labels) // _CURVE_IMAGES)
  tested = np.concatenate([members[::step] for members in in_file_order])
  predicted = np.full((len(gaps), len(labels)), -1)
  by_column = values[columns]
  norms = (by_column**2).sum(1)
  for members in in_file_order:
    for place in range(0, len(members), step):
      index = members[place]
      distances = norms - 2 * by_column @ values[index]
      for i, gap in enumerate(gaps):
        for label, size in enumerate(sizes):
          # The same share of every class around the same relative place.
          share = size / len(members)
          first = max(0, round((place - gap) * share))
          last = min(size, max(first + 1, round((place + gap + 1) * share)))
          left_out = slice(edges[label] + first, edges[label] + last)
          distances[left_out] = np.inf
        nearest = columns[np.argpartition(distances, _NEIGHBOURS)[:_NEIGHBOURS]]
        votes = np.bincount(labels[nearest], minlength=len(sizes))
        predicted[i, index] = votes.argmax()
  over_groups = _over_groups(
    labels[tested],
    predicted[:, tested],
    interval_groups[tested],
    len(sizes),
    seed,
  )
  return [
    DistancePoint(gap, score, interval)
    for gap, (score, interval, _) in zip(gaps, over_groups, strict=True)
  ]
