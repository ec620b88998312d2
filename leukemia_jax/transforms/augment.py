"""The study's five augmentations, and stain: pure functions of key and image.

Images are uint8 RGB of shape (height, width, 3), one at a time: `vmap` over
images and keys. Every step goes back to uint8, as it does in Pillow, whose
meaning of "brightness factor", "contrast factor" and "degrees" is kept.
"""

from collections.abc import Callable, Sequence

import dm_pix
import jax
import jax.numpy as jnp
from jax import lax

from leukemia_jax.transforms import colour, jpeg

# What fills the corners that a rotation opens.
FILLS = ('edge', 'constant')


def _to_uint8(image: jax.Array) -> jax.Array:
  return jnp.clip(image, 0, 255).astype(jnp.uint8)


def _packed(image: jax.Array) -> jax.Array:
  """The uint8 channels of each pixel, four at most, as one uint32.

  XLA's loops on a CPU otherwise find the way to every channel anew, and a flip
  makes what it turns up to four times.
  """
  rest = 4 - image.shape[-1]
  return lax.bitcast_convert_type(
    jnp.pad(image, ((0, 0), (0, 0), (0, rest))), jnp.uint32
  )


def _unpacked(pixels: jax.Array, channels: int) -> jax.Array:
  """`_packed` back; after a bitcast XLA rounds rotations another way."""
  return jnp.stack(
    [(pixels >> 8 * i).astype(jnp.uint8) for i in range(channels)], -1
  )


def _turned(
  image: jax.Array,
  turns: Sequence[tuple[jax.Array, Callable[[jax.Array], jax.Array]]],
) -> jax.Array:
  """Takes each turn whose bool is true."""
  pixels = _packed(image)[..., None]
  for wanted, turn in turns:
    pixels = jnp.where(wanted, turn(pixels), pixels)
  return _unpacked(pixels[..., 0], image.shape[-1])


def brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Multiplies all values, like `PIL.ImageEnhance.Brightness`.

  Args:
    image: uint8, shape (height, width, 3).
    factor: float scalar; 1 leaves the image as it is, 0 gives black.

  Returns:
    uint8 image of the same shape.
  """
  return _to_uint8(image.astype(jnp.float32) * factor)


def contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
  """Stretches values about the mean grey, like `PIL.ImageEnhance.Contrast`.

  Args:
    image: uint8, shape (height, width, 3).
    factor: float scalar; 1 leaves the image as it is, 0 gives its mean grey.

  Returns:
    uint8 image of the same shape.
  """
  # Pillow's luma (ITU-R 601-2) in 16-bit fixed point, then its rounded mean.
  luma = jnp.array([19595, 38470, 7471], jnp.int32)
  grey = (image.astype(jnp.int32) @ luma + 0x8000) >> 16
  mean = jnp.floor(grey.astype(jnp.float32).mean() + 0.5)
  return _to_uint8(mean + (image.astype(jnp.float32) - mean) * factor)


def rotate(
  image: jax.Array,
  degrees: jax.Array,
  *,
  fill: str = 'edge',
  interpolate: bool = True,
) -> jax.Array:
  """Rotates about the centre, like `PIL.Image.rotate` at the same size.

  `dm_pix.rotate` means the same, but interpolates over channels as a third
  dimension: measured 160 times slower on a CPU than the row gathers below.

  Args:
    image: uint8, shape (height, width, channels), of four channels at most.
    degrees: float scalar, counter-clockwise.
    fill: 'edge' repeats the border pixels, 'constant' gives 0 (Pillow's).
    interpolate: bilinear if true, else the nearest pixel (for masks).

  Returns:
    uint8 image of the same shape.
  """
  if fill not in FILLS:
    raise ValueError(f'fill must be one of {FILLS}, not {fill!r}')
  height, width, channels = image.shape
  angle = jnp.deg2rad(degrees)
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  y_offset = jnp.arange(height)[:, None] - (height - 1) / 2
  x_offset = jnp.arange(width)[None, :] - (width - 1) / 2
  y = cosine * y_offset + sine * x_offset + (height - 1) / 2
  x = -sine * y_offset + cosine * x_offset + (width - 1) / 2
  pixels = _packed(jnp.asarray(image)).ravel()

  def at(row: jax.Array, column: jax.Array) -> jax.Array:
    row = jnp.clip(row, 0, height - 1).astype(jnp.int32)
    column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
    index = row * width + column
    at_place = pixels.at[index].get(mode='promise_in_bounds')
    return _unpacked(at_place, channels)

  if interpolate:
    top, left = jnp.floor(y), jnp.floor(x)
    v, h = (y - top)[..., None], (x - left)[..., None]
    above = (1 - h) * at(top, left) + h * at(top, left + 1)
    below = (1 - h) * at(top + 1, left) + h * at(top + 1, left + 1)
    out = _to_uint8((1 - v) * above + v * below + 0.5)
  else:
    out = at(jnp.floor(y + 0.5), jnp.floor(x + 0.5))
  if fill == 'edge':
    return out
  inside = (y >= -0.5) & (y < height - 0.5) & (x >= -0.5) & (x < width - 0.5)
  return jnp.where(inside[..., None], out, jnp.uint8(0))


def augment(
  key: jax.Array,
  image: jax.Array,
  mask: jax.Array | None = None,
  *,
  brightness_delta: float = 0.1,
  contrast_delta: float = 0.1,
  stain: float = 0.0,
  rotation: float = 20.0,
  fill: str = 'edge',
  jpeg_quality: tuple[int, ...] = (50, 100),
  flip_horizontal: bool = True,
  flip_vertical: bool = True,
) -> jax.Array | tuple[jax.Array, jax.Array]:
  """Brightness, contrast, rotation, JPEG noise and flips, as in the study.

  Args:
    key: PRNG key of this image; every draw comes from it.
    image: uint8, shape (height, width, 3).
    mask: optional uint8 of shape (height, width, channels), of four channels at
      most: takes the same rotation and flips, by the nearest pixel, and no
      change of its values.
    brightness_delta: the factor is uniform in 1 -+ this.
    contrast_delta: likewise.
    stain: see `colour.stain_jitter`; 0 for none, as in the study.
    rotation: largest angle to either side, degrees.
    fill: see `rotate`.
    jpeg_quality: lowest and highest quality, inclusive; () for no JPEG.
    flip_horizontal: whether to flip left and right, half of the time.
    flip_vertical: whether to flip up and down, half of the time.

  Returns:
    The image, uint8 of the same shape; with a mask, both.
  """
  keys = jax.random.split(key, 6)

  def uniform(key: jax.Array, middle: float, delta: float) -> jax.Array:
    low, high = middle - delta, middle + delta
    return jax.random.uniform(key, minval=low, maxval=high)

  if stain:
    # A key of its own: the draws of all others stay as they are without it.
    image = colour.stain_jitter(jax.random.fold_in(key, 6), image, stain)
  if brightness_delta:
    image = brightness(image, uniform(keys[0], 1.0, brightness_delta))
  if contrast_delta:
    image = contrast(image, uniform(keys[1], 1.0, contrast_delta))
  if rotation:
    degrees = uniform(keys[2], 0.0, rotation)
    image = rotate(image, degrees, fill=fill)
    if mask is not None:
      mask = rotate(mask, degrees, fill=fill, interpolate=False)
  if jpeg_quality:
    low, high = jpeg_quality
    image = jpeg.round_trip(
      image, jax.random.randint(keys[3], (), low, high + 1)
    )
  turns = [
    (jax.random.bernoulli(key), flip)
    for key, wanted, flip in (
      (keys[4], flip_horizontal, dm_pix.flip_left_right),
      (keys[5], flip_vertical, dm_pix.flip_up_down),
    )
    if wanted
  ]
  image = _turned(image, turns)
  mask = mask if mask is None else _turned(mask, turns)
  return image if mask is None else (image, mask)
