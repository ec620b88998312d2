"""Masks of cells: from what an image set ships to 0 and 1, and cleaned."""

import dataclasses
import functools
import re
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageOps
from scipy import ndimage

_RULE = re.compile(r'(max_channel|grey)>(\d{1,3})')
# A mask that covers less is called empty: a tenth of one cell of the published
# images.
EMPTY_SHARE = 0.001
# Structures thinner than this many px go when a mask is opened; rims of red
# cells are 1..4 px thin, the smallest white cells 13 px wide.
_THINNEST = 5
# Masks of one class in ten that are empty, or that cover under a quarter of
# what other classes' do, look broken; and those that cover so much of their
# images look turned round.
_BROKEN_EMPTY, _BROKEN_COVERAGE, _TURNED_COVERAGE = 0.1, 0.25, 0.6


class Reading(NamedTuple):
  """How masks are read; see `config.data`.

  Attributes:
    rule: which pixels of a mask file are cells, see `is_rule`.
    clean: whether to `clean` them.
    minimum_area: see `clean`, px at the mask's own size.
  """

  rule: str
  clean: bool
  minimum_area: int


def is_rule(text: str) -> bool:
  """Whether a text is 'max_channel>N' or 'grey>N', N from 0 to 254."""
  match = _RULE.fullmatch(text)
  return match is not None and int(match[2]) < 255


def binarise(image: Image.Image, rule: str) -> np.ndarray:
  """Tells cells from background in a mask as it was shipped.

  Args:
    image: Pillow image in mode RGB.
    rule: 'max_channel>60': the largest of R, G and B is above 60, which is
      right for cut-out cells on black; 'grey>128': Pillow's luma is, the
      study's rule; 'grey>0': anything that is not black, for masks of 0 and 1.

  Returns:
    bool array, shape (height, width).

  Raises:
    ValueError: there is no such rule.
  """
  match = _RULE.fullmatch(rule)
  if not match:
    raise ValueError(f'no mask rule {rule!r}')
  if match[1] == 'grey':
    values = np.asarray(image.convert('L'))
  else:
    # Plane by plane: numpy is slow along an axis of three.
    values = np.asarray(functools.reduce(ImageChops.lighter, image.split()))
  return values > int(match[2])


def _without_small(mask: np.ndarray, minimum_area: int) -> np.ndarray:
  """Drops 4-connected components of fewer pixels."""
  labels, count = ndimage.label(mask)
  sizes = np.bincount(labels.ravel(), minlength=count + 1)
  large = sizes >= minimum_area
  large[0] = False
  return large[labels]


def clean(mask: np.ndarray, *, minimum_area: int) -> np.ndarray:
  """Repairs a mask that a colour threshold made.

  Holes under `minimum_area` are filled (larger ones are background, within rims
  of red cells or between white ones), the mask is opened by a disc 5 px wide,
  which takes rims away, and specks under `minimum_area` are dropped.

  Args:
    mask: bool array, shape (height, width).
    minimum_area: px.

  Returns:
    bool array of the same shape.
  """
  filled = ~_without_small(~mask, minimum_area)
  radius = _THINNEST // 2
  y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
  disc = x**2 + y**2 <= radius**2 + 1
  # Beyond the border the image goes on as at the border: cells there stay.
  wide = np.pad(filled, radius, mode='edge')
  opened = ndimage.binary_opening(wide, disc)[radius:-radius, radius:-radius]
  return _without_small(opened, minimum_area)


def read(image: Image.Image, size: int, reading: Reading) -> np.ndarray:
  """Makes a mask for an image that `decode.to_size` scales.

  Args:
    image: the mask file, a Pillow image in mode RGB.
    size: side of the result, px.
    reading: rule and cleaning, applied at the mask's own size.

  Returns:
    uint8 array of shape (size, size, 1), 0 or 1: where a cell covers half of a
    pixel or more.
  """
  mask = binarise(image, reading.rule)
  if reading.clean:
    mask = clean(mask, minimum_area=reading.minimum_area)
  return _to_size(mask, size).astype(np.uint8)[..., None]


def _to_size(mask: np.ndarray, size: int) -> np.ndarray:
  """Scales a mask as `decode.to_size` does an image."""
  if mask.shape == (size, size):
    return mask
  grey = Image.fromarray(mask.astype(np.uint8) * 255)
  grey = ImageOps.fit(grey, (size, size), Image.Resampling.BILINEAR)
  return np.asarray(grey) >= 128


def clean_scaled(
  mask: np.ndarray, *, side: int, minimum_area: int
) -> np.ndarray:
  """Repairs a mask that was made at a size as `read` does those of files.

  Args:
    mask: bool array, shape (size, size).
    side: of the files' masks, px: it is cleaned at that size.
    minimum_area: see `clean`, px at that size.

  Returns:
    bool array of shape (size, size).
  """
  large = _to_size(mask, side)
  return _to_size(clean(large, minimum_area=minimum_area), len(mask))


@dataclasses.dataclass(frozen=True)
class ClassCoverage:
  """Masks of one class: their number, mean share of cells, empty ones."""

  masks: int
  mean: float
  empty: int


def by_class(
  coverage: np.ndarray, labels: np.ndarray, num_classes: int
) -> list[ClassCoverage]:
  """Sums up how much of their images the masks of each class cover.

  Args:
    coverage: float, shape (n,): share of cells; NaN without a mask.
    labels: int, shape (n,).
    num_classes: number of classes.

  Returns:
    One entry a class; a mask is empty under `EMPTY_SHARE`.
  """
  summaries = []
  for label in range(num_classes):
    shares = coverage[labels == label]
    shares = shares[~np.isnan(shares)]
    mean = float(shares.mean()) if len(shares) else 0.0
    empty = int((shares < EMPTY_SHARE).sum())
    summaries.append(ClassCoverage(len(shares), mean, empty))
  return summaries


def warnings(
  summaries: list[ClassCoverage], names: tuple[str, ...]
) -> list[str]:
  """Says in plain words which classes' masks look broken.

  Args:
    summaries: from `by_class`.
    names: names of the classes.

  Returns:
    One sentence a class that needs one.
  """
  texts = []
  means = [row.mean for row in summaries if row.masks]
  usual = float(np.median(means)) if means else 0.0
  for name, row in zip(names, summaries, strict=True):
    flaws = []
    if row.empty > _BROKEN_EMPTY * row.masks:
      flaws.append(f'{row.empty} of {row.masks} are empty')
    if row.masks and row.mean < _BROKEN_COVERAGE * usual:
      flaws.append(
        f'they cover {row.mean:.1%} of their images, where {usual:.1%} is '
        'usual in this set'
      )
    if row.mean > _TURNED_COVERAGE:
      texts.append(
        f'the masks of {name} cover {row.mean:.1%} of their images: is '
        'config.data.mask_rule right, or are cells and background swapped?'
      )
    if flaws:
      texts.append(
        f'the masks of {name} look broken: {" and ".join(flaws)}. A model that '
        f'learns from them learns that {name} has no cells. Is '
        'config.data.mask_rule right? config.data.drop_empty_masks=True leaves '
        'empty ones out of training'
      )
  return texts
