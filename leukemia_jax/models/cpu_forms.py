"""Forms of layers that XLA lacks on a CPU.

Each gives what the plain form gives, up to rounding, several times as fast; the
modules of `layers` choose, and take gradients in reverse mode alone
(`jax.grad`, not `jax.jvp`).
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Zeros before and after, for rows and for columns.
Padding = tuple[tuple[int, int], tuple[int, int]]
_LARGEST = np.int16(0x7FFF)


def slices(
  x: jax.Array, window: int, strides: int
) -> Iterator[tuple[tuple[int, int], jax.Array]]:
  """What each place of a window sees: ((row, column), strided slice of x)."""
  batch, *sides, channels = x.shape
  height, width = ((n - window) // strides * strides + 1 for n in sides)
  steps = (1, strides, strides, 1)
  for i in range(window):
    for j in range(window):
      # Plain indexing takes several times as long to trace.
      yield (
        (i, j),
        lax.slice(
          x, (0, i, j, 0), (batch, i + height, j + width, channels), steps
        ),
      )


def spread(
  g: jax.Array,
  shape: tuple[int, ...],
  kernel: tuple[int, ...],
  strides: int,
  padding: Padding,
) -> jax.Array:
  """A result's gradient, with the zeros that its way back needs.

  Args:
    g: shape (batch, height', width', features).
    shape: of the convolved images.
    kernel: shape of the kernel.
    strides: of the convolution.
    padding: of the convolution.

  Returns:
    g with zeros between and around: an unpadded convolution with stride 1 gives
    the images' height and width.
  """
  edges = [
    (size - 1 - low, n + low - (m - 1) * strides - 1, strides - 1)
    for size, (low, _), n, m in zip(
      kernel[:2], padding, shape[1:3], g.shape[1:3], strict=True
    )
  ]
  zero = jnp.zeros((), g.dtype)
  return lax.pad(g, zero, [(0, 0, 0), *edges, (0, 0, 0)])


# Jitted: layers of one shape, and their gradients, share what is traced.
@functools.partial(jax.jit, static_argnames='strides')
def _sum_of_windows(
  padded: jax.Array, kernel: jax.Array, strides: int
) -> jax.Array:
  """An unpadded depthwise convolution; see `sum_of_shifted`."""
  wide = jnp.promote_types(padded.dtype, jnp.float32)
  size, _, channels, _ = kernel.shape

  def scale(i: int, j: int, part: jax.Array) -> jax.Array:
    place = lax.slice(kernel, (i, j, 0, 0), (i + 1, j + 1, channels, 1))
    factors = place.reshape(channels).astype(wide)
    return lax.mul(part, lax.broadcast_in_dim(factors, part.shape, (3,)))

  windows = slices(padded.astype(wide), size, strides)
  parts = (scale(i, j, part) for (i, j), part in windows)
  return functools.reduce(lax.add, parts).astype(padded.dtype)


def sum_of_shifted(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """A depthwise convolution as a sum of shifted, scaled copies.

  Args:
    x: shape (batch, height, width, channels).
    kernel: shape (size, size, channels, 1).
    strides: step in both directions.
    padding: zeros before and after, for rows and for columns.

  Returns:
    Shape (batch, height', width', channels), summed in float32 or better.
  """
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  return _sum_of_windows(padded, kernel, strides)


def sum_of_shifted_gradient(
  x: jax.Array, kernel: jax.Array, g: jax.Array, strides: int, padding: Padding
) -> tuple[jax.Array, jax.Array]:
  """What autodiff gives of `sum_of_shifted`, 5 to 8 times faster on a CPU.

  The images' gradient is the same sum again, with the kernel turned round. The
  kernel's is one pass that sums for all of its places at once, where autodiff
  reads both arrays for each of them.

  Args:
    x: as there, and all others but g.
    kernel: as there.
    g: gradient of the result.
    strides: as there.
    padding: as there.

  Returns:
    The gradients of x and kernel.
  """
  size = kernel.shape[0]
  wide = spread(g, x.shape, kernel.shape, strides, padding)
  dx = _sum_of_windows(wide, lax.rev(kernel, (0, 1)), 1)
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  dtype = jnp.promote_types(g.dtype, jnp.float32)
  g, padded = g.astype(dtype), padded.astype(dtype)
  products = [lax.mul(part, g) for _, part in slices(padded, size, strides)]
  sums = lax.reduce(
    products,
    [jnp.zeros((), dtype)] * len(products),
    lambda a, b: [i + j for i, j in zip(a, b, strict=True)],
    (1, 2),
  )
  # The batch last: XLA sums for several images at a time.
  dkernel = jnp.stack(sums).sum(1).reshape(kernel.shape)
  return dx, dkernel.astype(kernel.dtype)


def _as_ordered(x: jax.Array) -> jax.Array:
  """Whole numbers in the order of bfloat16's, any NaN above all.

  XLA compares these 8 to 40 times as fast as bfloat16 itself.
  """
  bits = lax.bitcast_convert_type(x, jnp.int16)
  ordered = jnp.where(bits < 0, bits ^ _LARGEST, bits)
  return jnp.where(jnp.isnan(x), _LARGEST, ordered)


def _from_ordered(ordered: jax.Array) -> jax.Array:
  """`_as_ordered` back."""
  bits = jnp.where(ordered < 0, ordered ^ _LARGEST, ordered)
  return lax.bitcast_convert_type(bits, jnp.bfloat16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_of_shifted(x: jax.Array, window: int) -> jax.Array:
  """Max-pool with stride 2 and no padding; of equal pixels the first counts."""
  if x.dtype == jnp.bfloat16:
    return _from_ordered(max_of_shifted(_as_ordered(x), window))
  return functools.reduce(
    jnp.maximum, (part for _, part in slices(x, window, 2))
  )


def _max_forward(
  x: jax.Array, window: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  """The maxima, and which place of its window each comes from."""
  parts = (part for _, part in slices(x, window, 2))
  largest = next(parts)
  winner = jnp.zeros(largest.shape, jnp.uint8)
  for place, part in enumerate(parts, 1):
    winner = jnp.where(part > largest, jnp.uint8(place), winner)
    largest = jnp.maximum(largest, part)
  # Of x itself no more than the sides is needed.
  return largest, (winner, jnp.zeros((0, *x.shape[1:3])))


def _max_backward(
  window: int, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array]:
  """Every pixel gathers from the windows that it wins: no scatter.

  Pixels of even and odd rows and columns lie in windows at even and odd places.
  Autodiff of the maxima takes 3 to 25 times as long.
  """
  winner, like = residuals
  batch, *windows, channels = g.shape
  sides = like.shape[1:3]
  halves = [(side + 1) // 2 for side in sides]
  # A window before the first one: pixel 2w lies in windows w and w - 1.
  before = (window - 1) // 2
  pads = [
    (before, half - count) for half, count in zip(halves, windows, strict=True)
  ]
  pads = [(0, 0), *pads, (0, 0)]
  g, winner = lax.optimization_barrier(
    (jnp.pad(g, pads), jnp.pad(winner, pads, constant_values=window**2))
  )

  def won(i: int, j: int) -> jax.Array:
    """What pixels get from the windows that see them at place (i, j)."""
    down, across = (
      slice(before - place // 2, before - place // 2 + half)
      for place, half in zip((i, j), halves, strict=True)
    )
    is_winner = winner[:, down, across] == i * window + j
    return jnp.where(is_winner, g[:, down, across], 0)

  phases = [
    jnp.stack(
      [
        functools.reduce(
          jnp.add,
          (
            won(i, j)
            for i in range(odd_row, window, 2)
            for j in range(odd_column, window, 2)
          ),
        )
        for odd_column in range(2)
      ],
      3,
    )
    for odd_row in range(2)
  ]
  dx = jnp.stack(phases, 2).reshape(
    batch, 2 * halves[0], 2 * halves[1], channels
  )
  return (dx[:, : sides[0], : sides[1]],)


max_of_shifted.defvjp(_max_forward, _max_backward)


def _counted(x: jax.Array) -> jax.Array:
  """Pixels of a 3x3 window that lie inside, shape (1, height, width, 1)."""
  down, across = (
    3.0 - (np.arange(n) == 0) - (np.arange(n) == n - 1) for n in x.shape[1:3]
  )
  return jnp.asarray(np.outer(down, across)[None, :, :, None], x.dtype)


def _sum_of_neighbours(x: jax.Array) -> jax.Array:
  ones = jnp.ones((3, 3, x.shape[-1], 1), x.dtype)
  return sum_of_shifted(x, ones, 1, ((1, 1), (1, 1)))


def average_of_shifted(x: jax.Array) -> jax.Array:
  """3x3 average with stride 1, same size, padding not counted."""
  return _sum_of_neighbours(x) / _counted(x)


def average_of_shifted_gradient(g: jax.Array) -> jax.Array:
  """The gradient of x in `average_of_shifted` by that of its result."""
  return _sum_of_neighbours(g / _counted(g))
