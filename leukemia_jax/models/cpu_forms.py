"""Forms of layers that XLA lacks on a CPU.

Each gives what the plain form gives, up to rounding, several times as fast; the
modules of `layers` choose. Their gradients are made for reverse mode alone
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
NO_PADDING: Padding = ((0, 0), (0, 0))
# Up to so many a whole window is one line: a product of a line alone would be
# too narrow.
_FEW_CHANNELS = 3


def slices(
  x: jax.Array, window: int, strides: int
) -> Iterator[tuple[tuple[int, int], jax.Array]]:
  """What each place of a window sees: ((row, column), strided slice of x)."""
  height, width = ((n - window) // strides for n in x.shape[1:3])
  for i in range(window):
    for j in range(window):
      down = slice(i, i + height * strides + 1, strides)
      across = slice(j, j + width * strides + 1, strides)
      yield (i, j), x[:, down, across]


def _spread(
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
  dtype = x.dtype
  wide = jnp.promote_types(dtype, jnp.float32)
  x = jnp.pad(x, ((0, 0), *padding, (0, 0))).astype(wide)
  kernel = kernel.astype(wide)
  return functools.reduce(
    jnp.add,
    (
      part * kernel[i, j, None, None, None, :, 0]
      for (i, j), part in slices(x, kernel.shape[0], strides)
    ),
  ).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """`sum_of_shifted` with a gradient of its own."""
  return sum_of_shifted(x, kernel, strides, padding)


def _shifted_forward(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return shifted(x, kernel, strides, padding), (x, kernel)


def _shifted_backward(
  strides: int,
  padding: Padding,
  residuals: tuple[jax.Array, jax.Array],
  g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """What autodiff gives, 5 to 8 times faster on a CPU.

  The images' gradient is the same sum again, with the kernel turned round. The
  kernel's is one pass that sums for all of its places at once, where autodiff
  reads both arrays for each of them.
  """
  x, kernel = residuals
  size = kernel.shape[0]
  wide = _spread(g, x.shape, kernel.shape, strides, padding)
  dx = sum_of_shifted(wide, kernel[::-1, ::-1], 1, NO_PADDING)
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  dtype = jnp.promote_types(g.dtype, jnp.float32)
  products = [
    part.astype(dtype) * g.astype(dtype)
    for _, part in slices(padded, size, strides)
  ]
  sums = lax.reduce(
    products,
    [jnp.zeros((), dtype)] * len(products),
    lambda a, b: [i + j for i, j in zip(a, b, strict=True)],
    (1, 2),
  )
  # The batch last: XLA sums for several images at a time.
  dkernel = jnp.stack(sums).sum(1).reshape(kernel.shape)
  return dx, dkernel.astype(kernel.dtype)


shifted.defvjp(_shifted_forward, _shifted_backward)


def max_of_shifted(x: jax.Array, window: int) -> jax.Array:
  """Max-pool with stride 2 and no padding."""
  return functools.reduce(
    jnp.maximum, (part for _, part in slices(x, window, 2))
  )


def average_of_shifted(x: jax.Array) -> jax.Array:
  """3x3 average with stride 1, same size, padding not counted."""
  ones = jnp.ones((3, 3, x.shape[-1], 1), x.dtype)
  total = sum_of_shifted(x, ones, 1, ((1, 1), (1, 1)))
  down, across = (
    3.0 - (np.arange(n) == 0) - (np.arange(n) == n - 1) for n in x.shape[1:3]
  )
  counts = jnp.asarray(np.outer(down, across)[None, :, :, None], x.dtype)
  return total / counts


def _dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A matrix product over the last axis, summed in float32.

  Processors with matrix units for bfloat16 are reached by this alone, not by
  XLA's convolution, nor by `@`.
  """
  dimensions = (((x.ndim - 1,), (0,)), ((), ()))
  return lax.dot_general(
    x, kernel, dimensions, preferred_element_type=jnp.float32
  )


def _windows(
  x: jax.Array, size: int, strides: int, axis: int
) -> list[jax.Array]:
  """What each place of a one-dimensional window sees along an axis."""
  reach = (x.shape[axis] - size) // strides * strides + 1
  return [lax.slice_in_dim(x, i, i + reach, strides, axis) for i in range(size)]


def _products(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """An unpadded convolution as products of columns with the kernel's matrix.

  What a window sees of a line stands side by side; lines are summed. Images of
  few channels, and windows of one line, make one product alone.

  Args:
    x: shape (batch, height, width, channels).
    kernel: shape (height, width, channels, features).
    strides: step in both directions.

  Returns:
    float32, shape (batch, height', width', features).
  """
  down, across, channels, features = kernel.shape
  x = jnp.concatenate(_windows(x, across, strides, 2), -1)
  lines = _windows(x, down, strides, 1)
  kernel = kernel.reshape(down, across * channels, features)
  if across == 1 or channels <= _FEW_CHANNELS:
    lines, kernel = (
      [jnp.concatenate(lines, -1)],
      kernel.reshape(1, -1, features),
    )
  return functools.reduce(jnp.add, map(_dot, lines, kernel))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product_conv(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  x = jnp.pad(x.astype(jnp.bfloat16), ((0, 0), *padding, (0, 0)))
  return _products(x, kernel.astype(jnp.bfloat16), strides)


# Jitted, as in `layers`: traced and differentiated once for all of one shape.
@functools.partial(jax.jit, static_argnums=(2, 3))
def product_conv(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """A convolution by bfloat16 products with float32 sums.

  Args:
    x: float, shape (batch, height, width, channels).
    kernel: float, shape (height, width, channels, features).
    strides: step in both directions.
    padding: zeros before and after, for rows and for columns.

  Returns:
    float32, shape (batch, height', width', features). Gradients are made in
    the same way.
  """
  return _product_conv(x, kernel, strides, padding)


def _product_forward(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
  # Half the memory; of x itself no more than the dtype is needed.
  stored = x.astype(jnp.bfloat16)
  y = _product_conv(stored, kernel, strides, padding)
  return y, (stored, kernel, jnp.zeros((), x.dtype))


def _product_backward(
  strides: int,
  padding: Padding,
  residuals: tuple[jax.Array, jax.Array, jax.Array],
  g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """A convolution for the images, a product a line for the kernel."""
  x, kernel, like = residuals
  g = g.astype(jnp.bfloat16)
  wide = _spread(g, x.shape, kernel.shape, strides, padding)
  turned = kernel.astype(jnp.bfloat16)[::-1, ::-1].swapaxes(2, 3)
  dx = _products(wide, turned, 1)
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  down, across, channels, features = kernel.shape
  x = jnp.concatenate(_windows(x, across, strides, 2), -1)
  flat = g.reshape(-1, features)
  dkernel = jnp.stack(
    [
      lax.dot_general(
        # Products over several axes at once fail when they run.
        line.reshape(-1, across * channels),
        flat,
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
      )
      for line in _windows(x, down, strides, 1)
    ]
  ).reshape(kernel.shape)
  return dx.astype(like.dtype), dkernel.astype(kernel.dtype)


_product_conv.defvjp(_product_forward, _product_backward)
