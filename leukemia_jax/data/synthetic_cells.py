"""The cells of a synthetic smear, painted in optical density.

A canvas is float32 of shape (side, side, 4): the optical density of R, G and B
and the mask of white cells. It has a margin of `WHITE_PATCH` px, so that cells
may be cut off by the edge of the image.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

WHITE_PATCH = 52
_RED_PATCH = 26


class Morphology(NamedTuple):
  """White-cell looks of one class (a row) or of all classes (arrays).

  Attributes:
    diameter: mean cell diameter, micrometres.
    variation: coefficient of variation of the diameter.
    nuclear_ratio: share of the cell's area that the nucleus fills.
    clumping: contrast of coarse chromatin, in optical density.
    granularity: contrast of fine chromatin, in optical density.
    cleft: depth of a notch in the nuclear outline, in nuclear radii.
    lobes: amplitude of the irregular outline, in nuclear radii.
    nucleoli: mean number of nucleoli, 0..3.
    nucleolus_size: diameter of a nucleolus, micrometres.
  """

  diameter: jax.typing.ArrayLike
  variation: jax.typing.ArrayLike
  nuclear_ratio: jax.typing.ArrayLike
  clumping: jax.typing.ArrayLike
  granularity: jax.typing.ArrayLike
  cleft: jax.typing.ArrayLike
  lobes: jax.typing.ArrayLike
  nucleoli: jax.typing.ArrayLike
  nucleolus_size: jax.typing.ArrayLike


@dataclasses.dataclass(frozen=True)
class SmearSpec:
  """What all fields share; lengths as in the published images.

  Attributes:
    size: side of the square image, px.
    pixels_per_micrometre: magnification; red cells are 7.5 um = 16 px wide.
    coverage: range of the share of the image that white cells cover.
    red_cells: range of the number of red cells in a 224 px field.
  """

  size: int = 224
  pixels_per_micrometre: float = 16 / 7.5
  coverage: tuple[float, float] = (0.05, 0.14)
  red_cells: tuple[int, int] = (45, 95)


class Slide(NamedTuple):
  """Stain and light of one patient's slide; see `prepare_slide`."""

  nucleus: jax.Array
  cytoplasm: jax.Array
  red: jax.Array
  light: jax.Array
  defocus: jax.Array


def smooth(image: jax.Array, deviation: jax.Array | float) -> jax.Array:
  """Gaussian blur of the two leading axes; support of 4 px to either side."""
  taps = jnp.arange(-4, 5)
  kernel = jnp.exp(-0.5 * jnp.square(taps / jnp.maximum(deviation, 0.05)))
  kernel = kernel / kernel.sum()
  for axis in (0, 1):
    size = image.shape[axis]
    widths = [(4, 4) if a == axis else (0, 0) for a in range(image.ndim)]
    padded = jnp.pad(image, widths, mode='edge')
    shifted = (
      kernel[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
      for i in range(9)
    )
    image = functools.reduce(jnp.add, shifted)
  return image


def _polar(patch: int, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Distance (px) and angle of a patch's pixels from a point in it."""
  y = jnp.arange(patch)[:, None] - centre[0]
  x = jnp.arange(patch)[None, :] - centre[1]
  return jnp.sqrt(x * x + y * y + 1e-6), jnp.arctan2(y, x)


def _disc(distance: jax.Array, radius: jax.Array) -> jax.Array:
  """1 inside, 0 outside, with an edge a pixel and a half wide."""
  return jax.nn.sigmoid((radius - distance) / 0.45)


def _stained(amount: jax.Array, stain: jax.Array) -> jax.Array:
  """Optical density of R, G and B where `amount` of a stain lies."""
  return amount[..., None] * stain[None, None]


def _outline(
  key: jax.Array, angle: jax.Array, amplitude: jax.typing.ArrayLike
) -> jax.Array:
  """A closed outline around 1: three random harmonics."""
  phase, weight = jax.random.uniform(key, (2, 3))
  outline = jnp.ones_like(angle)
  for i, harmonic in enumerate((2, 3, 5)):
    wave = jnp.cos(harmonic * angle + 2 * jnp.pi * phase[i])
    outline += amplitude * (0.4 + weight[i]) * wave
  return outline


def _edit(canvas: jax.Array, centre: jax.Array, patch: int, paint) -> jax.Array:
  """Applies `paint(patch, centre in patch)` around a point of a canvas.

  The canvas has a margin of `WHITE_PATCH` px, so that cells may be cut off by
  the edge of the image.
  """
  corner = jnp.floor(centre).astype(jnp.int32) - patch // 2
  start = (*(corner + WHITE_PATCH), 0)
  old = jax.lax.dynamic_slice(canvas, start, (patch, patch, canvas.shape[2]))
  new = paint(old, centre - corner)
  return jax.lax.dynamic_update_slice(canvas, new, start)


def paint_red(key: jax.Array, canvas: jax.Array, slide: Slide, spec: SmearSpec):
  """Adds a red cell: a disc with central pallor, a little oval."""
  keys = jax.random.split(key, 4)
  centre = jax.random.uniform(keys[0], (2,), maxval=spec.size)
  size = 1 + 0.07 * jax.random.truncated_normal(keys[1], -2, 2)
  radius = 3.75 * spec.pixels_per_micrometre * size
  pallor = jax.random.uniform(keys[2], minval=0.25, maxval=0.7)

  def paint(old: jax.Array, middle: jax.Array) -> jax.Array:
    distance, angle = _polar(_RED_PATCH, middle)
    edge = radius * _outline(keys[3], angle, 0.025)
    depth = 1 - pallor * jnp.exp(-jnp.square(distance / (0.5 * radius)))
    density = _stained(_disc(distance, edge) * depth, slide.red)
    return old.at[..., :3].add(density)

  return _edit(canvas, centre, _RED_PATCH, paint)


def paint_platelet(key, canvas, slide: Slide, spec: SmearSpec) -> jax.Array:
  """Adds a platelet: a small granular purple speck."""
  keys = jax.random.split(key, 3)
  centre = jax.random.uniform(keys[0], (2,), maxval=spec.size)
  radius = jax.random.uniform(keys[1], minval=0.8, maxval=1.5)
  radius = radius * spec.pixels_per_micrometre

  def paint(old: jax.Array, middle: jax.Array) -> jax.Array:
    distance, angle = _polar(_RED_PATCH, middle)
    edge = radius * _outline(keys[2], angle, 0.12)
    density = _stained(0.55 * _disc(distance, edge), slide.nucleus)
    return old.at[..., :3].add(density)

  return _edit(canvas, centre, _RED_PATCH, paint)


def paint_smudge(key, canvas, slide: Slide, spec: SmearSpec) -> jax.Array:
  """Adds a smudge cell: a burst nucleus, pale, without an outline."""
  keys = jax.random.split(key, 3)
  centre = jax.random.uniform(keys[0], (2,), maxval=spec.size)
  radius = jax.random.uniform(keys[1], minval=3.5, maxval=5.5)
  radius = radius * spec.pixels_per_micrometre

  def paint(old: jax.Array, middle: jax.Array) -> jax.Array:
    distance, angle = _polar(WHITE_PATCH, middle)
    edge = radius * _outline(keys[2], angle, 0.2)
    density = 0.45 * jax.nn.sigmoid((edge - distance) / 2.5)
    return old.at[..., :3].add(_stained(density, slide.nucleus))

  return _edit(canvas, centre, WHITE_PATCH, paint)


def _nucleus(key, middle, radius, look: Morphology, grain, clumps, scale):
  """Shape (0..1) and stain (mean 1) of a nucleus in a patch."""
  keys = jax.random.split(key, 6)
  distance, angle = _polar(WHITE_PATCH, middle)
  notch = jax.random.uniform(keys[0], maxval=2 * jnp.pi)
  away = jnp.abs(jnp.mod(angle - notch + jnp.pi, 2 * jnp.pi) - jnp.pi)
  edge = _outline(keys[1], angle, look.lobes)
  edge -= look.cleft * jnp.exp(-jnp.square(away / 0.38))
  edge = edge / jnp.sqrt(jnp.mean(jnp.square(edge)))
  shape = _disc(distance, radius * edge)
  stain = 1 + look.clumping * clumps + look.granularity * grain
  count = jnp.clip(look.nucleoli + jax.random.uniform(keys[2]) - 0.5, 0, 3)
  for i in range(3):
    turn = 2 * jnp.pi * (i / 3 + jax.random.uniform(keys[3], (3,))[i] / 6)
    reach = radius * (0.3 + 0.25 * jax.random.uniform(keys[4], (3,))[i])
    spot = middle + reach * jnp.array([jnp.sin(turn), jnp.cos(turn)])
    size = 0.5 * look.nucleolus_size * scale
    inside = _disc(_polar(WHITE_PATCH, spot)[0], size)
    stain -= jnp.where(jnp.round(count) > i, 0.62, 0.0) * inside
  return shape, jnp.maximum(stain, 0.1)


def paint_white(key, canvas, noise, slide, spec, look, centre, radius):
  """Covers what lies below by a white cell and marks it in the mask."""
  keys = jax.random.split(key, 3)
  scale = spec.pixels_per_micrometre
  nuclear = radius * jnp.sqrt(look.nuclear_ratio)
  corner = jnp.floor(centre).astype(jnp.int32) - WHITE_PATCH // 2 + WHITE_PATCH
  grain, clumps = jnp.moveaxis(
    jax.lax.dynamic_slice(
      noise, (corner[0], corner[1], 0), (WHITE_PATCH, WHITE_PATCH, 2)
    ),
    -1,
    0,
  )

  def paint(old: jax.Array, middle: jax.Array) -> jax.Array:
    distance, angle = _polar(WHITE_PATCH, middle)
    cell = _disc(distance, radius * _outline(keys[0], angle, 0.025))
    shift = jax.random.uniform(keys[1], (2,), minval=-1.0) * (radius - nuclear)
    shape, stain = _nucleus(
      keys[2], middle + 0.6 * shift, nuclear, look, grain, clumps, scale
    )
    shape = shape * cell
    amount = shape * stain + 0.35 * (cell - shape)
    # Every class holds the same mean stain in a cell's area: an open nucleus
    # spreads what a condensed one packs, and colour gives no class away.
    level = 0.8 * cell.sum() / jnp.maximum(amount.sum(), 1.0)
    density = _stained(level * shape * stain, slide.nucleus)
    density += _stained(level * (cell - shape), slide.cytoplasm)
    below = old[..., :3] * (1 - cell[..., None])
    mask = jnp.maximum(old[..., 3:], (cell > 0.5)[..., None])
    return jnp.concatenate([below + density, mask], -1)

  return _edit(canvas, centre, WHITE_PATCH, paint)
