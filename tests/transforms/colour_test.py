"""What is taken out of images is gone, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal


def tinted(image: np.ndarray, factors) -> np.ndarray:
  return np.clip(np.round(image * np.array(factors)), 0, 255).astype(np.uint8)


def test_background_is_that_of_the_light(smear):
  # Synthetic smears have light of about (239, 247, 241) by construction.
  background = np.asarray(colour.background_colour(smear))
  assert np.abs(background - (239, 247, 241)).max() < 14


def test_white_balance_undoes_a_cast(smear):
  plain = np.asarray(colour.white_balance(smear)).astype(int)
  cast = colour.white_balance(tinted(smear, (0.9, 0.97, 0.8)))
  assert np.abs(plain - np.asarray(cast)).mean() < 1
  after = np.asarray(colour.background_colour(plain.astype(np.uint8)))
  np.testing.assert_allclose(after, 240, atol=1.5)


def test_grey_is_pillows(smear):
  ours = np.asarray(colour.grey(smear)).astype(int)
  theirs = np.asarray(Image.fromarray(smear).convert('L')).astype(int)
  assert np.abs(ours - theirs[..., None]).max() <= 1


def test_hidden_corners_are_the_same_in_every_image(smear):
  other = np.asarray(smear)[::-1, ::-1] // 2
  hidden = [np.asarray(colour.hide_corners(i)) for i in (smear, other)]
  same = (hidden[0] == 240).all(-1) & (hidden[1] == 240).all(-1)
  assert same[:36, :44].all() and same[-36:, -44:].all()
  assert same[:36, -44:].all() and same[-36:, :44].all()
  np.testing.assert_array_equal(hidden[0][40:-40], smear[40:-40])


def test_cells_alone_are_left(smear):
  mask = np.zeros((224, 224, 1), np.uint8)
  mask[50:90, 60:120] = 1
  removal = Removal(neutral_background=True)
  out = np.array(colour.remove(smear, mask, removal))
  np.testing.assert_array_equal(out[50:90, 60:120], smear[50:90, 60:120])
  out[50:90, 60:120] = 240
  assert (out == 240).all()
  with pytest.raises(ValueError, match='mask'):
    colour.remove(smear, None, removal)


def test_nothing_to_remove_changes_nothing(smear):
  out = colour.remove(smear, None, Removal())
  np.testing.assert_array_equal(out, smear)


def test_jit_is_eager_and_vmap_is_a_loop(smear):
  everything = Removal(True, True, True, True)
  images = jnp.stack([smear, smear[::-1], smear // 2])
  masks = (images[..., :1] < 170).astype(jnp.uint8)

  def remove(image, mask):
    return colour.remove(image, mask, everything)

  loop = np.stack([remove(*pair) for pair in zip(images, masks, strict=True)])
  together = np.asarray(jax.jit(jax.vmap(remove))(images, masks))
  # A value on the border of two greys may go either way.
  assert np.abs(loop.astype(int) - together).max() <= 1
  assert (loop == together).mean() > 0.999


def test_stain_jitter_moves_densities_by_what_it_says(smear):
  same = colour.stain_jitter(jax.random.key(0), smear, 0.0)
  assert np.abs(np.asarray(same).astype(int) - smear).max() <= 1
  amount, factors = 0.2, []
  before = np.asarray(colour.density(smear))
  stained = before[..., 1] > 0.2
  for seed in range(20):
    image = colour.stain_jitter(jax.random.key(seed), smear, amount)
    background = np.asarray(colour.background_colour(image))
    cast = np.log10(np.asarray(colour.background_colour(smear)) / background)
    assert np.abs(cast).max() < amount / 10 + 0.01
    after = np.asarray(colour.density(image))
    factors.append((after[stained] / before[stained])[:, 1].mean())
  assert np.exp(-amount) - 0.05 < min(factors) < 0.9
  assert 1.1 < max(factors) < np.exp(amount) + 0.05
