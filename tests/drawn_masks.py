"""Small masks that the scores of masks are tried on."""

import numpy as np
from scipy import ndimage


def discs(*centres: tuple[int, int], radius: int = 9) -> np.ndarray:
  y, x = np.mgrid[:112, :112]
  masks = [(y - a) ** 2 + (x - b) ** 2 <= radius**2 for a, b in centres]
  return np.any(masks, 0)


def blobs(seed: int, size: int = 24, share: float = 0.3) -> np.ndarray:
  noise = np.random.default_rng(seed).normal(size=(size, size))
  smooth = ndimage.gaussian_filter(noise, 2)
  return smooth > np.quantile(smooth, 1 - share)


def one_pixel() -> np.ndarray:
  mask = np.zeros((24, 24), bool)
  mask[5, 7] = True
  return mask


EMPTY, ALL = np.zeros((24, 24), bool), np.ones((24, 24), bool)
PAIRS = [
  *((blobs(i), blobs(i + 100)) for i in range(4)),
  (blobs(1), np.roll(blobs(1), 1, 0)),
  (blobs(2), one_pixel()),
  (one_pixel(), blobs(2)),
  (one_pixel(), one_pixel()),
  (blobs(3), ALL),
  (ALL, ALL),
]
HALF_EMPTY = [(EMPTY, blobs(0)), (blobs(0), EMPTY), (EMPTY, one_pixel())]
