"""Edits of images before they are predicted."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from leukemia_jax.serving import edits
from leukemia_jax.serving.edits import Edits

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def edited(**fields) -> np.ndarray:
  return np.asarray(edits.apply(Edits(**fields), Image.fromarray(PIXELS)))


def test_nothing_is_done_if_nothing_is_asked():
  np.testing.assert_array_equal(edited(), PIXELS)
  assert edits.parse({}, 0.5) == Edits(scale=0.5)


def test_turns_and_mirrors_are_numpys():
  np.testing.assert_array_equal(edited(rotation=90), np.rot90(PIXELS))
  np.testing.assert_array_equal(edited(rotation=-90), np.rot90(PIXELS, -1))
  np.testing.assert_array_equal(edited(rotation=180), np.rot90(PIXELS, 2))
  np.testing.assert_array_equal(edited(mirror=1), PIXELS[:, ::-1])
  np.testing.assert_array_equal(edited(flip=1), PIXELS[::-1])


def test_a_turned_image_keeps_its_size_and_its_cells_theirs():
  image = Image.new('RGB', (101, 81), 'white')
  ImageDraw.Draw(image).ellipse((35, 25, 65, 55), 'black')
  size = 0
  for rotation, expected in (
    (0, image.size),
    (15, image.size),
    (80, (81, 101)),
  ):
    turned = edits.apply(Edits(rotation=rotation), image)
    assert turned.size == expected
    dark = np.asarray(turned.convert('L')) < 100
    size = size or dark.sum()
    assert dark.sum() == pytest.approx(size, rel=0.03)
    np.testing.assert_allclose(
      np.argwhere(dark).mean(0), np.array(turned.size[::-1]) / 2, atol=1
    )
  corner = np.asarray(edits.apply(Edits(rotation=15), image))[0, 0]
  np.testing.assert_allclose(corner, np.asarray(image).mean((0, 1)), atol=1)


def test_photometry_is_pillows():
  image = Image.fromarray(PIXELS)
  expected = ImageEnhance.Contrast(
    ImageEnhance.Brightness(image).enhance(1.5)
  ).enhance(0.5)
  np.testing.assert_array_equal(
    edited(brightness=1.5, contrast=0.5), np.asarray(expected)
  )


def test_a_request_is_read():
  query = {'rotation': '-15', 'flip': '1', 'contrast': '0.5', 'scale': '0.71'}
  assert edits.parse(query, 1.0) == Edits(-15, 0, 1, 1, 0.5, 0.71)


@pytest.mark.parametrize(
  ('query', 'words'),
  [
    ({'zoom': '2'}, "no edit 'zoom'"),
    ({'rotation': 'up'}, 'rotation must be a number'),
    ({'rotation': '181'}, 'from -180 to 180'),
    ({'rotation': 'nan'}, 'from -180 to 180'),
    ({'brightness': '0'}, 'brightness must be from 0.25 to 4'),
    ({'contrast': 'inf'}, 'contrast must be from 0.25 to 4'),
    ({'flip': '7'}, 'flip must be 0 or 1'),
    ({'mirror': 'nan'}, 'mirror must be 0 or 1'),
    # Each would be compiled for.
    ({'scale': '0.7'}, 'scale must be one of'),
  ],
)
def test_what_cannot_be_is_refused(query, words):
  with pytest.raises(ValueError, match=words):
    edits.parse(query, 1.0)
