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

import functools

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax.data.synthetic_cells import (
  WHITE_PATCH,
  Morphology,
  Slide,
  SmearSpec,
  paint_platelet,
  paint_red,
  paint_smudge,
  paint_white,
  smooth,
)

CLASSES = ('Benign', 'Early', 'Pre', 'Pro')
# The study's table: images and patients of each class.
STUDY_IMAGES = (504, 985, 963, 804)
STUDY_PATIENTS = (25, 20, 21, 23)
_MAX_WHITE = 36  # white cells sit on a 6 x 6 grid of sites, moved at random
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


def assign_patients(scale: float) -> tuple[np.ndarray, np.ndarray]:
  """Labels and patient numbers of a whole set, after the study's table.

  Args:
    scale: factor on the study's 3,256 images and 89 patients.

  Returns:
    Two int32 arrays of one entry an image: the class index, and the patient's
    number, unique over all classes. A class has three patients or
    more, or one an image, and its images are spread evenly over them.
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
      # Densities of the published images: background (239, 247, 241), red cells
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
  # the sum to what was drawn, in every class the same way.
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
  image = jnp.exp(-smooth(density, slide.defocus))
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
  side = spec.size + 2 * WHITE_PATCH
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
    keys[1], several(keys[2], *spec.red_cells), canvas, paint_red
  )
  canvas = scatter(keys[3], several(keys[4], 2, 9), canvas, paint_platelet)
  canvas = scatter(keys[5], several(keys[6], 0, 2), canvas, paint_smudge)

  white = jax.random.normal(keys[7], (side, side, 2))
  fine, coarse = smooth(white[..., 0], 0.8), smooth(white[..., 1], 1.7)
  noise = jnp.stack([fine / fine.std(), coarse / coarse.std()], -1)
  centres, radii, count = _place_white(keys[8], look, spec)
  cell_key, light_key = jax.random.split(keys[9])

  def body(i: jax.Array, canvas: jax.Array) -> jax.Array:
    key = jax.random.fold_in(cell_key, i)
    return paint_white(
      key, canvas, noise, slide, spec, look, centres[i], radii[i]
    )

  canvas = jax.lax.fori_loop(0, count, body, canvas)
  inner = canvas[WHITE_PATCH:-WHITE_PATCH, WHITE_PATCH:-WHITE_PATCH]
  image = _expose(light_key, inner[..., :3], slide, spec)
  return image, inner[..., 3].astype(jnp.uint8)


def cell_centres(
  key: jax.Array, index: int, label: int, *, spec: SmearSpec
) -> np.ndarray:
  """Where `render_image` puts the white cells of an image.

  Args:
    key: PRNG key of the whole set.
    index: the image's number in the set.
    label: its class, an index into `CLASSES`.
    spec: what all fields share.

  Returns:
    float32, shape (cells, 2): rows and columns, px.
  """
  image_key, _ = jax.random.split(key)
  # The ninth of the keys of `render`.
  place_key = jax.random.split(jax.random.fold_in(image_key, index), 10)[8]
  look = Morphology(*(jnp.asarray(row)[label] for row in MORPHOLOGY))
  centres, _, count = _place_white(place_key, look, spec)
  return np.asarray(centres)[: int(count)]


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
