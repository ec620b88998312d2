"""Synthetic blood smears: a pure function of a key renders a labelled field.

The fields stand in for photographs of marrow smears wherever the project may
not or need not use real ones: its default data, its tests, its pictures. Light
is absorbed as in a stained smear (Beer-Lambert): every object adds optical
density, so red cells that overlap darken each other, and white cells cover
what lies below.

The four classes differ by the morphology of their white cells alone, never by
stain, light or the share of the image that white cells cover. Their names are
the study's; their looks are textbook descriptions, sharpened so that a small
network can learn them:

* hematogones: small, round, almost no cytoplasm, condensed structureless
  chromatin, no nucleoli, sizes that vary as cells mature (McKenna et al.,
  Blood 98:2498, 2001; Rimsza et al., Am J Clin Pathol 114:66, 2000);
* Early Pre-B: the "L1" look: uniform small blasts, high nuclear-cytoplasmic
  ratio, fine chromatin, a cleft nucleus, at most one small nucleolus;
* Pre-B: the "L2" look: blasts of uneven size, more cytoplasm, coarse clumped
  chromatin, an irregular nuclear outline (both: Bennett et al., Br J Haematol
  33:451, 1976);
* Pro-B: large uniform blasts with open chromatin and prominent nucleoli (Bain,
  Leukaemia Diagnosis, 5th ed., 2017).

Real B-ALL subtypes are told apart by immunophenotype, not by eye: an accuracy
on these images says that a pipeline works, nothing about leukaemia.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

CLASSES = ('Benign', 'Early', 'Pre', 'Pro')
# The study's table: images and patients of each class.
STUDY_IMAGES = (504, 985, 963, 804)
STUDY_PATIENTS = (25, 20, 21, 23)

_MAX_WHITE = 36  # white cells sit on a 6 x 6 grid of sites, moved at random
_WHITE_PATCH = 52
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


MORPHOLOGY = Morphology(
  *(
    np.array(row, np.float32)
    for row in (
      #  Benign, Early, Pre, Pro
      (8.2, 10.2, 11.6, 13.2),
      (0.16, 0.05, 0.20, 0.06),
      (0.94, 0.80, 0.50, 0.74),
      (0.00, 0.00, 0.50, 0.00),
      (0.02, 0.08, 0.10, 0.08),
      (0.00, 0.90, 0.10, 0.00),
      (0.02, 0.03, 0.17, 0.03),
      (0.0, 0.3, 0.6, 2.6),
      (1.0, 1.4, 1.6, 2.4),
    )
  )
)


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


def cast(scale: float) -> tuple[np.ndarray, np.ndarray]:
  """Labels and patient numbers of a whole set, after the study's table.

  Args:
    scale: factor on the study's 3,256 images and 89 patients.

  Returns:
    Two int32 arrays of one entry an image: the class index, and the patient's
    number, unique over all classes. A class has three patients or more, and
    its images are dealt evenly to them.
  """
  labels, patients, first = [], [], 0
  for label, (images, people) in enumerate(
    zip(STUDY_IMAGES, STUDY_PATIENTS, strict=True)
  ):
    images = max(1, round(images * scale))
    # Three, so that a small set too has new patients in every part.
    people = min(images, max(3, round(people * scale)))
    labels += [label] * images
    patients += [first + i * people // images for i in range(images)]
    first += people
  return np.array(labels, np.int32), np.array(patients, np.int32)


def prepare_slide(key: jax.Array) -> Slide:
  """Draws stain and light of one slide, from one distribution for all classes.

  Args:
    key: PRNG key of the patient.

  Returns:
    Optical densities for R, G and B of nucleus, cytoplasm and red cells, the
    light (0..255) and the width of the defocus (px).
  """
  return _vary_slide(
    key,
    Slide(
      # Densities of the published images: ground (239, 247, 241), red cells
      # (170, 182, 218), white cells (155, 128, 245) on average.
      nucleus=jnp.array([0.62, 0.95, 0.07]),
      cytoplasm=jnp.array([0.23, 0.31, 0.03]),
      red=jnp.array([0.34, 0.30, 0.10]),
      light=jnp.array([239.0, 247.0, 241.0]),
      defocus=jnp.float32(0.55),
    ),
    0.7,
  )


def _vary_slide(key: jax.Array, slide: Slide, amount: float) -> Slide:
  """Moves every density and the light a little, log-normally."""
  keys = jax.random.split(key, 6)

  def draw(key: jax.Array, shape: tuple[int, ...], deviation: float):
    return jnp.exp(amount * deviation * jax.random.normal(key, shape))

  strength = draw(keys[0], (), 0.12)
  return Slide(
    nucleus=slide.nucleus * strength * draw(keys[1], (3,), 0.09),
    cytoplasm=slide.cytoplasm * strength * draw(keys[2], (3,), 0.09),
    red=slide.red * draw(keys[3], (3,), 0.1),
    light=jnp.minimum(slide.light * draw(keys[4], (3,), 0.02), 252.0),
    defocus=slide.defocus * draw(keys[5], (), 0.2),
  )


def _smooth(image: jax.Array, deviation: jax.Array | float) -> jax.Array:
  """Gaussian blur of the two leading axes; support of 4 px to either side."""
  taps = jnp.arange(-4, 5)
  weights = jnp.exp(-0.5 * jnp.square(taps / jnp.maximum(deviation, 0.05)))
  weights = weights / weights.sum()
  for axis in (0, 1):
    size = image.shape[axis]
    widths = [(4, 4) if a == axis else (0, 0) for a in range(image.ndim)]
    padded = jnp.pad(image, widths, mode='edge')
    shifted = (
      weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
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

  The canvas has a margin of `_WHITE_PATCH` px, so that cells may be cut off by
  the edge of the image.
  """
  corner = jnp.floor(centre).astype(jnp.int32) - patch // 2
  start = (*(corner + _WHITE_PATCH), 0)
  old = jax.lax.dynamic_slice(canvas, start, (patch, patch, canvas.shape[2]))
  new = paint(old, centre - corner)
  return jax.lax.dynamic_update_slice(canvas, new, start)


def _paint_red(
  key: jax.Array, canvas: jax.Array, slide: Slide, spec: SmearSpec
):
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


def _paint_platelet(key, canvas, slide: Slide, spec: SmearSpec) -> jax.Array:
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


def _paint_smudge(key, canvas, slide: Slide, spec: SmearSpec) -> jax.Array:
  """Adds a smudge cell: a burst nucleus, pale, without an outline."""
  keys = jax.random.split(key, 3)
  centre = jax.random.uniform(keys[0], (2,), maxval=spec.size)
  radius = jax.random.uniform(keys[1], minval=3.5, maxval=5.5)
  radius = radius * spec.pixels_per_micrometre

  def paint(old: jax.Array, middle: jax.Array) -> jax.Array:
    distance, angle = _polar(_WHITE_PATCH, middle)
    edge = radius * _outline(keys[2], angle, 0.2)
    density = 0.45 * jax.nn.sigmoid((edge - distance) / 2.5)
    return old.at[..., :3].add(_stained(density, slide.nucleus))

  return _edit(canvas, centre, _WHITE_PATCH, paint)


def _nucleus(key, middle, radius, look: Morphology, grain, clumps, scale):
  """Shape (0..1) and stain (mean 1) of a nucleus in a patch."""
  keys = jax.random.split(key, 6)
  distance, angle = _polar(_WHITE_PATCH, middle)
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
    inside = _disc(_polar(_WHITE_PATCH, spot)[0], size)
    stain -= jnp.where(jnp.round(count) > i, 0.62, 0.0) * inside
  return shape, jnp.maximum(stain, 0.1)


def _paint_white(key, canvas, noise, slide, spec, look, centre, radius):
  """Covers what lies below by a white cell and marks it in the mask."""
  keys = jax.random.split(key, 3)
  scale = spec.pixels_per_micrometre
  nuclear = radius * jnp.sqrt(look.nuclear_ratio)
  corner = (
    jnp.floor(centre).astype(jnp.int32) - _WHITE_PATCH // 2 + _WHITE_PATCH
  )
  grain, clumps = jnp.moveaxis(
    jax.lax.dynamic_slice(
      noise, (corner[0], corner[1], 0), (_WHITE_PATCH, _WHITE_PATCH, 2)
    ),
    -1,
    0,
  )

  def paint(old: jax.Array, middle: jax.Array) -> jax.Array:
    distance, angle = _polar(_WHITE_PATCH, middle)
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

  return _edit(canvas, centre, _WHITE_PATCH, paint)


def _place_white(key, look: Morphology, spec: SmearSpec):
  """Centres, radii (px) and number of white cells for a drawn coverage."""
  keys = jax.random.split(key, 4)
  low, high = spec.coverage
  coverage = jax.random.uniform(keys[0], minval=low, maxval=high)
  spread = jax.random.truncated_normal(keys[1], -2, 2, (_MAX_WHITE,))
  radius = 0.5 * look.diameter * (1 + look.variation * spread)
  radius = radius * spec.pixels_per_micrometre
  area = jnp.cumsum(jnp.pi * jnp.square(radius))
  wanted = coverage * spec.size**2
  count = jnp.clip(jnp.sum(area < wanted) + 1, 1, _MAX_WHITE)
  # The last cell would overshoot by more in classes of larger cells: bring
  # the sum to what was drawn, alike in every class.
  radius = radius * jnp.sqrt(wanted / area[count - 1])
  site = jax.random.permutation(keys[2], _MAX_WHITE)
  pitch = spec.size / 6
  corner = jnp.stack([site // 6, site % 6], -1) * pitch
  room = jnp.maximum(pitch - 2 * radius, 0.0)[:, None]
  move = jax.random.uniform(keys[3], (_MAX_WHITE, 2), minval=-0.5, maxval=0.5)
  return corner + 0.5 * pitch + move * room, radius, count


def _expose(key, density, slide: Slide, spec: SmearSpec) -> jax.Array:
  """Light through the smear: uneven light, defocus, sensor noise, uint8."""
  keys = jax.random.split(key, 2)
  axis = jnp.linspace(-1, 1, spec.size)
  slope = 0.03 * jax.random.normal(keys[0], (3,))
  field = 1 + slope[0] * axis[:, None] + slope[1] * axis[None, :]
  bowl = jnp.square(axis[:, None]) + jnp.square(axis[None, :])
  field -= jnp.abs(slope[2]) * bowl
  image = jnp.exp(-_smooth(density, slide.defocus))
  image = image * slide.light[None, None]
  image = image * field[..., None]
  image += 2.0 * jax.random.normal(keys[1], image.shape)
  return jnp.clip(jnp.round(image), 0, 255).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames='spec')
def render(
  key: jax.Array, slide: Slide, label: jax.Array, *, spec: SmearSpec
) -> tuple[jax.Array, jax.Array]:
  """Renders one field.

  Args:
    key: PRNG key of the image.
    slide: the patient's slide, from `prepare_slide`.
    label: int32 scalar, an index into `CLASSES`.
    spec: what all fields share.

  Returns:
    The image, uint8 (size, size, 3), and the exact mask of its intact white
    cells, uint8 (size, size), 0 or 1. Smudge cells are not in the mask.
  """
  keys = jax.random.split(key, 10)
  look = Morphology(*(jnp.asarray(row)[label] for row in MORPHOLOGY))
  slide = _vary_slide(keys[0], slide, 1.0)
  side = spec.size + 2 * _WHITE_PATCH
  canvas = jnp.zeros((side, side, 4))
  share = (spec.size / 224) ** 2

  def several(key: jax.Array, low: float, high: float) -> jax.Array:
    count = jax.random.uniform(key, minval=low, maxval=high + 1)
    return jnp.floor(count * share).astype(jnp.int32)

  def scatter(key: jax.Array, count: jax.Array, canvas: jax.Array, paint):
    def body(i: jax.Array, canvas: jax.Array) -> jax.Array:
      return paint(jax.random.fold_in(key, i), canvas, slide, spec)

    return jax.lax.fori_loop(0, count, body, canvas)

  canvas = scatter(
    keys[1], several(keys[2], *spec.red_cells), canvas, _paint_red
  )
  canvas = scatter(keys[3], several(keys[4], 2, 9), canvas, _paint_platelet)
  canvas = scatter(keys[5], several(keys[6], 0, 2), canvas, _paint_smudge)

  white = jax.random.normal(keys[7], (side, side, 2))
  fine, coarse = _smooth(white[..., 0], 0.8), _smooth(white[..., 1], 1.7)
  noise = jnp.stack([fine / fine.std(), coarse / coarse.std()], -1)
  centres, radii, count = _place_white(keys[8], look, spec)
  cell_key, light_key = jax.random.split(keys[9])

  def body(i: jax.Array, canvas: jax.Array) -> jax.Array:
    key = jax.random.fold_in(cell_key, i)
    return _paint_white(
      key, canvas, noise, slide, spec, look, centres[i], radii[i]
    )

  canvas = jax.lax.fori_loop(0, count, body, canvas)
  inner = canvas[_WHITE_PATCH:-_WHITE_PATCH, _WHITE_PATCH:-_WHITE_PATCH]
  image = _expose(light_key, inner[..., :3], slide, spec)
  return image, inner[..., 3].astype(jnp.uint8)


def render_image(
  key: jax.Array, index: int, label: int, patient: int, *, spec: SmearSpec
) -> tuple[np.ndarray, np.ndarray]:
  """Renders image `index` of a set: a function of the set's key alone.

  Args:
    key: PRNG key of the whole set.
    index: the image's number in the set.
    label: its class, an index into `CLASSES`.
    patient: its patient's number.
    spec: what all fields share.

  Returns:
    Image and mask as in `render`, as NumPy arrays.
  """
  image_key, patient_key = jax.random.split(key)
  image, mask = render(
    jax.random.fold_in(image_key, index),
    prepare_slide(jax.random.fold_in(patient_key, patient)),
    label,
    spec=spec,
  )
  return np.asarray(image), np.asarray(mask)
