"""How large what an image shows is, without knowing what it shows.

A blob answers most to a Laplacian of Gaussian as wide as itself (Lindeberg,
International Journal of Computer Vision 30, 1998). How strongly all that is
stained in an image answers at each width is its spectrum; twice as large cells
move it by a factor of two, whatever they are.
"""

from collections.abc import Iterable

import numpy as np
from scipy import fft

# Steps of a factor of two in width.
STEPS = 4
# Standard deviations of the Gaussians, as shares of the image's width.
WIDTHS = 2.0 ** (np.arange(6 * STEPS + 1) / STEPS) / 512
# Factors that are tried, as steps: from 0.35 to 2.8.
_MOST_STEPS = 6
# Factors this many steps from 1, or fewer, are taken for 1.
_NEAR = 1
# Narrower widths show the grid of pixels, which no magnification moves.
_PIXELS = 1.0
# Mean squared difference of two spectra of the same kind, natural logarithms:
# of many images, and how much more of a single one.
_SAME, _SAME_OF_ONE = 0.015, 0.03


def density(pixels: np.ndarray) -> np.ndarray:
  """The optical density of an image, that of its colours added up.

  Args:
    pixels: uint8, shape (height, width, 3).

  Returns:
    float64, shape (height, width), by Beer and Lambert: 0 where a pixel is as
    bright as the 90th percentile of each channel.
  """
  light = np.percentile(pixels, 90, (0, 1))
  return np.log10((light + 1) / (pixels.astype(float) + 1)).sum(-1)


def spectrum(pixels: np.ndarray) -> np.ndarray:
  """How strongly an image answers at each of `WIDTHS`.

  Args:
    pixels: uint8, shape (height, width, 3).

  Returns:
    float64, shape (widths,): natural logarithms of the mean squared response of
    the optical density, mirrored at the borders.
  """
  power = fft.dctn(density(pixels), norm='ortho') ** 2
  vertical, horizontal = (np.pi * np.arange(n) / n for n in power.shape)
  squared = vertical[:, None] ** 2 + horizontal[None] ** 2
  energies = []
  for width in WIDTHS * power.shape[1]:
    response = width**2 * squared * np.exp(-(width**2) * squared / 2)
    energies.append((power * response**2).mean())
  return np.log(np.array(energies) + 1e-12)


def mean_spectrum(images: Iterable[np.ndarray]) -> np.ndarray:
  """The mean of `spectrum` over one or more images."""
  return np.mean([spectrum(image) for image in images], 0)


def factor(
  own: np.ndarray, reference: np.ndarray, *, side: int, images: int
) -> float | None:
  """How many times larger what some images show is than in others.

  Args:
    own: mean spectrum of the images.
    reference: mean spectrum of the others.
    side: width of all images, px.
    images: number of images that `own` is the mean of.

  Returns:
    A power of two, in steps of a quarter, from 0.35 to 2.8; 1 where they are
    about as large. None where the spectra differ in form, so that they do not
    show the same kind of thing.
  """
  first, count = int((WIDTHS * side < _PIXELS).sum()), len(WIDTHS)
  misfits = {}
  for step in range(-_MOST_STEPS, _MOST_STEPS + 1):
    low, high = max(first, first + step), min(count, count + step)
    difference = own[low:high] - reference[low - step : high - step]
    # A fainter stain answers less at every width.
    misfits[step] = float(np.var(difference))
  best = min(misfits, key=lambda step: misfits[step])
  if misfits[best] > _SAME + _SAME_OF_ONE / images:
    return None
  return 1.0 if abs(best) <= _NEAR else 2.0 ** (best / STEPS)
