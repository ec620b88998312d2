"""Several folds as one result: mean, spread, and an interval over groups."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from leukemia_jax.metrics import classification, statistics
from leukemia_jax.metrics.classification import ClassificationScores
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.workdir.result import (
  Baselines,
  Cost,
  CrossValidation,
  Result,
  Scores,
)

Row = Mapping[str, str]


class Summed(NamedTuple):
  """What is summed up over images, and what scores such sums have.

  Attributes:
    sums: shape (images, ...).
    scores: maps sums over images, shape (n, ...), to scores by name, (n,) each.
  """

  sums: np.ndarray
  scores: Callable[[np.ndarray], dict[str, np.ndarray]]


def classes(rows: Sequence[Row], class_names: Sequence[str]) -> Summed:
  """What the predictions of a classifier sum up to.

  Args:
    rows: of predictions.csv.
    class_names: of the classes.

  Returns:
    One confusion matrix an image.
  """
  count = len(class_names)
  number = {name: i for i, name in enumerate(class_names)}
  confusions = np.zeros((len(rows), count, count))
  for confusion, row in zip(confusions, rows, strict=True):
    confusion[number[row['true_class']], number[row['predicted_class']]] = 1
  return Summed(confusions, classification.means_over_classes)


def masks(rows: Sequence[Row]) -> Summed:
  """What the predictions of a segmenter sum up to: Dice, and images."""
  sums = np.array([(float(row['dice']), 1.0) for row in rows])
  return Summed(sums, lambda s: {'mean_dice': s[:, 0] / s[:, 1]})


def summarise(
  rng: np.random.Generator,
  summed: Summed,
  *,
  folds: np.ndarray,
  groups: Sequence[str],
  group: str,
) -> CrossValidation:
  """Scores folds, each alone and all together.

  Args:
    rng: draws the samples of the interval.
    summed: of every image, each predicted once.
    folds: int, shape (images,), from 0: the fold that each was tested in.
    groups: of each image, for the interval.
    group: what a group is, in words.

  Returns:
    The record.
  """
  count = int(folds.max()) + 1
  by_fold = np.stack([summed.sums[folds == i].sum(0) for i in range(count)])
  places: dict[str, list[int]] = collections.defaultdict(list)
  for i, name in enumerate(groups):
    places[name].append(i)
  by_group = np.stack([summed.sums[own].sum(0) for own in places.values()])
  # The class that most images of a group are of.
  truth = summed.sums.sum(-1) if summed.sums.ndim > 2 else summed.sums[:, 1:]
  strata = np.array([truth[own].sum(0).argmax() for own in places.values()])
  each = summed.scores(by_fold)
  pooled = summed.scores(summed.sums.sum(0)[None])

  def interval(name: str) -> list[float]:
    return list(
      statistics.group_interval(
        rng, by_group, lambda s: summed.scores(s)[name], strata=strata
      )
    )

  return CrossValidation(
    folds=count,
    groups=len(by_group),
    group=group,
    scores={name: values.tolist() for name, values in each.items()},
    mean={name: float(values.mean()) for name, values in each.items()},
    standard_deviation={
      name: float(values.std(ddof=1)) for name, values in each.items()
    },
    pooled={name: float(values[0]) for name, values in pooled.items()},
    interval_95={name: interval(name) for name in pooled},
  )


def join(
  runs: Sequence[Result],
  record: CrossValidation,
  rows: Sequence[Row],
  benign_class: str,
) -> Result:
  """The result of a cross-validation from those of its folds.

  Args:
    runs: of the folds.
    record: from `summarise`.
    rows: each image's prediction, from `predictions.join`.
    benign_class: see `classification.scores`.

  Returns:
    The result: its hash is that of the folds' hashes, its test scores are of
    all images, its baselines and times are those of the folds, averaged and
    summed up.
  """
  first = runs[0]
  hashes = ''.join(run.parameters_sha256 for run in runs)
  colours = [run.baselines.colour_3_nearest_neighbours for run in runs]
  balanced = [run.baselines.colour_balanced_accuracy for run in runs]
  split = first.data.split
  assert split is not None
  return dataclasses.replace(
    first,
    data=dataclasses.replace(
      first.data,
      split=dataclasses.replace(split, fold=None),
      counts=None,
      patients_by_part=None,
    ),
    parameters_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
    test=_pooled(runs, rows, benign_class),
    train=None,
    validation=None,
    baselines=Baselines(_mean(colours), _mean(balanced)),
    cost=Cost(
      seconds=round(sum(run.cost.seconds for run in runs), 1),
      peak_memory_bytes=max(run.cost.peak_memory_bytes or 0 for run in runs)
      or None,
      train_seconds=round(sum(run.cost.train_seconds or 0 for run in runs), 1),
    ),
    threshold=None,
    epochs=None,
    best_epoch=None,
    cross_validation=record,
  )


def _mean(values: Sequence[float | None]) -> float | None:
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


def _pooled(
  runs: Sequence[Result], rows: Sequence[Row], benign_class: str
) -> Scores:
  """The scores of all images."""
  tests = [run.test for run in runs]
  if isinstance(tests[0], ClassificationScores):
    names = tuple(runs[0].data.classes)
    confusion = classes(rows, names).sums.sum(0)
    losses = sum(float(row['loss']) for row in rows)
    return classification.scores(confusion, losses, names, benign_class)
  # Overlap of pixels isn't known image by image: folds count by their images.
  counts = [test.images for test in tests]
  names_of_means = ('accuracy', 'precision', 'recall', 'iou', 'dice')
  means: dict[str, Any] = {
    name: float(np.dot([getattr(t, name) for t in tests], counts) / sum(counts))
    for name in (*names_of_means, 'mean_iou', 'mean_dice')
  }
  return MaskScores(images=sum(counts), **means)
