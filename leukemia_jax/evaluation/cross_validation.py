"""Several folds as one result: mean, spread, and all images together."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from leukemia_jax.evaluation import assessment, classifier, predictions
from leukemia_jax.evaluation.assessment import Assessment, IntervalGroups
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.metrics import classification, segmentation
from leukemia_jax.metrics.classification import ClassificationScores
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.workdir.records import (
  Baselines,
  Cost,
  CrossValidation,
  Result,
  Shortcut,
)

_CLASS_SCORES = ('accuracy', 'balanced_accuracy', 'macro_f1')
_MASK_SCORES = ('dice', 'mean_dice')
# Fields that each `MaskScores` has.
_OVERLAP = (
  *('accuracy', 'precision', 'recall', 'iou', 'dice'),
  *('mean_iou', 'mean_dice'),
)


def classes(
  rows: Sequence[Row],
  runs: Sequence[Result],
  over: IntervalGroups,
  benign_class: str,
) -> tuple[ClassificationScores, Assessment, Shortcut | None]:
  """Scores all images of classifiers' folds together.

  Args:
    rows: each image's prediction, from `predictions.join`.
    runs: results of the folds.
    over: the groups of the rows.
    benign_class: see `classification.scores`.

  Returns:
    The scores, their assessment, and what the folds' shortcuts reach, if they
    were compared.
  """
  names = tuple(runs[0].data.classes)
  outcomes = predictions.outcomes(rows, names)._replace(
    temperature=_temperatures(rows, runs)
  )
  number = {name: i for i, name in enumerate(names)}
  confusion = classification.count(
    outcomes.truth, outcomes.predicted, len(names)
  )
  loss_sum = float(outcomes.losses.sum())
  shortcut = None
  if 'shortcut_class' in rows[0]:
    labels = np.array([number[row['shortcut_class']] for row in rows])
    shortcut = classifier.above_shortcut(outcomes, labels, over)
  return (
    classification.scores(confusion, loss_sum, names, benign_class),
    assessment.of_classes(outcomes, over, names, benign_class),
    shortcut,
  )


def _temperatures(
  rows: Sequence[Row], runs: Sequence[Result]
) -> np.ndarray | None:
  """Each row's temperature, that of its fold: shape (n, 1)."""
  fitted = [run.calibration and run.calibration.temperature for run in runs]
  known = [value for value in fitted if value is not None]
  if len(known) < len(fitted):
    return None
  return np.array(known)[[_fold_of(row) for row in rows], None]


def masks(
  rows: Sequence[Row],
  runs: Sequence[Result],
  over: IntervalGroups,
  benign_class: str,
) -> tuple[MaskScores, Assessment, None]:
  """Scores all images of segmenters' folds together; see `classes`."""
  del runs, benign_class
  counted = predictions.pixel_counts(rows)
  assessed = assessment.of_masks(counted, None, over)
  return segmentation.pooled(counted), assessed, None


def _fold_of(row: Row) -> int:
  """The fold whose model predicted a row of `predictions.join`."""
  return int(row['part'].rpartition('_')[2])


def join(
  runs: Sequence[Result],
  scores: ClassificationScores | MaskScores,
  assessed: Assessment,
  shortcut: Shortcut | None,
) -> Result:
  """The result of a cross-validation from those of its folds.

  Args:
    runs: of the folds.
    scores: of all images.
    assessed: likewise.
    shortcut: likewise.

  Returns:
    The result: its hash is that of the folds' hashes, its test scores are of
    all images, its baselines and times are those of the folds, averaged and
    summed up.
  """
  first = runs[0]
  hashes = ''.join(run.parameters_sha256 for run in runs)
  split = first.data.split
  assert split is not None
  is_classes = isinstance(scores, ClassificationScores)
  names = _CLASS_SCORES if is_classes else _MASK_SCORES
  of_folds = {name: [getattr(r.test, name) for r in runs] for name in names}
  return dataclasses.replace(
    first,
    data=dataclasses.replace(
      first.data,
      split=dataclasses.replace(split, fold=None),
      counts=None,
      in_no_part=0,
      patients_by_part=None,
      test_copies_in_training=None,
      held_out_seen_by_weights=_seen(runs),
      spectrum=None,
    ),
    parameters_sha256=hashlib.sha256(hashes.encode()).hexdigest(),
    test=scores,
    train=None,
    validation=None,
    baselines=_baselines([run.baselines for run in runs], shortcut),
    cost=Cost(
      seconds=round(sum(run.cost.seconds for run in runs), 1),
      peak_memory_bytes=max(run.cost.peak_memory_bytes or 0 for run in runs)
      or None,
      train_seconds=round(sum(run.cost.train_seconds or 0 for run in runs), 1),
    ),
    threshold=None,
    epochs=None,
    best_epoch=None,
    cross_validation=CrossValidation(
      folds=len(runs),
      scores=of_folds,
      mean={name: float(np.mean(own)) for name, own in of_folds.items()},
      standard_deviation={
        name: float(np.std(own, ddof=1)) for name, own in of_folds.items()
      },
    ),
    intervals=assessed.intervals,
    ranking=assessed.ranking,
    calibration=assessed.calibration,
    limits=assessed.limits,
  )


def _seen(runs: Sequence[Result]) -> dict[str, int] | None:
  """Held-out images that starting weights have learnt from, of all folds."""
  counts = [run.data.held_out_seen_by_weights for run in runs]
  known = [own for own in counts if own is not None]
  if not known:
    return None
  return {part: sum(own[part] for own in known) for part in known[0]}


def _baselines(
  known: Sequence[Baselines], shortcut: Shortcut | None
) -> Baselines:
  """Those of folds, averaged, and the shortcut of all images."""
  return Baselines(
    _mean([own.colour_3_nearest_neighbours for own in known]),
    _mean([own.colour_balanced_accuracy for own in known]),
    shortcut,
    background=_mean_masks([own.background for own in known]),
    colour_rule=_mean_masks([own.colour_rule for own in known]),
  )


def _mean(values: Sequence[float | None]) -> float | None:
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else None


def _mean_masks(values: Sequence[MaskScores | None]) -> MaskScores | None:
  """Overlap scores averaged over folds, if all have them."""
  known = [value for value in values if value is not None]
  if len(known) < len(values):
    return None
  means: dict[str, Any] = {
    name: float(np.mean([getattr(own, name) for own in known]))
    for name in _OVERLAP
  }
  return MaskScores(sum(own.images for own in known), **means)
