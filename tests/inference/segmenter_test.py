"""Cells in images of any size: squares, what is measured, what is drawn."""

import numpy as np
import pytest
from PIL import Image
from skimage import draw

from leukemia_jax.data import decode
from leukemia_jax.inference import segmenter
from leukemia_jax.inference.segmenter import Segmenter

# A network that says how red a pixel is.
RED = Segmenter(
  image_size=64,
  variables=None,
  step=lambda _, images: images[..., 0] / np.float32(255),
  threshold=0.5,
  smallest=0.05,
)


def discs(width, height, cells):
  """Red discs with a darker core on blue; (x, y, radius, core's radius)."""
  pixels = np.zeros((height, width, 3), np.uint8)
  pixels[..., 1:] = 250
  for x, y, radius, core in cells:
    for own, colour in ((radius, (250, 120, 200)), (core, (200, 20, 60))):
      rows, columns = draw.disk((y, x), own + 0.5, shape=(height, width))
      pixels[rows, columns] = colour
  return Image.fromarray(pixels)


@pytest.mark.parametrize(
  ('width', 'height'), [(64, 64), (100, 64), (64, 100), (1000, 64), (64, 65)]
)
def test_squares_cover_the_image(width, height):
  boxes = segmenter.squares(width, height)
  covered = np.zeros((height, width), bool)
  for left, top, right, bottom in boxes:
    assert right - left == bottom - top == min(width, height)
    assert left >= 0 and top >= 0 and right <= width and bottom <= height
    covered[top:bottom, left:right] = True
  assert covered.all()
  places = [max(left, top) for left, top, *_ in boxes]
  if len(places) > 1:
    # They overlap by a quarter of their side or more.
    assert max(np.diff(places)) <= 0.75 * min(width, height) + 1
  if width == height:
    assert len(boxes) == 1


def test_what_is_too_narrow_is_refused():
  with pytest.raises(decode.BadImageError, match='too narrow'):
    segmenter.squares(10_000, 10)


@pytest.mark.parametrize('scale', [0.5, 1, 2])
@pytest.mark.parametrize('size', [(64, 64), (150, 90), (90, 150), (300, 64)])
def test_probabilities_lie_where_they_belong(size, scale):
  width, height = size
  x, y = np.meshgrid(np.linspace(0, 250, width), np.linspace(0, 250, height))
  pixels = np.stack([(x + y) / 2, y, x], -1).astype(np.uint8)
  got = segmenter.probability(RED, Image.fromarray(pixels), scale)
  assert got.shape == (height, width)
  # Scaled down and up again.
  np.testing.assert_allclose(got, pixels[..., 0] / 255, atol=0.03)


def test_cells_are_counted_and_measured():
  cells = [(60, 50, 20, 14), (150, 60, 15, 6), (70, 140, 25, 20)]
  image = discs(220, 180, cells)
  network = RED._replace(image_size=180)
  instances = segmenter.separate(network, image, 1)
  got = segmenter.measure(image, instances)
  assert len(got) == instances.max() == 3
  for x, y, radius, core in cells:
    (own,) = (c for c in got if np.hypot(c.x - x, c.y - y) < 2)
    assert instances[y, x] == own.number
    assert own.diameter == pytest.approx(2 * radius + 1, rel=0.05)
    assert own.area == pytest.approx(np.pi * (radius + 0.5) ** 2, rel=0.1)
    assert own.roundness > 0.9
    assert own.nucleus == pytest.approx((core / radius) ** 2, abs=0.08)
    assert 200 <= own.red <= 250


def test_a_bar_is_less_round_than_a_disc():
  pixels = np.zeros((90, 90, 3), np.uint8)
  pixels[40:50, 10:80, 0] = 250
  image = Image.fromarray(pixels)
  instances = segmenter.separate(RED._replace(image_size=90), image, 1)
  (shape,) = segmenter.measure(image, instances)
  assert shape.roundness < 0.5


def test_no_cells_no_measures():
  image = discs(64, 64, [])
  instances = segmenter.separate(RED, image, 1)
  assert not instances.any()
  assert segmenter.measure(image, instances) == []
  everything = np.ones((64, 64), np.int32)
  assert len(segmenter.measure(image, everything)) == 1


def test_an_overlay_outlines_cells_and_is_not_too_large():
  image = discs(1500, 900, [(700, 400, 100, 50)])
  instances = segmenter.separate(RED._replace(image_size=300), image, 1)
  drawn = np.asarray(segmenter.overlay(image, instances))
  assert max(drawn.shape) == 1024
  plain = np.asarray(
    image.resize(drawn.shape[1::-1], Image.Resampling.BILINEAR)
  )
  changed = (drawn != plain).any(-1)
  y, x = np.nonzero(changed)
  factor = 1024 / 1500
  away = np.hypot(x - 700 * factor, y - 400 * factor)
  assert changed.any() and abs(away - 100 * factor).max() < 4
