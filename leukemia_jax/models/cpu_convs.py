"""Convolutions on a CPU: in products of bfloat16, and a kernel's gradient.

As `cpu_forms`: each gives what XLA's own form gives, up to rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from leukemia_jax.models.cpu_forms import Padding, spread

# Up to so many a whole window is one line: a product of a line alone would be
# too narrow.
_FEW_CHANNELS = 3


@jax.custom_jvp
def _as_bits(x: jax.Array) -> jax.Array:
  """Rounded to bfloat16, as uint16: XLA moves bfloat16 about as float32."""
  return lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)


@_as_bits.defjvp
def _refuse_second_derivatives(*_: object) -> tuple[jax.Array, jax.Array]:
  # Bits have none, and JAX would take them for constants.
  raise NotImplementedError('second derivatives of products of bfloat16')


def _as_numbers(bits: jax.Array) -> jax.Array:
  """`_as_bits` back."""
  return lax.bitcast_convert_type(bits, jnp.bfloat16)


def _dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A matrix product over the last axis, summed in float32.

  Processors with matrix units for bfloat16 are reached by this alone, not by
  XLA's convolution, nor by `@`.
  """
  dimensions = (((x.ndim - 1,), (0,)), ((), ()))
  return lax.dot_general(
    x, kernel, dimensions, preferred_element_type=jnp.float32
  )


@jax.custom_vjp
def join(maps: list[jax.Array]) -> jax.Array:
  """Joins maps over their channels, rounded as the products of them would.

  Args:
    maps: float, shape (batch, height, width, channels), of a dtype each.

  Returns:
    bfloat16, shape (batch, height, width, sum of channels).
  """
  return _as_numbers(jnp.concatenate([*map(_as_bits, maps)], -1))


def _join_forward(
  maps: list[jax.Array],
) -> tuple[jax.Array, list[jax.Array]]:
  # Of the maps no more than channels and dtypes is needed.
  return join(maps), [x[0, 0, :0] for x in maps]


def _join_backward(
  like: list[jax.Array], g: jax.Array
) -> tuple[list[jax.Array]]:
  ends = np.cumsum([x.shape[-1] for x in like])[:-1]
  parts = jnp.split(g, ends, -1)
  return ([part.astype(x.dtype) for part, x in zip(parts, like, strict=True)],)


join.defvjp(_join_forward, _join_backward)


def _windows(
  x: jax.Array, size: int, strides: int, axis: int
) -> list[jax.Array]:
  """What each place of a one-dimensional window sees along an axis."""
  reach = (x.shape[axis] - size) // strides * strides + 1
  return [lax.slice_in_dim(x, i, i + reach, strides, axis) for i in range(size)]


def _products(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """An unpadded convolution as products of columns with the kernel's matrix.

  What a window sees of a line stands side by side; lines are summed. Images of
  few channels, and windows of one line or column, make one product alone.

  Args:
    x: bits of bfloat16, shape (batch, height, width, channels).
    kernel: bfloat16, shape (height, width, channels, features).
    strides: step in both directions.

  Returns:
    float32, shape (batch, height', width', features).
  """
  down, across, channels, features = kernel.shape
  x = jnp.concatenate(_windows(x, across, strides, 2), -1)
  if across == 1 or channels <= _FEW_CHANNELS:
    x = jnp.concatenate(_windows(x, down, strides, 1), -1)
    return _dot(_as_numbers(x), kernel.reshape(-1, features))
  kernel = kernel.reshape(down, across * channels, features)
  if strides > 1:
    lines = map(_as_numbers, _windows(x, down, strides, 1))
    return functools.reduce(jnp.add, map(_dot, lines, kernel))
  # A product of all lines, of which some are left out, costs less than to copy
  # those that are needed.
  x = _as_numbers(x)
  reach = x.shape[1] - down + 1
  return functools.reduce(
    jnp.add,
    (
      lax.slice_in_dim(_dot(x, part), i, i + reach, axis=1)
      for i, part in enumerate(kernel)
    ),
  )


def _kernel_by_products(
  x: jax.Array, g: jax.Array, shape: tuple[int, ...], strides: int
) -> jax.Array:
  """A kernel's gradient as one product for each of its places.

  Args:
    x: padded, shape (batch, height, width, channels).
    g: gradient of the result, shape (batch, height', width', features).
    shape: of the kernel.
    strides: of the convolution.

  Returns:
    The gradient, of that shape.
  """
  flat = g.reshape(-1, shape[3])
  return jnp.stack(
    [
      lax.dot_general(
        part.reshape(-1, shape[2]), flat, (((0,), (0,)), ((), ()))
      )
      for line in _windows(x, shape[0], strides, 1)
      for part in _windows(line, shape[1], strides, 2)
    ]
  ).reshape(shape)


def _products_pay(kernel: tuple[int, ...], pixels: int) -> bool:
  """Whether `_kernel_by_products` is faster than XLA's own form.

  Measured with jax 0.10 and 0.12 on two cores, on the shapes of the models at
  112 and 224 px: inside these bounds XLA's takes as long to 5 times as long,
  outside half as long to about as long.

  Args:
    kernel: shape of the kernel.
    pixels: of one image of the result.
  """
  down, across, channels, features = kernel
  is_wide = channels >= 96 or features > channels >= 20
  is_even = (down, across) == (2, 2)
  return down * across > 1 and (is_wide or is_even) and pixels <= 56 * 56


def plain_conv(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """XLA's own convolution; see `conv`."""
  return lax.conv_general_dilated(
    x,
    kernel,
    (strides, strides),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  return plain_conv(x, kernel, strides, padding)


def _conv_forward(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return plain_conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(
  strides: int,
  padding: Padding,
  residuals: tuple[jax.Array, jax.Array],
  g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """XLA's own gradient for the images, products for the kernel."""
  x, kernel = residuals
  by_images = jax.vjp(lambda x: plain_conv(x, kernel, strides, padding), x)[1]
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  dkernel = _kernel_by_products(padded, g, kernel.shape, strides)
  return by_images(g)[0], dkernel


_conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.jit, static_argnums=(2, 3))
def conv(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """XLA's convolution, with a faster gradient for the kernel if there is one.

  Args:
    x: float, shape (batch, height, width, channels).
    kernel: shape (height, width, channels, features), of that dtype.
    strides: step in both directions.
    padding: zeros before and after, for rows and for columns.

  Returns:
    Shape (batch, height', width', features), of that dtype.
  """
  result = jax.eval_shape(
    lambda x, kernel: plain_conv(x, kernel, strides, padding), x, kernel
  )
  pixels = result.shape[1] * result.shape[2]
  form = _conv if _products_pay(kernel.shape, pixels) else plain_conv
  return form(x, kernel, strides, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product_conv(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  x = jnp.pad(_as_bits(x), ((0, 0), *padding, (0, 0)))
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
  g = _as_bits(g)
  wide = spread(g, x.shape, kernel.shape, strides, padding)
  turned = kernel.astype(jnp.bfloat16)[::-1, ::-1].swapaxes(2, 3)
  dx = _products(wide, turned, 1)
  x = jnp.pad(_as_bits(x), ((0, 0), *padding, (0, 0)))
  down, across, channels, features = kernel.shape
  x = jnp.concatenate(_windows(x, across, strides, 2), -1)
  # XLA makes products over the first axis of their left side in float32: so g
  # is turned here, and made flat between, or XLA would turn it back.
  turned_g = lax.optimization_barrier(g.reshape(-1, features).T.ravel())
  turned_g = _as_numbers(turned_g).reshape(features, -1)
  dkernel = jnp.stack(
    [
      # Products over several axes at once fail when they run.
      _dot(turned_g, _as_numbers(line.reshape(-1, across * channels)))
      for line in _windows(x, down, strides, 1)
    ]
  )
  dkernel = dkernel.swapaxes(1, 2).reshape(kernel.shape)
  return dx.astype(like.dtype), dkernel.astype(kernel.dtype)


_product_conv.defvjp(_product_forward, _product_backward)
