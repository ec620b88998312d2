"""Edits of images before they are predicted."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from leukemia_jax.data import decode
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


def test_corners_of_a_turned_image_are_of_its_mean():
  turned = edited(rotation=45)
  assert turned.shape[0] > 6 and turned.shape[1] > 9
  corner = turned[0, 0].astype(float)
  np.testing.assert_allclose(corner, PIXELS.mean((0, 1)), atol=1)


def test_a_long_image_is_not_turned_into_a_huge_one():
  long = Image.new('RGB', (20_000, 2))
  turned = edits.apply(Edits(rotation=90), long, max_pixels=50_000)
  assert turned.size == (2, 20_000)
  with pytest.raises(
    decode.BadImageError, match='turned, it has 14144 x 14144'
  ):
    edits.apply(Edits(rotation=45), long, max_pixels=50_000)


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
