"""Simple properties of images: what a shortcut could tell the class by.

Each maps uint8 images to a few numbers an image, in one compiled pass; none
looks at the shape of a cell.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import progress
from leukemia_jax.transforms import colour

_BATCH = 16
# Optical density (log 10) of green above that of the background: of anything
# stained, and of nuclei.
_STAINED, _NUCLEUS = 0.08, 0.2
# Of blue, which stained cells hardly absorb: of ink.
_INK = 0.2
# A scale bar's place: height and width as shares of a published image's side.
_PATCH = (24 / 224, 40 / 224)
# Sides that patches and thumbnails are averaged to.
_PATCH_SHAPE, _THUMBNAIL_SHAPE = (6, 10), (4, 4)
# Sharpness is that of images reduced by these, away from nuclei by so many px.
_REDUCED, _MARGIN = (1, 2), 2


class Region(NamedTuple):
  """A part of the image: top, left, bottom, right as shares of its sides."""

  top: float
  left: float
  bottom: float
  right: float


class Property(NamedTuple):
  """Something that an image's label could be read from.

  Attributes:
    name: in audit.json.
    title: in pages.
    looks_at: 'image', 'background', 'cells', 'edges', 'grid', 'corner' or
      'centre'.
    measure: maps uint8 images, shape (n, size, size, 3), to float32, (n, k).
    region: where a patch lies.
  """

  name: str
  title: str
  looks_at: str
  measure: Callable[[jax.Array], jax.Array]
  region: Region | None = None


def _mean_over(mask: jax.Array, images: jax.Array) -> jax.Array:
  return jax.vmap(colour.mean_over)(mask, images)


def _density(images: jax.Array) -> jax.Array:
  return jax.vmap(colour.density)(images)


def _colour(images: jax.Array) -> jax.Array:
  values = images.astype(jnp.float32)
  return jnp.concatenate([values.mean((1, 2)), values.std((1, 2))], -1)


def _cell_colour(images: jax.Array) -> jax.Array:
  """Mean density of stained pixels: their colour on a white background."""
  density = _density(images)
  return _mean_over(density[..., 1] > _STAINED, density)


def _cell_amount(images: jax.Array) -> jax.Array:
  stained = _density(images)[..., 1] > _STAINED
  return stained.mean((1, 2))[:, None]


def _reduce(images: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """Images, shape (n, height, width, channels), averaged to a smaller shape."""
  target = (images.shape[0], *shape, images.shape[-1])
  return jax.image.resize(images, target, 'linear', antialias=True)


def _patch(region: Region, images: jax.Array) -> jax.Array:
  """Density of what is drawn or printed into a patch; cells are left out."""
  side = images.shape[1]
  top, left = (math.floor(edge * side) for edge in region[:2])
  bottom, right = (math.ceil(edge * side) for edge in region[2:])
  density = _density(images)[:, top:bottom, left:right]
  ink = jnp.where(density[..., 2:] > _INK, density, 0)
  return _reduce(ink, _PATCH_SHAPE).reshape(len(images), -1)


def _thumbnail(images: jax.Array) -> jax.Array:
  small = _reduce(images.astype(jnp.float32), _THUMBNAIL_SHAPE)
  return small.reshape(len(images), -1)


def laplacian(planes: jax.Array) -> jax.Array:
  """How much each inner pixel differs from its four neighbours.

  Args:
    planes: float, shape (n, height, width).

  Returns:
    float, shape (n, height - 2, width - 2).
  """
  bend = 4 * planes[:, 1:-1, 1:-1]
  bend -= planes[:, :-2, 1:-1] + planes[:, 2:, 1:-1]
  return bend - (planes[:, 1:-1, :-2] + planes[:, 1:-1, 2:])


def _near(marked: jax.Array, axis: int) -> jax.Array:
  """What is marked, or lies within the margin of it along an axis."""
  padding = [(0, 0)] * marked.ndim
  padding[axis] = (_MARGIN, _MARGIN)
  padded, side = jnp.pad(marked, padding), marked.shape[axis]
  shifted = [
    jax.lax.slice_in_dim(padded, shift, shift + side, axis=axis)
    for shift in range(2 * _MARGIN + 1)
  ]
  return functools.reduce(jnp.logical_or, shifted)


def _sharpness(images: jax.Array) -> jax.Array:
  """Energy of the Laplacian away from nuclei, whose texture is no property."""
  features = []
  for factor in _REDUCED:
    side = max(3, images.shape[1] // factor)
    small = _reduce(images.astype(jnp.float32), (side, side))
    nucleus = _density(small)[..., 1] >= _NUCLEUS
    clear = ~_near(_near(nucleus, axis=1), axis=2)[:, 1:-1, 1:-1]
    bend = laplacian(colour.luma(small))
    energy = jnp.square(bend * clear).sum((1, 2)) / (clear.sum((1, 2)) + 1)
    features.append(jnp.log(energy + 1e-3))
  return jnp.stack(features, -1)


def _patches() -> list[Property]:
  """The four corners, where scale bars lie, and the centre beside them."""
  height, width = _PATCH
  middle = Region(
    *(0.5 - height / 2, 0.5 - width / 2, 0.5 + height / 2, 0.5 + width / 2)
  )
  places = {
    'corner_top_left': Region(0, 0, height, width),
    'corner_top_right': Region(0, 1 - width, height, 1),
    'corner_bottom_left': Region(1 - height, 0, 1, width),
    'corner_bottom_right': Region(1 - height, 1 - width, 1, 1),
    'centre': middle,
  }
  return [
    Property(
      name,
      name.replace('_', ' '),
      'centre' if name == 'centre' else 'corner',
      functools.partial(_patch, place),
      place,
    )
    for name, place in places.items()
  ]


OF_PIXELS: tuple[Property, ...] = (
  Property('colour', 'colour of the image', 'image', _colour),
  Property(
    'background_colour',
    'colour of the background',
    'background',
    jax.vmap(colour.background_colour),
  ),
  Property(
    'cell_colour', 'colour of cells, white-balanced', 'cells', _cell_colour
  ),
  Property('cell_amount', 'amount of cells', 'cells', _cell_amount),
  *_patches(),
  Property('thumbnail', 'thumbnail of 4 x 4 px', 'grid', _thumbnail),
  Property('sharpness', 'sharpness', 'edges', _sharpness),
)


# Colours of cells, taken together, tell how much of a cell its nucleus is: that
# is no shortcut. What is no cell is one.
OUTSIDE_CELLS = tuple(
  own.name
  for own in OF_PIXELS
  if own.looks_at in ('background', 'edges', 'corner')
)


OF_CELLS = tuple(own.name for own in OF_PIXELS if own.looks_at == 'cells')


@jax.jit
def _measure(images: jax.Array) -> list[jax.Array]:
  return [own.measure(images) for own in OF_PIXELS]


def measure(images: jax.Array) -> dict[str, np.ndarray]:
  """Measures every property of `OF_PIXELS`.

  Args:
    images: uint8, shape (n, size, size, 3).

  Returns:
    float32 arrays, shape (n, k), by name.
  """
  # One shape for all batches: the last is filled up.
  count = len(images)
  filled = np.resize(np.arange(count), math.ceil(count / _BATCH) * _BATCH)
  batches = filled.reshape(-1, _BATCH)
  parts = [
    _measure(images[i])
    for i in progress.track(batches, 'Measuring properties', len(batches))
  ]
  return {
    own.name: np.concatenate([np.asarray(part[i]) for part in parts])[:count]
    for i, own in enumerate(OF_PIXELS)
  }
