"""The JPEG round trip as a jit-able function, bit for bit libjpeg-turbo's.

Compressing and decompressing is a fixed sequence of integer operations; only
the entropy coding in between is lossless and is left out. What is here follows
libjpeg-turbo (https://libjpeg-turbo.org, itself after the Independent JPEG
Group's library and ITU-T T.81) with its defaults: 4:2:0 chroma, the "islow"
integer DCT of Loeffler, Ligtenberg and Moschytz (ICASSP 1989), and triangle
("fancy") chroma up-sampling.
"""

import jax
import jax.numpy as jnp
import numpy as np

# ITU-T T.81, annex K: the luminance and chrominance tables at quality 50.
LUMA_TABLE = np.array(
  [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
  ],
  np.int32,
)
_CHROMA_TABLE = np.full((8, 8), 99, np.int32)
_CHROMA_TABLE[:4, :4] = [
  [17, 18, 24, 47],
  [18, 21, 26, 66],
  [24, 26, 56, 99],
  [47, 66, 99, 99],
]

# Fixed-point cosines: 13 bits, and 2 bits kept between the two DCT passes.
_CONST_BITS = 13
_PASS_BITS = 2


def _fix(value: float, bits: int = _CONST_BITS) -> int:
  return int(value * (1 << bits) + 0.5)


def _descale(value: jax.Array, bits: int) -> jax.Array:
  return (value + (1 << (bits - 1))) >> bits


def _rotations(z: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
  """The odd part that the forward and the inverse DCT share."""
  t4, t5, t6, t7 = z
  z1, z2, z3, z4 = t4 + t7, t5 + t6, t4 + t6, t5 + t7
  z5 = (z3 + z4) * _fix(1.175875602)
  z1 = z1 * -_fix(0.899976223)
  z2 = z2 * -_fix(2.562915447)
  z3 = z3 * -_fix(1.961570560) + z5
  z4 = z4 * -_fix(0.390180644) + z5
  return (
    t4 * _fix(0.298631336) + z1 + z3,
    t5 * _fix(2.053119869) + z2 + z4,
    t6 * _fix(3.072711026) + z2 + z3,
    t7 * _fix(1.501321110) + z1 + z4,
  )


def _even_rotation(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The rotation by 6/16 pi in the even part."""
  z1 = (a + b) * _fix(0.541196100)
  return z1 + b * -_fix(1.847759065), z1 + a * _fix(0.765366865)


def _forward_pass(x: list[jax.Array], first: bool) -> list[jax.Array]:
  """One 8-point forward DCT over a list of eight arrays (jfdctint.c)."""
  t0, t7 = x[0] + x[7], x[0] - x[7]
  t1, t6 = x[1] + x[6], x[1] - x[6]
  t2, t5 = x[2] + x[5], x[2] - x[5]
  t3, t4 = x[3] + x[4], x[3] - x[4]
  t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
  shift = _CONST_BITS - _PASS_BITS if first else _CONST_BITS + _PASS_BITS
  if first:
    y0, y4 = (t10 + t11) << _PASS_BITS, (t10 - t11) << _PASS_BITS
  else:
    y0, y4 = _descale(t10 + t11, _PASS_BITS), _descale(t10 - t11, _PASS_BITS)
  y6, y2 = _even_rotation(t13, t12)
  y7, y5, y3, y1 = _rotations((t4, t5, t6, t7))
  y1, y2, y3, y5, y6, y7 = (
    _descale(y, shift) for y in (y1, y2, y3, y5, y6, y7)
  )
  return [y0, y1, y2, y3, y4, y5, y6, y7]


def _inverse_pass(y: list[jax.Array], shift: int) -> list[jax.Array]:
  """One 8-point inverse DCT over a list of eight arrays (jidctint.c)."""
  t2, t3 = _even_rotation(y[2], y[6])
  t0 = (y[0] + y[4]) << _CONST_BITS
  t1 = (y[0] - y[4]) << _CONST_BITS
  t10, t13, t11, t12 = t0 + t3, t0 - t3, t1 + t2, t1 - t2
  o0, o1, o2, o3 = _rotations((y[7], y[5], y[3], y[1]))
  return [
    _descale(v, shift)
    for v in (
      t10 + o3,
      t11 + o2,
      t12 + o1,
      t13 + o0,
      t13 - o0,
      t12 - o1,
      t11 - o2,
      t10 - o3,
    )
  ]


def _along(block: jax.Array, axis: int, transform) -> jax.Array:
  parts = [jax.lax.index_in_dim(block, i, axis, False) for i in range(8)]
  return jnp.stack(transform(parts), axis)


def _divided(value: jax.Array, step: jax.Array) -> jax.Array:
  """`value // step` of int32 in 0 ... 2^15, by the processor's vector units.

  They divide floats only. The half keeps the result exact where XLA multiplies
  by a reciprocal instead.
  """
  return ((value + 0.5) / step).astype(jnp.int32)


def _code_plane(plane: jax.Array, table: jax.Array) -> jax.Array:
  """Transforms, quantises and restores one plane; sides divisible by 8."""
  height, width = plane.shape
  # The eight rows and columns of a block lead, all blocks lie in the last
  # axis: every operation is then one long vector operation.
  block = plane.reshape(height // 8, 8, width // 8, 8)
  block = block.transpose(1, 3, 0, 2).reshape(8, 8, -1) - 128
  block = _along(block, 1, lambda x: _forward_pass(x, True))
  block = _along(block, 0, lambda x: _forward_pass(x, False))
  step = table[:, :, None] << 3  # this DCT's results are 8 times too large
  level = _divided(jnp.abs(block) + (step >> 1), step)
  block = jnp.sign(block) * level * table[:, :, None]
  shift = _CONST_BITS - _PASS_BITS
  block = _along(block, 0, lambda y: _inverse_pass(y, shift))
  shift = _CONST_BITS + _PASS_BITS + 3
  block = _along(block, 1, lambda y: _inverse_pass(y, shift))
  block = jnp.clip(block + 128, 0, 255).reshape(8, 8, height // 8, width // 8)
  return block.transpose(2, 0, 3, 1).reshape(height, width)


def _pad_to(plane: jax.Array, height: int, width: int) -> jax.Array:
  rows, columns = height - plane.shape[0], width - plane.shape[1]
  return jnp.pad(plane, ((0, rows), (0, columns)), mode='edge')


def _up_to(size: int, unit: int) -> int:
  return -(-size // unit) * unit


def _halve(plane: jax.Array) -> jax.Array:
  """Mean of 2x2 pixels, rounded by a bias that alternates (jcsample.c)."""
  height, width = plane.shape
  # Columns are repeated before down-sampling, whole rows after it.
  plane = _pad_to(
    plane, _up_to(height, 2), _up_to(_up_to(width, 2) // 2, 8) * 2
  )
  total = plane[0::2, 0::2] + plane[0::2, 1::2]
  total += plane[1::2, 0::2] + plane[1::2, 1::2]
  bias = 1 + jnp.arange(total.shape[1], dtype=jnp.int32) % 2
  total = (total + bias[None, :]) >> 2
  return _pad_to(total, _up_to(total.shape[0], 8), total.shape[1])


def _double(plane: jax.Array, height: int, width: int) -> jax.Array:
  """Triangle-filter up-sampling by 2 in both directions (jdsample.c)."""
  plane = plane[: (height + 1) // 2, : (width + 1) // 2]
  if plane.shape[1] <= 2:  # libjpeg repeats pixels where the row is this short
    plane = jnp.repeat(jnp.repeat(plane, 2, 0), 2, 1)
    return plane[:height, :width]
  above = jnp.concatenate([plane[:1], plane[:-1]])
  below = jnp.concatenate([plane[1:], plane[-1:]])
  rows = jnp.stack([3 * plane + above, 3 * plane + below], 1)
  rows = rows.reshape(-1, plane.shape[1])
  left = jnp.concatenate([rows[:, :1], rows[:, :-1]], 1)
  right = jnp.concatenate([rows[:, 1:], rows[:, -1:]], 1)
  out = jnp.stack([(3 * rows + left + 8) >> 4, (3 * rows + right + 7) >> 4], 2)
  return out.reshape(rows.shape[0], -1)[:height, :width]


def _fix16(value: float) -> int:
  return _fix(value, 16)


def _to_ycc(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  red, green, blue = (image[..., c].astype(jnp.int32) for c in range(3))
  half, offset = 1 << 15, (128 << 16) + (1 << 15) - 1

  luma = (
    _fix16(0.299) * red + _fix16(0.587) * green + _fix16(0.114) * blue + half
  )
  cb = (
    -_fix16(0.16874) * red
    - _fix16(0.33126) * green
    + _fix16(0.5) * blue
    + offset
  )
  cr = (
    _fix16(0.5) * red
    - _fix16(0.41869) * green
    - _fix16(0.08131) * blue
    + offset
  )
  return luma >> 16, cb >> 16, cr >> 16


def _to_rgb(luma: jax.Array, cb: jax.Array, cr: jax.Array) -> jax.Array:
  cb, cr, half = cb - 128, cr - 128, 1 << 15

  red = luma + ((_fix16(1.402) * cr + half) >> 16)
  green = luma + ((-_fix16(0.34414) * cb - _fix16(0.71414) * cr + half) >> 16)
  blue = luma + ((_fix16(1.772) * cb + half) >> 16)
  return jnp.clip(jnp.stack([red, green, blue], -1), 0, 255).astype(jnp.uint8)


def quantisation_tables(quality: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Luminance and chrominance tables as `jpeg_set_quality` makes them.

  Args:
    quality: int32 scalar, 1..100.

  Returns:
    Two int32 arrays of shape (8, 8), values 1..255 (baseline).
  """
  quality = jnp.clip(jnp.asarray(quality, jnp.int32), 1, 100)
  scale = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)

  def scaled(table: np.ndarray) -> jax.Array:
    return jnp.clip((jnp.asarray(table) * scale + 50) // 100, 1, 255)

  return scaled(LUMA_TABLE), scaled(_CHROMA_TABLE)


def round_trip(image: jax.Array, quality: jax.Array) -> jax.Array:
  """What is left of an image after saving it as JPEG and reading it back.

  Args:
    image: uint8, shape (height, width, 3), any height and width from 1 up.
    quality: int32 scalar, 1..100; may be traced.

  Returns:
    uint8 image of the same shape, bit-exact with libjpeg-turbo at 4:2:0.
  """
  if image.dtype != jnp.uint8 or image.ndim != 3 or image.shape[-1] != 3:
    raise ValueError(
      'jpeg.round_trip takes one uint8 image of shape (height, width, 3), '
      f'not {image.dtype} {image.shape}'
    )
  height, width = image.shape[:2]
  luma_table, chroma_table = quantisation_tables(quality)
  luma, cb, cr = _to_ycc(image)
  luma = _pad_to(luma, _up_to(height, 8), _up_to(width, 8))
  luma = _code_plane(luma, luma_table)[:height, :width]
  cb, cr = (
    _double(_code_plane(_halve(chroma), chroma_table), height, width)
    for chroma in (cb, cr)
  )
  return _to_rgb(luma, cb, cr)
