"""How large cells are: synthetic smears that are cut out and put together."""

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from leukemia_jax.data import decode, synthetic, synthetic_cells
from leukemia_jax.metrics import magnification

SIZE = 112


@pytest.fixture(scope='module')
def fields():
  key, spec = jax.random.key(5), synthetic_cells.SmearSpec()
  return np.stack(
    [
      synthetic.render_image(key, i, i % 4, i % 9, spec=spec)[0]
      for i in range(32)
    ]
  )


def scaled(images):
  return [decode.to_size(Image.fromarray(image), SIZE) for image in images]


def factor(images, reference):
  squares = scaled(images)
  own = magnification.mean_spectrum(squares)
  return magnification.factor(own, reference, side=SIZE, images=len(squares))


@pytest.fixture(scope='module')
def reference(fields):
  return magnification.mean_spectrum(scaled(fields[:16]))


def part(field, share):
  side = round(len(field) * share)
  at = (len(field) - side) // 2
  return field[at : at + side, at : at + side]


def test_a_blob_answers_most_at_its_own_width():
  y, x = np.mgrid[:128, :128] - 63.5
  for width in (4, 6, 8):
    blob = np.exp(-(y**2 + x**2) / (2 * width**2))
    density = np.repeat(0.3 * blob[..., None], 3, -1)
    pixels = np.round(240 * 10**-density).astype(np.uint8)
    own = magnification.spectrum(pixels)
    # Of a Gaussian blob in two dimensions, w^2 |LoG|^2 integrates to a maximum
    # at w = sqrt(2) times its width.
    best = magnification.WIDTHS[own.argmax()] * 128
    assert best == pytest.approx(np.sqrt(2) * width, rel=0.1)


def test_responses_are_scipy_s():
  rng = np.random.default_rng(0)
  smooth = ndimage.gaussian_filter(rng.random((64, 64, 3)), (3, 3, 0))
  pixels = np.round(40 + 200 * smooth).astype(np.uint8)
  light = np.percentile(pixels, 90, (0, 1))
  density = np.log10((light + 1) / (pixels + 1.0)).sum(-1)
  own = magnification.spectrum(pixels)
  for place in range(17, 22):
    width = magnification.WIDTHS[place] * 64
    answer = width**2 * ndimage.gaussian_laplace(density, width, truncate=8)
    assert own[place] == pytest.approx(np.log((answer**2).mean()), abs=0.02)


@pytest.mark.parametrize(
  ('share', 'expected'), [(1, 1), (0.5, 2), (2**-0.5, 2**0.5), (0.354, 2**1.5)]
)
def test_larger_cells_are_measured(fields, reference, share, expected):
  images = [part(field, share) for field in fields[16:]]
  assert factor(images, reference) == pytest.approx(expected)
  if share in (1, 0.5):
    # Most single images say it too.
    alone = [factor([image], reference) for image in images]
    assert np.median([one or 0 for one in alone]) == pytest.approx(expected)


def test_smaller_cells_are_measured(fields, reference):
  rows = [np.hstack(pair) for pair in fields[16:].reshape(8, 2, 224, 224, 3)]
  wide = [np.vstack(rows[i : i + 2]) for i in range(0, 8, 2)]
  assert factor(wide, reference) == 0.5


def test_stain_and_light_do_not_matter(fields, reference):
  pale = [255 - (255 - field) // 2 for field in fields[16:]]
  turned = [field[..., ::-1] for field in fields[16:]]
  assert factor(pale, reference) == 1
  assert factor(turned, reference) == 1


def test_other_things_are_not_measured(reference):
  rng = np.random.default_rng(0)
  noise = [rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(8)]
  blank = [np.full((SIZE, SIZE, 3), 230, np.uint8)] * 8
  edges = [
    np.kron(n[:4, :4], np.ones((28, 28, 1))).astype(np.uint8) for n in noise
  ]
  for images in (noise, blank, edges):
    assert factor(images, reference) is None
