"""Augmentations against Pillow, and the pairing of image and mask."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from leukemia_jax.transforms import augment


def worst(ours: jax.Array, theirs: Image.Image) -> int:
  return np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max()


@pytest.mark.parametrize('factor', [0.0, 0.5, 0.9, 0.97, 1.0, 1.04, 1.1, 2.0])
def test_brightness_and_contrast_are_pillows(smear, factor):
  image = Image.fromarray(smear)
  theirs = ImageEnhance.Brightness(image).enhance(factor)
  assert worst(augment.brightness(smear, factor), theirs) <= 1
  theirs = ImageEnhance.Contrast(image).enhance(factor)
  assert worst(augment.contrast(smear, factor), theirs) <= 1


@pytest.mark.parametrize('degrees', [-20.0, -7.3, 0.0, 3.1, 11.0, 20.0])
@pytest.mark.parametrize('shape', [(64, 64), (61, 47)])
def test_rotation_is_pillows(smear, degrees, shape):
  image = np.ascontiguousarray(smear[: shape[0], : shape[1]])
  ours = augment.rotate(image, degrees, fill='constant')
  theirs = Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR)
  difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max(-1)
  # A pixel whose centre falls on the very border may go either way.
  assert (difference > 1).mean() < 1e-3
  edge = np.asarray(augment.rotate(image, degrees, fill='edge'))
  inside = np.asarray(ours).any(-1)
  np.testing.assert_array_equal(edge[inside], np.asarray(ours)[inside])


def test_fill():
  white = np.full((40, 40, 3), 255, np.uint8)
  assert (np.asarray(augment.rotate(white, 20.0, fill='edge')) == 255).all()
  black_corner = augment.rotate(white, 20.0, fill='constant')
  assert np.asarray(black_corner)[0, 0].max() == 0
  with pytest.raises(ValueError, match='fill must be one of'):
    augment.rotate(white, 20.0, fill='reflect')


def test_mask_moves_with_the_image():
  # An image that is its own mask, so that both must stay equal.
  mask = np.zeros((64, 64, 1), np.uint8)
  mask[8:30, 20:50] = 1
  image = np.repeat(mask * 200, 3, -1)
  moved = functools.partial(
    augment.augment, brightness_delta=0, contrast_delta=0, jpeg_quality=()
  )
  for seed in range(8):
    out, out_mask = moved(jax.random.key(seed), image, mask)
    agree = (np.asarray(out)[..., :1] > 100) == (np.asarray(out_mask) > 0)
    assert agree.mean() > 0.995
    assert set(np.unique(out_mask)) <= {0, 1}


@pytest.mark.full
def test_photometry_leaves_the_mask_alone(smear):
  mask = (smear[..., :1] > 200).astype(np.uint8)
  settings = {'rotation': 0, 'flip_horizontal': False, 'flip_vertical': False}
  image, same = augment.augment(jax.random.key(0), smear, mask, **settings)
  np.testing.assert_array_equal(same, mask)
  assert (np.asarray(image) != smear).any()


def test_nothing_asked_for_changes_nothing(smear):
  out = augment.augment(
    jax.random.key(0),
    jnp.asarray(smear),
    brightness_delta=0,
    contrast_delta=0,
    rotation=0,
    jpeg_quality=(),
    flip_horizontal=False,
    flip_vertical=False,
  )
  np.testing.assert_array_equal(out, smear)


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_flips_are_numpys(channels):
  draws = np.random.default_rng(0)
  image = draws.integers(0, 256, (7, 6, 3), dtype=np.uint8)
  mask = draws.integers(0, 256, (7, 6, channels), dtype=np.uint8)
  only = functools.partial(
    augment.augment,
    brightness_delta=0,
    contrast_delta=0,
    rotation=0,
    jpeg_quality=(),
  )
  seen_turns = set()
  for seed in range(16):
    turned, turned_mask = only(jax.random.key(seed), image, mask)
    across, down = next(
      (across, down)
      for across in (1, -1)
      for down in (1, -1)
      if (np.asarray(turned) == image[::down, ::across]).all()
    )
    np.testing.assert_array_equal(turned_mask, mask[::down, ::across])
    seen_turns.add((across, down))
  assert len(seen_turns) == 4


@pytest.mark.full
def test_vmap_is_a_loop_and_jit_is_eager(smear):
  images = np.stack([smear[:64, :64], smear[64:128, 64:128]] * 2)
  keys = jax.random.split(jax.random.key(5), 4)
  batch = jax.jit(jax.vmap(augment.augment))(keys, images)
  for key, image, got in zip(keys, images, batch, strict=True):
    difference = np.abs(
      np.asarray(got).astype(int)
      - np.asarray(augment.augment(key, image)).astype(int)
    )
    # XLA may fuse a multiply and an add, which moves a rounding; JPEG at low
    # quality then turns one level into one quantisation step.
    assert (difference > 0).mean() < 0.02
  # Images with different keys are augmented differently.
  assert (np.asarray(batch[0]) != np.asarray(batch[2])).any()


def test_draws_cover_the_ranges():
  keys = jax.random.split(jax.random.key(0), 400)
  grey = jnp.full((8, 8, 3), 100, jnp.uint8)
  only = functools.partial(
    augment.augment,
    contrast_delta=0,
    rotation=0,
    jpeg_quality=(),
    flip_horizontal=False,
    flip_vertical=False,
  )
  levels = np.asarray(jax.vmap(lambda k: only(k, grey))(keys))[:, 0, 0, 0]
  assert 90 <= levels.min() <= 91
  assert 108 <= levels.max() <= 110
