"""Scores of masks: overlap, borders, cells; on the host.

One rule for what is not there, in every score: two empty masks agree
perfectly; where one of two is empty they agree nowhere. A distance has no such
rule: it is that of the pairs in which both masks have cells.
"""

from typing import Any

import numpy as np
from scipy import ndimage, optimize
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

# Thresholds that a model's probabilities are tried at.
THRESHOLDS = np.arange(1, 20) / 20
# A border pixel is found if one of the other mask is this near, px.
BORDER_TOLERANCE = 2.0
# Objects match from this intersection over union on.
OBJECT_IOU = 0.5
# The study's batches for its soft Dice, and the 1 it adds above and below.
_STUDY_BATCH, _STUDY_SMOOTHING = 10, 1.0


def counts(truth: np.ndarray, called: np.ndarray) -> np.ndarray:
  """Counts pixels by truth and call.

  Args:
    truth: bool, shape (..., height, width).
    called: bool, of the same shape.

  Returns:
    int64, shape (..., 4): cells called cells, ground called cells, cells called
    ground, ground called ground (TP, FP, FN, TN).
  """
  pairs = ((truth, called), (~truth, called), (truth, ~called))
  found = [np.count_nonzero(a & b, (-2, -1)) for a, b in pairs]
  rest = truth.shape[-2] * truth.shape[-1] - sum(found)
  return np.stack([*found, rest], -1)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Part / whole, and 1 where whole is 0: nothing was asked for."""
  part, whole = np.asarray(part, float), np.asarray(whole, float)
  return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def overlap(counted: np.ndarray) -> dict[str, np.ndarray]:
  """Scores of counted pixels.

  Args:
    counted: shape (..., 4), from `counts`, or sums of such.

  Returns:
    float64 of shape (...) each: 'accuracy', 'precision' (1 where nothing is
    called a cell), 'recall' (1 where there is none), 'iou' (Jaccard) and 'dice'
    (F1), which are 1 where both masks are empty.
  """
  tp, fp, fn, tn = np.moveaxis(np.asarray(counted, float), -1, 0)
  return {
    'accuracy': _share(tp + tn, tp + fp + fn + tn),
    'precision': _share(tp, tp + fp),
    'recall': _share(tp, tp + fn),
    'iou': _share(tp, tp + fp + fn),
    'dice': _share(2 * tp, 2 * tp + fp + fn),
  }


def _border(mask: np.ndarray) -> np.ndarray:
  """Pixels of a mask with a 4-neighbour outside of it, or of the image."""
  return mask & ~ndimage.binary_erosion(mask)


def border_distances(
  truth: np.ndarray, called: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """How far each mask's border pixels are from the other mask's border.

  Args:
    truth: bool, shape (height, width), not empty.
    called: likewise.

  Returns:
    Euclidean distances, px: from each border pixel of the truth, and from each
    of the called mask.
  """
  ours, theirs = _border(called), _border(truth)
  to_ours = ndimage.distance_transform_edt(~ours)
  to_theirs = ndimage.distance_transform_edt(~theirs)
  return to_ours[theirs], to_theirs[ours]


def border_scores(truth: np.ndarray, called: np.ndarray) -> tuple[float, float]:
  """Compares the borders of two masks.

  Args:
    truth: bool, shape (height, width).
    called: bool, of the same shape.

  Returns:
    The boundary F1 (Csurka et al., BMVC 2013): harmonic mean of the shares of
    border pixels that have one of the other mask within `BORDER_TOLERANCE`; and
    the 95 % Hausdorff distance, px: the larger of the two 95th percentiles of
    `border_distances`; NaN where a mask is empty.
  """
  if not truth.any() or not called.any():
    return float(truth.any() == called.any()), float('nan')
  of_truth, of_called = border_distances(truth, called)
  recall = float((of_truth <= BORDER_TOLERANCE).mean())
  precision = float((of_called <= BORDER_TOLERANCE).mean())
  total = precision + recall
  distance = max(np.percentile(of_truth, 95), np.percentile(of_called, 95))
  return 2 * precision * recall / total if total else 0.0, float(distance)


def objects(mask: np.ndarray, *, smallest: float) -> np.ndarray:
  """Numbers the cells of a mask; cells that touch are split by a watershed.

  Each maximum of the smoothed distance to the ground is a cell's middle; the
  watershed of that distance (scikit-image's) parts them.

  Args:
    mask: bool, shape (height, width).
    smallest: diameter of the smallest cell, px. A connected part with less
      area than such a disc is a speck and no cell; of two middles that are
      nearer than this one is noise.

  Returns:
    int32 of the same shape: 0 for ground and specks, cells from 1 on without
    gaps.
  """
  parts, count = ndimage.label(mask)
  sizes = np.bincount(parts.ravel(), minlength=count + 1)
  parts[sizes[parts] < np.pi / 4 * smallest**2] = 0
  cells = parts > 0
  if not cells.any():
    return np.zeros(mask.shape, np.int32)
  # What lies beyond the image's border is not taken for ground.
  distance = ndimage.distance_transform_edt(cells)
  smooth = ndimage.gaussian_filter(distance, smallest / 4)
  middles = peak_local_max(
    smooth,
    min_distance=max(1, round(smallest)),
    exclude_border=False,
    labels=parts,
  )
  markers = np.zeros(mask.shape, np.int32)
  markers[tuple(middles.T)] = np.arange(1, len(middles) + 1)
  return watershed(-smooth, markers, mask=cells).astype(np.int32)


def match_objects(
  truth: np.ndarray, called: np.ndarray
) -> tuple[int, int, int]:
  """Counts cells that are found, called without being there, and missed.

  Args:
    truth: int, shape (height, width), from `objects`.
    called: likewise.

  Returns:
    The numbers of pairs with an IoU of `OBJECT_IOU` or more (each cell in one
    pair, as many pairs as can be), of called cells without a partner, and of
    true ones without.
  """
  n, m = int(truth.max()), int(called.max())
  table = np.zeros((n + 1, m + 1))
  np.add.at(table, (truth.ravel(), called.ravel()), 1)
  areas = table.sum(1)[1:, None] + table.sum(0)[None, 1:]
  both = table[1:, 1:]
  iou = both / (areas - both)
  rows, columns = optimize.linear_sum_assignment(
    iou >= OBJECT_IOU, maximize=True
  )
  pairs = int((iou >= OBJECT_IOU)[rows, columns].sum())
  return pairs, m - pairs, n - pairs


def image_scores(
  truth: np.ndarray, called: np.ndarray, *, smallest: float
) -> dict[str, float]:
  """All that one pair of masks gives.

  Args:
    truth: bool, shape (height, width).
    called: bool, of the same shape.
    smallest: see `objects`.

  Returns:
    'border_f1', 'hausdorff_95' (px, or NaN), and of the cells in them 'found',
    'invented', 'missed' (see `match_objects`).
  """
  f1, distance = border_scores(truth, called)
  cells = (objects(mask, smallest=smallest) for mask in (truth, called))
  found, invented, missed = match_objects(*cells)
  return {
    'border_f1': f1,
    'hausdorff_95': distance,
    'found': found,
    'invented': invented,
    'missed': missed,
  }


def pooled(counted: np.ndarray) -> dict[str, Any]:
  """Overlap over all pixels of some images, and the mean over images.

  Args:
    counted: int, shape (n, 4), from `counts`.

  Returns:
    The scores of `overlap` of the sum, and under 'mean' the images' averages.
  """
  of_sum = overlap(counted.sum(0))
  of_each = overlap(counted)
  return (
    {'images': len(counted)}
    | {key: float(value) for key, value in of_sum.items()}
    | {'mean': {key: float(of_each[key].mean()) for key in ('iou', 'dice')}}
  )


def summary(
  counted: np.ndarray, images: list[dict[str, float]]
) -> dict[str, Any]:
  """Everything about some images' masks.

  Args:
    counted: int, shape (n, 4), from `counts`.
    images: n results of `image_scores`.

  Returns:
    Plain numbers by name, ready for JSON: those of `pooled`; the mean border
    F1; the mean 95 % Hausdorff distance of the pairs in which both masks have
    cells (None if there is no such pair), and 'one_empty', the number of pairs
    in which only one has; F1 over all cells, and the mean error of an image's
    number of cells.
  """
  values = {key: np.array([i[key] for i in images]) for key in images[0]}
  found, invented, missed = (
    values[key] for key in ('found', 'invented', 'missed')
  )
  wrong = (invented + missed).sum()
  distances = values['hausdorff_95'][~np.isnan(values['hausdorff_95'])]
  tp, fp, fn, _ = np.asarray(counted).T
  return {
    **pooled(counted),
    'border_f1': float(values['border_f1'].mean()),
    'hausdorff_95': float(distances.mean()) if len(distances) else None,
    'one_empty': int(((tp + fn > 0) != (tp + fp > 0)).sum()),
    'cells': int((found + missed).sum()),
    'cell_f1': float(_share(2 * found.sum(), 2 * found.sum() + wrong)),
    'cell_count_error': float(np.abs(invented - missed).mean()),
  }


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


def soft_scores(sums: np.ndarray) -> dict[str, float]:
  """The study's forms, which take probabilities as they are.

  Args:
    sums: shape (n, 2), from `soft_sums`. The Dice depends on which images share
      a batch: mix them, as the study's were, or classes stay among themselves.

  Returns:
    'dice', flattened over batches of ten images and averaged over the batches,
    and 'iou', an image at a time and averaged; 1 is added above and below.
  """
  both, total = sums.T
  starts = range(0, len(sums), _STUDY_BATCH)
  batches = [sums[i : i + _STUDY_BATCH].sum(0) for i in starts]
  dice = [
    (2 * b + _STUDY_SMOOTHING) / (t + _STUDY_SMOOTHING) for b, t in batches
  ]
  iou = (both + _STUDY_SMOOTHING) / (total - both + _STUDY_SMOOTHING)
  return {'dice': float(np.mean(dice)), 'iou': float(iou.mean())}


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
