"""The JPEG round trip against Pillow's libjpeg-turbo, bit for bit."""

import io

import jax
import numpy as np
import pytest
from PIL import Image, features

from leukemia_jax.transforms import jpeg

round_trip = jax.jit(jpeg.round_trip)


def reference(image: np.ndarray, quality: int) -> np.ndarray:
  """Pillow's round trip, with its default 4:2:0."""
  stream = io.BytesIO()
  Image.fromarray(image).save(stream, 'JPEG', quality=quality)
  return np.asarray(Image.open(stream))


def test_pillow_uses_libjpeg_turbo():
  assert features.check('libjpeg_turbo')


@pytest.mark.parametrize('quality', range(1, 101))
def test_smear_at_every_quality(smear, quality):
  # One size that blocks of 16 fill, and one that they don't.
  for image in (smear, np.ascontiguousarray(smear[:213, 5:])):
    expected = reference(image, quality)
    np.testing.assert_array_equal(round_trip(image, quality), expected)


@pytest.mark.parametrize('shape', [(37, 53), (17, 6), (16, 5), (9, 4), (1, 1)])
@pytest.mark.parametrize('kind', ['noise', 'extremes'])
def test_odd_sizes_and_hard_content(shape, kind):
  image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
  if kind == 'extremes':
    image = np.where(image > 127, 255, 0).astype(np.uint8)
  for quality in (1, 10, 24, 25, 49, 50, 51, 75, 90, 95, 99, 100):
    expected = reference(image, quality)
    np.testing.assert_array_equal(round_trip(image, quality), expected)


def test_division_is_exact():
  value, step = np.arange(2**15), 8 * np.arange(1, 256)[:, None]
  divided = jax.jit(jax.vmap(jpeg._divided, (None, 0)))(value, step)
  np.testing.assert_array_equal(divided, value // step)


def test_quantisation_tables_are_libjpegs():
  image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
  # The file holds them along the diagonals (ITU-T T.81, figure 5).
  order = sorted(
    ((i, j) for i in range(8) for j in range(8)),
    key=lambda p: (sum(p), p[0] if sum(p) % 2 else p[1]),
  )
  for quality in (1, 33, 50, 80, 100):
    stream = io.BytesIO()
    image.save(stream, 'JPEG', quality=quality)
    ours = jpeg.quantisation_tables(quality)
    theirs = Image.open(stream).quantization
    for table, saved in zip(ours, (theirs[0], theirs[1]), strict=True):
      zigzag = [int(table[place]) for place in order]
      # Pillow gives the table in natural or in zigzag order by version.
      assert list(saved) in (zigzag, np.asarray(table).ravel().tolist())


@pytest.mark.full
def test_vmap_is_a_loop(smear):
  images = np.stack([smear[:48, :48], smear[50:98, 60:108]])
  qualities = np.array([55, 90])
  batch = jax.jit(jax.vmap(jpeg.round_trip))(images, qualities)
  for image, quality, got in zip(images, qualities, batch, strict=True):
    np.testing.assert_array_equal(got, jpeg.round_trip(image, quality))


@pytest.mark.parametrize(
  'image',
  [
    np.zeros((8, 8, 3), np.float32),
    np.zeros((8, 8), np.uint8),
    np.zeros((8, 8, 4), np.uint8),
  ],
)
def test_refuses_other_arrays(image):
  with pytest.raises(ValueError, match='uint8 image of shape'):
    jpeg.round_trip(image, 50)
