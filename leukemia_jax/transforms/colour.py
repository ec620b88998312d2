"""Background, stain and shortcuts of colour, as pure functions of one image.

What gives a class away without a cell can be taken out of every image of a set,
for all classes alike: `remove` does it once, when a set is loaded.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Of R, G and B (ITU-R 601).
LUMA = (0.299, 0.587, 0.114)
# Background is as bright as this share of an image's pixels, or brighter.
_BACKGROUND = 0.6
_SORTED_SIDE = 32
# What backgrounds become, and what is hidden.
_NEUTRAL = 240.0
# Height and width of what is hidden in each corner, as shares of the side: the
# largest scale bars of the published images are 31 px of 224 wide and high.
_CORNER = (36 / 224, 44 / 224)


class Removal(NamedTuple):
  """What is taken out of every image; see `config.data`.

  Attributes:
    hide_corners: whether the four corners become one grey.
    neutral_background: whether all but cells becomes one grey, by a mask.
    white_balance: whether the background becomes one grey, and the rest
      follows.
    grey: whether colour goes.
  """

  hide_corners: bool = False
  neutral_background: bool = False
  white_balance: bool = False
  grey: bool = False


def luma(image: jax.Array) -> jax.Array:
  """Brightness by ITU-R 601: float32, shape (..., height, width)."""
  return image.astype(jnp.float32) @ jnp.array(LUMA)


def mean_over(mask: jax.Array, image: jax.Array) -> jax.Array:
  """Mean of some pixels.

  Args:
    mask: bool, shape (height, width).
    image: shape (height, width, 3).

  Returns:
    float32, shape (3,); 0 where no pixel is chosen.
  """
  chosen = mask[..., None].astype(jnp.float32)
  total = (image.astype(jnp.float32) * chosen).sum((0, 1))
  return total / (chosen.sum((0, 1)) + 1e-6)


def background_colour(image: jax.Array) -> jax.Array:
  """Mean R, G and B of the brightest pixels.

  Args:
    image: uint8, shape (height, width, 3).

  Returns:
    float32, shape (3,), 0..255.
  """
  brightness = luma(image)
  # Sorting every pixel would take longer than all else.
  step = max(1, image.shape[0] // _SORTED_SIDE)
  # Interpolated between equal values it may be the next larger one.
  level = jnp.minimum(
    jnp.quantile(brightness[::step, ::step], _BACKGROUND), brightness.max()
  )
  return mean_over(brightness >= level, image)


def density(image: jax.Array) -> jax.Array:
  """Optical density above the background's (Beer-Lambert), log 10.

  Args:
    image: uint8, shape (height, width, 3).

  Returns:
    float32 of the same shape.
  """
  background = background_colour(image)[None, None]
  return jnp.log10((background + 1) / (image.astype(jnp.float32) + 1))


def _to_uint8(values: jax.Array) -> jax.Array:
  return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)


def white_balance(image: jax.Array) -> jax.Array:
  """Scales each colour so that the background is grey 240.

  Args:
    image: uint8, shape (height, width, 3).

  Returns:
    uint8 image of the same shape.
  """
  background = jnp.maximum(background_colour(image), 1.0)
  factor = (_NEUTRAL / background)[None, None]
  return _to_uint8(image.astype(jnp.float32) * factor)


def grey(image: jax.Array) -> jax.Array:
  """Brightness in all three channels.

  Args:
    image: uint8, shape (height, width, 3).

  Returns:
    uint8 image of the same shape.
  """
  values = _to_uint8(luma(image))
  return jnp.repeat(values[..., None], image.shape[-1], -1)


def hide_corners(image: jax.Array) -> jax.Array:
  """Fills the four corners, where scale bars and labels lie, with grey 240.

  Args:
    image: uint8, shape (height, width, 3).

  Returns:
    uint8 image of the same shape.
  """
  height, width = image.shape[:2]
  deep, wide = round(_CORNER[0] * height), round(_CORNER[1] * width)
  hidden = jnp.ones((height, width), bool)
  hidden = hidden.at[deep : height - deep].set(False)
  hidden = hidden.at[:, wide : width - wide].set(False)
  return jnp.where(hidden[..., None], jnp.uint8(_NEUTRAL), image)


def without_corners(image: jax.Array, removal: Removal) -> jax.Array:
  """An image without the rows in which `remove` hides corners.

  Args:
    image: shape (height, width, 3).
    removal: what was taken out of it.

  Returns:
    Shape (height or less, width, 3).
  """
  deep = round(_CORNER[0] * image.shape[0]) if removal.hide_corners else 0
  return image[deep : image.shape[0] - deep]


def neutral_background(image: jax.Array, mask: jax.Array) -> jax.Array:
  """Fills all but cells with grey 240.

  Args:
    image: uint8, shape (height, width, 3).
    mask: uint8, shape (height, width, 1), 1 for cells.

  Returns:
    uint8 image of the same shape.
  """
  return jnp.where(mask > 0, image, jnp.uint8(_NEUTRAL))


def remove(
  image: jax.Array, mask: jax.Array | None, removal: Removal
) -> jax.Array:
  """Takes what `removal` names out of an image.

  Args:
    image: uint8, shape (height, width, 3).
    mask: uint8, shape (height, width, 1), 1 for cells; needed for
      `neutral_background` alone.
    removal: what is taken out.

  Returns:
    uint8 image of the same shape.
  """
  # The background is measured before it is filled.
  if removal.white_balance:
    image = white_balance(image)
  if removal.neutral_background:
    if mask is None:
      raise ValueError('neutral_background needs a mask')
    image = neutral_background(image, mask)
  if removal.grey:
    image = grey(image)
  if removal.hide_corners:
    image = hide_corners(image)
  return image


def remove_all(images: Any, masks: Any, removal: Removal) -> Any:
  """`remove` of every image: what training and prediction share.

  It is a compiled function of its own, so that neither's other work changes how
  a value is rounded.

  Args:
    images: uint8, shape (batch, height, width, 3).
    masks: uint8, shape (batch, height, width, 1), or None; see `remove`.
    removal: what is taken out.

  Returns:
    uint8 images of the same shape; the same images if nothing is taken out.
  """
  return _remove_all(images, masks, removal) if any(removal) else images


@functools.partial(jax.jit, static_argnames='removal')
def _remove_all(
  images: jax.Array, masks: jax.Array | None, removal: Removal
) -> jax.Array:
  return jax.vmap(lambda image, mask: remove(image, mask, removal))(
    images, masks
  )


def stain_jitter(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
  """Stronger or weaker stain and another tint, in optical-density space.

  After Tellez et al. (Medical Image Analysis 58:101544, 2019), by the density
  of each colour instead of a stain basis, which differs between Wright, Giemsa
  and their mixtures.

  Args:
    key: PRNG key.
    image: uint8, shape (height, width, 3).
    amount: each density is multiplied by a factor from exp(-amount) to
      exp(amount), and a density from -amount / 10 to amount / 10 is added (a
      cast of the light).

  Returns:
    uint8 image of the same shape.
  """
  factor_key, tint_key = jax.random.split(key)
  factor = jnp.exp(
    jax.random.uniform(factor_key, (3,), minval=-amount, maxval=amount)
  )
  tint = jax.random.uniform(
    tint_key, (3,), minval=-amount / 10, maxval=amount / 10
  )
  values = density(image) * factor[None, None] + tint[None, None]
  background = background_colour(image)[None, None] + 1
  return _to_uint8(background * 10.0**-values - 1)
