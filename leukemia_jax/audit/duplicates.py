"""Images that show the same: equal, turned or mirrored, or nearly the same.

Fields of one smear are all near-white and alike, so hashes of brightness
collide. Here every picture is compared with every other by small thumbnails,
and each pair that they suggest is checked by the fine detail of the aligned
images, which two smears never share.
"""

import concurrent.futures
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage, stats

from leukemia_jax import parallel, progress
from leukemia_jax.transforms import colour

_BATCH, _BLOCK = 64, 512
# Sides of thumbnails and of the images that are aligned, px.
_THUMBNAIL, _SIDE = 16, 96
# Angles of augmentations, degrees; each is tried in eight orientations.
_ANGLES = (-18, -12, -6, 0, 6, 12, 18)
_UPRIGHT = (0,)
_ORIENTATIONS = 8
# Sets of more images are compared in the eight orientations and shifts alone.
_MANY_IMAGES = 10_000
# Thumbnails of twins correlate by more, and so may those of a few others.
_SUGGESTED = 0.45
_MOST_SUGGESTED = 8  # of an image
# Angles around a thumbnail's, degrees; and the largest shift, of a side.
_FINE_ANGLES = (-4, -2, 0, 2, 4)
_LARGEST_SHIFT = 1 / 3
_LEAST_OVERLAP = 0.4
# Fine detail lies between these Gaussian blurs, px of `_SIDE`.
_BLURS = (1.0, 3.0)
# Its correlation in twins: above this, and so many deviations above that
# of random pairs. Published fields: twins 0.64 and more, others 0.32 and
# less. Cells cut out at 36 px are so alike that only the second holds them off.
_LEAST_CORRELATION, _STANDS_OUT = 0.55, 16
_RANDOM_PAIRS, _FEWEST_PAIRS = 300, 20


# Angle in degrees, and one of eight orientations.
Form = tuple[float, int]
# Of a field that was photographed once more: px of a thumbnail.
_SHIFTS = [s for s in itertools.product((-1, 0, 1), repeat=2) if any(s)]
# Kinds of pairs, in words.
KINDS = {
  'exact': 'equal',
  'oriented': 'turned or mirrored',
  'near': 'nearly equal',
}


class Pair(NamedTuple):
  """Two images that show the same.

  Attributes:
    first: index of one image.
    second: index of the other, above `first`.
    similarity: correlation of their fine detail, aligned; 1 for equal images.
  """

  first: int
  second: int
  similarity: float


class Duplicates(NamedTuple):
  """All pairs of a set.

  Attributes:
    exact: equal images, each with the first of its kind.
    oriented: images that are equal to such a first one once they are turned or
      mirrored.
    near: images that are nearly equal: shifted, turned by some degrees,
      brightened, compressed again, or taken of the same place once more. Of
      images that are equal to each other only the first is in such pairs.
    threshold: least similarity of near pairs.
  """

  exact: list[Pair]
  oriented: list[Pair]
  near: list[Pair]
  threshold: float

  @property
  def by_kind(self) -> dict[str, list[Pair]]:
    """The pairs by their kind, as in `KINDS`."""
    return {'exact': self.exact, 'oriented': self.oriented, 'near': self.near}


def find_duplicates(
  images: np.ndarray, pixel_hashes: Sequence[str], *, seed: int
) -> Duplicates:
  """Compares every image with every other.

  Args:
    images: uint8, shape (n, size, size, 3).
    pixel_hashes: see `data.checked.hash_pixels`.
    seed: of the random pairs that near ones must stand out from.

  Returns:
    The pairs, in the order of their first image.
  """
  by_hash: dict[str, list[int]] = {}
  for i, value in enumerate(pixel_hashes):
    by_hash.setdefault(value, []).append(i)
  exact: list[Pair] = []
  oriented: list[Pair] = []
  for members in by_hash.values():
    first = members[0]
    for second in members[1:]:
      is_exact = np.array_equal(images[first], images[second])
      (exact if is_exact else oriented).append(Pair(first, second, 1.0))
  distinct = np.array([members[0] for members in by_hash.values()])
  near, threshold = _near_pairs(images, distinct, np.random.default_rng(seed))
  return Duplicates(sorted(exact), sorted(oriented), near, threshold)


def _shrink(images: np.ndarray, indices: np.ndarray, side: int) -> np.ndarray:
  """Luma of some images, averaged over areas: float32 (n, side, side)."""
  side = min(side, images.shape[1])
  edges = np.linspace(0, images.shape[1], side + 1).astype(int)
  areas = np.float32(np.diff(edges)[:, None] * np.diff(edges))
  factors = np.array(colour.LUMA, np.float32)
  small = np.empty((len(indices), side, side), np.float32)
  for i in range(0, len(indices), _BATCH):
    luma = images[indices[i : i + _BATCH]].astype(np.float32) @ factors
    luma = np.add.reduceat(luma, edges[:-1], axis=1)
    small[i : i + _BATCH] = np.add.reduceat(luma, edges[:-1], axis=2) / areas
  return small


def _disc(side: int) -> np.ndarray:
  """What a turn leaves in the picture: bool, shape (side, side)."""
  at = np.arange(side) - (side - 1) / 2
  return at[:, None] ** 2 + at**2 <= (side / 2) ** 2


def _turned(images: np.ndarray, angle: float) -> np.ndarray:
  """Images, shape (..., side, side), turned by degrees."""
  if not angle:
    return images
  turned: np.ndarray = ndimage.rotate(
    images, angle, axes=(-2, -1), reshape=False, order=1, mode='nearest'
  )
  return turned


def _oriented(images: np.ndarray, orientation: int) -> np.ndarray:
  """Images, shape (..., side, side), mirrored from 4 on, and turned."""
  if orientation >= 4:
    images = images[..., ::-1]
  return np.rot90(images, orientation % 4, (-2, -1))


class _Thumbnails(NamedTuple):
  """Thumbnails as unit vectors, of which products are correlations.

  Attributes:
    upright: float32, shape (n, pixels).
    turned: by form, each float32, shape (n, pixels).
    forms: angle and orientation of each.
  """

  upright: np.ndarray
  turned: list[np.ndarray]
  forms: list[Form]

  def best_form(self, first: int, second: int) -> tuple[Form, float]:
    """How the first must be turned to look as the second; the correlation."""
    products = [form[first] @ self.upright[second] for form in self.turned]
    best = int(np.argmax(products))
    return self.forms[best], float(products[best])


def _thumbnails(small: np.ndarray) -> _Thumbnails:
  disc = _disc(small.shape[1])

  def unit(pictures: np.ndarray) -> np.ndarray:
    values = np.ascontiguousarray(pictures[:, disc])
    values -= values.mean(1, keepdims=True)
    return values / np.maximum(
      np.linalg.norm(values, axis=1, keepdims=True), 1e-6
    )

  angles = _ANGLES if len(small) <= _MANY_IMAGES else _UPRIGHT
  forms: list[Form] = [(a, o) for a in angles for o in range(_ORIENTATIONS)]
  turned = [
    unit(_oriented(rotated, orientation))
    for rotated in (_turned(small, angle) for angle in angles)
    for orientation in range(_ORIENTATIONS)
  ]
  for shift in _SHIFTS:
    moved = ndimage.shift(small, (0, *shift), order=0, mode='nearest')
    turned.append(unit(moved))
    forms.append((0, 0))
  return _Thumbnails(unit(small), turned, forms)


def _suggest(thumbnails: _Thumbnails) -> list[tuple[int, int]]:
  """The pairs whose thumbnails correlate most, each image's first few."""
  count = len(thumbnails.upright)
  pairs: list[tuple[int, int]] = []
  starts = range(0, count, _BLOCK)
  for first in progress.track(starts, 'Comparing images', len(starts)):
    block = slice(first, first + _BLOCK)
    # A form and its inverse are both tried: the upper half is all.
    below = thumbnails.upright[first:].T
    shape = (len(thumbnails.upright[block]), below.shape[1])
    best = np.full(shape, -1, np.float32)
    for form in thumbnails.turned:
      np.maximum(best, form[block] @ below, out=best)
    best[np.tril_indices(len(best))] = -1
    columns = min(_MOST_SUGGESTED, best.shape[1])
    top = np.argpartition(-best, columns - 1)[:, :columns]
    for row, column in np.argwhere(
      np.take_along_axis(best, top, 1) > _SUGGESTED
    ).tolist():
      pairs.append((first + row, first + int(top[row, column])))
  return sorted(pairs)


def _detail(image: np.ndarray) -> np.ndarray:
  """Fine detail of an image, shape (side, side)."""
  blurred = [ndimage.gaussian_filter(image, blur) for blur in _BLURS]
  return blurred[0] - blurred[1]


def _similarity(first: np.ndarray, second: np.ndarray, form: Form) -> float:
  """The correlation of two images' detail where they overlap, aligned.

  Args:
    first: float32, shape (side, side).
    second: likewise.
    form: how the first must be turned, roughly.

  Returns:
    The best of some angles, each at the shift that cross-correlation finds; nan
    where none overlaps enough.
  """
  side = len(first)
  disc = _disc(side)
  fixed = _detail(second) * disc
  spectrum = fft.rfft2(fixed)
  best = float('nan')
  for angle in _FINE_ANGLES:
    moved = _turned(first, form[0] + angle)
    moved = _detail(_oriented(moved, form[1])) * disc
    product = fft.irfft2(spectrum * fft.rfft2(moved).conj(), (side, side))
    peak = np.unravel_index(product.argmax(), product.shape)
    shift = [int((p + side // 2) % side) - side // 2 for p in peak]
    if max(map(abs, shift)) > _LARGEST_SHIFT * side:
      continue
    ours = tuple(slice(max(s, 0), side + min(s, 0)) for s in shift)
    theirs = tuple(slice(max(-s, 0), side + min(-s, 0)) for s in shift)
    shared = disc[ours] & disc[theirs]
    if shared.sum() < _LEAST_OVERLAP * disc.sum():
      continue
    values = np.stack([fixed[ours][shared], moved[theirs][shared]])
    values -= values.mean(1, keepdims=True)
    norms = np.linalg.norm(values, axis=1)
    correlation = values[0] @ values[1] / max(norms.prod(), 1e-6)
    best = float(np.fmax(best, correlation))
  return best


def _threshold(background: np.ndarray) -> float:
  """The least similarity of twins in a set, from that of random pairs.

  By median and median absolute deviation of Fisher's z.

  Args:
    background: similarities of random pairs that are no twins.

  Returns:
    The threshold; too few pairs don't move it.
  """
  values = np.arctanh(np.clip(background[~np.isnan(background)], -0.999, 0.999))
  if len(values) < _FEWEST_PAIRS:
    return _LEAST_CORRELATION
  deviation = stats.median_abs_deviation(values, scale='normal')
  stands_out = np.tanh(np.median(values) + _STANDS_OUT * deviation)
  return max(_LEAST_CORRELATION, float(stands_out))


def _near_pairs(
  images: np.ndarray, distinct: np.ndarray, rng: np.random.Generator
) -> tuple[list[Pair], float]:
  """Pairs of different images that are nearly equal, and the threshold."""
  if len(distinct) < 2:
    return [], _LEAST_CORRELATION
  thumbnails = _thumbnails(_shrink(images, distinct, _THUMBNAIL))
  larger = _shrink(images, distinct, _SIDE)

  def compare(pair: tuple[int, int]) -> float:
    first, second = pair
    form, _ = thumbnails.best_form(first, second)
    return _similarity(larger[first], larger[second], form)

  suggested = _suggest(thumbnails)
  # Of a small set many random pairs are twins: these tell nothing here.
  strangers: list[tuple[int, int]] = [
    (first, second)
    for first, second in rng.integers(
      len(distinct), size=(_RANDOM_PAIRS, 2)
    ).tolist()
    if first != second and thumbnails.best_form(first, second)[1] < _SUGGESTED
  ]
  jobs = [*strangers, *suggested]
  with concurrent.futures.ThreadPoolExecutor(parallel.cores()) as pool:
    compared = pool.map(compare, jobs)
    values = np.array(
      list(progress.track(compared, 'Aligning pairs', len(jobs)))
    )
  threshold = _threshold(values[: len(strangers)])
  near = [
    Pair(int(distinct[first]), int(distinct[second]), float(value))
    for (first, second), value in zip(
      suggested, values[len(strangers) :], strict=True
    )
    if value > threshold
  ]
  return near, threshold
