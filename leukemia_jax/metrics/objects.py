"""Cells as objects: split by a watershed, matched by their overlap."""

import numpy as np
from scipy import ndimage, optimize

# Cells match from this intersection over union on.
CELL_IOU = 0.5
# Of distances, px; beyond them is rounding.
_DIGITS = 6


def _centres(
  mask: np.ndarray, smallest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The cells' centres.

  Args:
    mask: see `separate_cells`.
    smallest: likewise.

  Returns:
    The mask without specks, the smoothed distance to the background, and int,
    shape (cells, 2): row and column of its maxima.
  """
  from skimage.feature import peak_local_max

  parts, count = ndimage.label(mask)
  sizes = np.bincount(parts.ravel(), minlength=count + 1)
  parts[sizes[parts] < np.pi / 4 * smallest**2] = 0
  cells = parts > 0
  if not cells.any():
    return cells, np.zeros(mask.shape), np.zeros((0, 2), int)
  # What lies beyond the image's border is not taken for background.
  distance = ndimage.distance_transform_edt(cells)
  smooth = ndimage.gaussian_filter(distance, smallest / 4)
  centres = peak_local_max(
    smooth,
    min_distance=max(1, round(smallest)),
    exclude_border=False,
    labels=parts,
  )
  return cells, smooth, _one_each(smooth, parts, centres)


def _one_each(
  smooth: np.ndarray, parts: np.ndarray, centres: np.ndarray
) -> np.ndarray:
  """One centre for each maximum of a part: a flat ridge is given as many."""
  from skimage.morphology import local_maxima

  heights = np.round(smooth[tuple(centres.T)], _DIGITS)
  if len(np.unique(heights)) == len(heights):
    return centres
  ridges, _ = ndimage.label(
    local_maxima(np.round(smooth, _DIGITS)), np.ones((3, 3))
  )
  at = tuple(centres.T)
  numbers = np.stack([ridges[at], parts[at]])
  _, first = np.unique(numbers, axis=1, return_index=True)
  is_first = np.isin(np.arange(len(centres)), first) | (numbers[0] == 0)
  return centres[is_first]


def separate_cells(mask: np.ndarray, *, smallest: float) -> np.ndarray:
  """Numbers the cells of a mask; cells that touch are split by a watershed.

  Each maximum of the smoothed distance to the background is a cell's centre;
  the watershed of that distance (scikit-image's) separates them.

  Args:
    mask: bool, shape (height, width).
    smallest: diameter of the smallest cell, px. A connected part with less
      area than such a disc is a speck and no cell; of two centres that are
      nearer to each other, one is noise.

  Returns:
    int32 of the same shape: 0 for background and specks, cells from 1 on
    without gaps.
  """
  from skimage.segmentation import watershed

  cells, smooth, centres = _centres(mask, smallest)
  markers = np.zeros(mask.shape, np.int32)
  markers[tuple(centres.T)] = np.arange(1, len(centres) + 1)
  return watershed(-smooth, markers, mask=cells).astype(np.int32)


def count_cells(mask: np.ndarray, *, smallest: float) -> int:
  """The number of cells that `separate_cells` makes of a mask."""
  return len(_centres(mask, smallest)[2])


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Intersection over union of each pair of cells.

  Args:
    truth: int, shape (height, width): 0 for background, cells from 1 on.
    predicted: likewise.

  Returns:
    float64, shape (true cells, predicted cells); 0 for a number without pixels.
  """
  table = np.zeros((int(truth.max()) + 1, int(predicted.max()) + 1))
  np.add.at(table, (truth.ravel(), predicted.ravel()), 1)
  areas = table.sum(1)[1:, None] + table.sum(0)[None, 1:]
  both = table[1:, 1:]
  return both / np.maximum(areas - both, 1)


def match_cells(
  truth: np.ndarray, predicted: np.ndarray
) -> tuple[int, int, int]:
  """Counts true positive, false positive and false negative cells.

  Args:
    truth: int, shape (height, width), from `separate_cells`.
    predicted: likewise.

  Returns:
    The number of pairs with an IoU of `CELL_IOU` or more (each cell in one
    pair, as many pairs as can be), of predicted cells without a partner, and
    of true cells without a partner.
  """
  iou = overlaps(truth, predicted)
  n, m = iou.shape
  true_cells, predicted_cells = optimize.linear_sum_assignment(
    iou >= CELL_IOU, maximize=True
  )
  pairs = int((iou >= CELL_IOU)[true_cells, predicted_cells].sum())
  return pairs, m - pairs, n - pairs
