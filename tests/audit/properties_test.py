"""Properties measure what they are named after."""

import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax.audit import properties

BACKGROUND = (239, 247, 241)


def field(side: int = 112) -> np.ndarray:
  """An even field with a dark square in the middle."""
  image = np.full((side, side, 3), BACKGROUND, np.uint8)
  image[40:60, 40:60] = (155, 128, 245)
  return image


def measure(*images: np.ndarray) -> dict[str, np.ndarray]:
  return properties.measure(jnp.asarray(np.stack(images)))


def test_colours_and_amounts():
  measured = measure(field())
  np.testing.assert_allclose(
    measured['background_colour'][0], BACKGROUND, rtol=1e-4
  )
  share = 400 / 112**2
  assert measured['cell_amount'][0, 0] == pytest.approx(share)
  expected = np.log10(
    (np.array(BACKGROUND) + 1) / (np.array((155, 128, 245)) + 1)
  )
  np.testing.assert_allclose(measured['cell_colour'][0], expected, atol=1e-3)
  pixels = field().reshape(-1, 3).astype(float)
  np.testing.assert_allclose(
    measured['colour'][0],
    np.concatenate([pixels.mean(0), pixels.std(0)]),
    rtol=1e-4,
  )


def test_a_cast_changes_colour_and_no_cell_colour():
  tinted = np.clip(field() * np.array((0.9, 1.0, 0.8)), 0, 255).astype(np.uint8)
  plain, cast = (measure(image) for image in (field(), tinted))
  assert abs(plain['background_colour'] - cast['background_colour']).max() > 20
  np.testing.assert_allclose(
    plain['cell_colour'], cast['cell_colour'], atol=0.02
  )


@pytest.mark.parametrize('own', properties._patches(), ids=lambda p: p.name)
def test_ink_is_seen_in_its_own_patch_alone(own):
  marked = field()
  top, left, bottom, right = (round(edge * 112) for edge in own.region)
  # Over the cell too: ink is told from cells by blue.
  marked[top + 2 : bottom - 2, left + 2 : right - 2] = (20, 20, 20)
  before, after = measure(field()), measure(marked)
  for patch in properties._patches():
    seen = abs(after[patch.name] - before[patch.name]).max()
    assert (seen > 0.1) == (patch.name == own.name)


def test_sharpness_is_of_what_is_no_nucleus():
  rng = np.random.default_rng(0)
  noisy = field()
  noisy[40:60, 40:60, 1] = rng.integers(60, 140, (20, 20))
  blurred = field()
  blurred[::2, ::2] = (200, 230, 230)
  plain, nucleus, other = (
    measure(image)['sharpness'] for image in (field(), noisy, blurred)
  )
  np.testing.assert_allclose(plain, nucleus, atol=0.1)
  assert (other > plain + 1).any()


@pytest.mark.parametrize('side', [1, 3, 8, 32])
def test_a_batch_is_its_images_one_by_one(side):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (67, side, side, 3), dtype=np.uint8)
  together = measure(*images)
  for i in (0, 63, 66):
    alone = measure(images[i])
    for name, values in alone.items():
      np.testing.assert_allclose(together[name][i], values[0], atol=1e-3)
