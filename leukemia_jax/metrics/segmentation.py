"""Scores of masks: overlap, borders, cells; on the host.

One rule for what is not there: two empty masks agree perfectly. Where one of
two is empty their overlap is 0; precision is 1 where nothing is predicted, and
recall where there is nothing. A distance is that of the pairs in which both
masks have cells.
"""

# `MaskScores` holds its own kind.
from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from leukemia_jax.metrics.objects import match_cells, separate_cells

# Thresholds that a model's probabilities are tried at.
THRESHOLDS = np.arange(1, 20) / 20
# A border pixel matches if one of the other mask is this near, px.
BORDER_TOLERANCE = 2.0
# The study's batches for its soft Dice, and the 1 it adds above and below.
_STUDY_BATCH, _STUDY_SMOOTHING = 10, 1.0


def counts(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Counts pixels by truth and prediction.

  Args:
    truth: bool, shape (..., height, width).
    predicted: bool, of the same shape.

  Returns:
    int64, shape (..., 4): true positives, false positives, false negatives and
    true negatives (TP, FP, FN, TN); cells are positive.
  """
  pairs = ((truth, predicted), (~truth, predicted), (truth, ~predicted))
  positives = [np.count_nonzero(a & b, (-2, -1)) for a, b in pairs]
  rest = truth.shape[-2] * truth.shape[-1] - sum(positives)
  return np.stack([*positives, rest], -1)


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Part / whole, and 1 where whole is 0: nothing was asked for."""
  part, whole = np.asarray(part, float), np.asarray(whole, float)
  return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def overlap(counted: np.ndarray) -> dict[str, np.ndarray]:
  """Scores of counted pixels.

  Args:
    counted: shape (..., 4), from `counts`, or sums of such.

  Returns:
    float64 of shape (...) each: 'accuracy', 'precision' (1 where nothing is
    predicted a cell), 'recall' (1 where there is none), 'iou' (Jaccard) and
    'dice' (F1), which are 1 where both masks are empty.
  """
  tp, fp, fn, tn = np.moveaxis(np.asarray(counted, float), -1, 0)
  return {
    'accuracy': share(tp + tn, tp + fp + fn + tn),
    'precision': share(tp, tp + fp),
    'recall': share(tp, tp + fn),
    'iou': share(tp, tp + fp + fn),
    'dice': share(2 * tp, 2 * tp + fp + fn),
  }


def pixel_confusion(
  logits: jax.Array, masks: jax.Array, sample_weight: jax.Array
) -> jax.Array:
  """Sums shares of pixels by truth (row) and prediction (column) over images.

  Args:
    logits: float, shape (batch, height, width, 1); above 0 is predicted a cell.
    masks: integer 0 or 1, of the same shape.
    sample_weight: float32, shape (batch,); 0 leaves an image out.

  Returns:
    float32, shape (2, 2), background first; its sum is that of the weights.
  """
  truth, predicted = masks > 0, logits > 0
  shares = [
    ((truth == t) & (predicted == c)).astype(jnp.float32).mean((1, 2, 3))
    for t in (False, True)
    for c in (False, True)
  ]
  return (jnp.stack(shares) * sample_weight[None]).sum(1).reshape(2, 2)


def dice(confusion: np.ndarray) -> float:
  """Dice of all pixels together.

  Args:
    confusion: from `pixel_confusion`.

  Returns:
    2 TP / (2 TP + FP + FN); 1 where both masks are empty.
  """
  (tn, fp), (fn, tp) = np.asarray(confusion, float)
  counted = np.array([tp, fp, fn, tn])
  return float(overlap(counted)['dice'])


def _border(mask: np.ndarray) -> np.ndarray:
  """Pixels of a mask with a 4-neighbour outside of it, or of the image."""
  return mask & ~ndimage.binary_erosion(mask)


def border_distances(
  truth: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """How far each mask's border pixels are from the other mask's border.

  Args:
    truth: bool, shape (height, width), not empty.
    predicted: likewise.

  Returns:
    Euclidean distances, px: from each border pixel of the truth, and from each
    of the predicted mask.
  """
  ours, theirs = _border(predicted), _border(truth)
  to_ours = ndimage.distance_transform_edt(~ours)
  to_theirs = ndimage.distance_transform_edt(~theirs)
  return to_ours[theirs], to_theirs[ours]


def border_scores(
  truth: np.ndarray, predicted: np.ndarray
) -> tuple[float, float]:
  """Compares the borders of two masks.

  Args:
    truth: bool, shape (height, width).
    predicted: bool, of the same shape.

  Returns:
    The boundary F1 (Csurka et al., BMVC 2013): harmonic mean of the shares of
    border pixels that have one of the other mask within `BORDER_TOLERANCE`; and
    the 95 % Hausdorff distance, px: the larger of the two 95th percentiles of
    `border_distances`; NaN where a mask is empty.
  """
  if not truth.any() or not predicted.any():
    return float(truth.any() == predicted.any()), float('nan')
  of_truth, of_predicted = border_distances(truth, predicted)
  recall = float((of_truth <= BORDER_TOLERANCE).mean())
  precision = float((of_predicted <= BORDER_TOLERANCE).mean())
  total = precision + recall
  distance = max(np.percentile(of_truth, 95), np.percentile(of_predicted, 95))
  return 2 * precision * recall / total if total else 0.0, float(distance)


class ImageScores(NamedTuple):
  """All that one pair of masks gives.

  Attributes:
    border_f1: see `border_scores`.
    hausdorff_95: px; NaN where a mask is empty.
    true_positives: cells in both masks, see `objects.match_cells`.
    false_positives: predicted cells without a true one.
    false_negatives: true cells without a predicted one.
  """

  border_f1: float
  hausdorff_95: float
  true_positives: int
  false_positives: int
  false_negatives: int


def image_scores(
  truth: np.ndarray, predicted: np.ndarray, *, smallest: float
) -> ImageScores:
  """Compares the borders and the cells of two masks.

  Args:
    truth: bool, shape (height, width).
    predicted: bool, of the same shape.
    smallest: see `objects.separate_cells`.

  Returns:
    The scores.
  """
  cells = (
    separate_cells(mask, smallest=smallest) for mask in (truth, predicted)
  )
  return ImageScores(*border_scores(truth, predicted), *match_cells(*cells))


@dataclasses.dataclass(frozen=True)
class SoftScores:
  """The study's forms, which take probabilities as they are."""

  dice: float
  iou: float


@dataclasses.dataclass(frozen=True)
class MaskScores:
  """Scores of some images' masks.

  Those of overlap are of all pixels together. What was not scored, and a
  distance that no pair of masks has, is None.

  Attributes:
    images: number of images.
    accuracy: share of correct pixels.
    precision: see `overlap`.
    recall: see `overlap`.
    iou: see `overlap`.
    dice: see `overlap`.
    mean_iou: averaged over images.
    mean_dice: averaged over images.
    border_f1: averaged over images, see `border_scores`.
    hausdorff_95: px, averaged over the pairs in which both masks have cells.
    one_mask_empty: number of pairs in which only one mask has cells.
    cells: number of true cells.
    cell_f1: F1 over all cells, see `objects.match_cells`.
    cell_count_error: mean absolute error of an image's number of cells.
    soft: the study's forms.
    by_class: scores by name of the class.
  """

  images: int
  accuracy: float
  precision: float
  recall: float
  iou: float
  dice: float
  mean_iou: float
  mean_dice: float
  border_f1: float | None = None
  hausdorff_95: float | None = None
  one_mask_empty: int | None = None
  cells: int | None = None
  cell_f1: float | None = None
  cell_count_error: float | None = None
  soft: SoftScores | None = None
  by_class: dict[str, MaskScores] | None = None


def pooled(counted: np.ndarray) -> MaskScores:
  """Overlap over all pixels of some images, and the mean over images.

  Args:
    counted: int, shape (n, 4), from `counts`.

  Returns:
    The scores of overlap alone.
  """
  of_sum = overlap(counted.sum(0))
  of_each = overlap(counted)
  return MaskScores(
    images=len(counted),
    accuracy=float(of_sum['accuracy']),
    precision=float(of_sum['precision']),
    recall=float(of_sum['recall']),
    iou=float(of_sum['iou']),
    dice=float(of_sum['dice']),
    mean_iou=float(of_each['iou'].mean()),
    mean_dice=float(of_each['dice'].mean()),
  )


def summary(counted: np.ndarray, images: list[ImageScores]) -> MaskScores:
  """Everything about some images' masks.

  Args:
    counted: int, shape (n, 4), from `counts`.
    images: n results of `image_scores`.

  Returns:
    All scores but the soft ones and those by class.
  """
  columns = (np.array(column) for column in zip(*images, strict=True))
  border_f1, hausdorff, true_positives, false_positives, false_negatives = (
    columns
  )
  errors = (false_positives + false_negatives).sum()
  distances = hausdorff[~np.isnan(hausdorff)]
  tp, fp, fn, _ = np.asarray(counted).T
  return dataclasses.replace(
    pooled(counted),
    border_f1=float(border_f1.mean()),
    hausdorff_95=float(distances.mean()) if len(distances) else None,
    one_mask_empty=int(((tp + fn > 0) != (tp + fp > 0)).sum()),
    cells=int((true_positives + false_negatives).sum()),
    cell_f1=float(
      share(2 * true_positives.sum(), 2 * true_positives.sum() + errors)
    ),
    cell_count_error=float(np.abs(false_positives - false_negatives).mean()),
  )


def soft_sums(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
  """What `soft_scores` sums up.

  Args:
    truth: bool, shape (n, height, width).
    probability: float, of the same shape.

  Returns:
    float64, shape (n, 2): an image's sums of probability within the truth, and
    of probability and truth.
  """
  both = np.where(truth, probability, 0).sum((1, 2), dtype=np.float64)
  total = probability.sum((1, 2), dtype=np.float64) + truth.sum((1, 2))
  return np.stack([both, total], 1)


def soft_scores(sums: np.ndarray) -> SoftScores:
  """The study's forms, which take probabilities as they are.

  Args:
    sums: shape (n, 2), from `soft_sums`. The Dice depends on which images share
      a batch: mix them, as the study's were, or classes stay among themselves.

  Returns:
    Dice, flattened over batches of ten images and averaged over the batches,
    and IoU, an image at a time and averaged; 1 is added above and below.
  """
  both, total = sums.T
  starts = range(0, len(sums), _STUDY_BATCH)
  batches = [sums[i : i + _STUDY_BATCH].sum(0) for i in starts]
  dice = [
    (2 * b + _STUDY_SMOOTHING) / (t + _STUDY_SMOOTHING) for b, t in batches
  ]
  iou = (both + _STUDY_SMOOTHING) / (total - both + _STUDY_SMOOTHING)
  return SoftScores(dice=float(np.mean(dice)), iou=float(iou.mean()))


def best_threshold(counted: np.ndarray) -> int:
  """The threshold of the highest pooled Dice.

  Args:
    counted: int, shape (thresholds, 4).

  Returns:
    Its index; of equal ones that nearest to the middle.
  """
  dice = overlap(counted)['dice']
  middle = np.abs(np.arange(len(dice)) - (len(dice) - 1) / 2)
  return int(np.lexsort((middle, -dice))[0])
