"""Convolutions on a CPU: products of bfloat16, pairs of pixels, and gradients.

As `cpu_forms`: each gives what XLA's own form gives, up to rounding.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from leukemia_jax.models.cpu_forms import Padding, spread

# Up to so many a whole window is one line: a product of a line alone would be
# too narrow.
_FEW_CHANNELS = 3
# Up to so many XLA's own convolution is slow.
_NARROW = 8


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


def _conv_of_pairs(
  x: jax.Array, kernel: jax.Array, padding: Padding
) -> jax.Array:
  """A convolution that takes two neighbours of a line for one pixel.

  With twice the channels XLA's is more than twice as fast, and a quarter of
  its products are with zeros.

  Args:
    x: shape (batch, height, width, channels).
    kernel: shape (height, an odd width, channels, features).
    padding: zeros before and after, for rows and for columns.

  Returns:
    Shape (batch, height', an even width', features).
  """
  down, across, channels, features = kernel.shape
  vertical, horizontal = padding
  x = jnp.pad(x, ((0, 0), (0, 0), horizontal, (0, 0)))
  x = x.reshape(*x.shape[:2], -1, 2 * channels)
  # The second result of a pair sees what lies one pixel further.
  shifted = [
    jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1)
  ]
  kernel = jnp.stack(shifted, 3)
  kernel = kernel.reshape(down, (across + 1) // 2, 2 * channels, 2 * features)
  y = plain_conv(x, kernel, 1, (vertical, (0, 0)))
  return y.reshape(*y.shape[:2], -1, features)


def _pairs_pay(
  kernel: tuple[int, ...], strides: int, result: tuple[int, ...]
) -> bool:
  """Whether `_conv_of_pairs` is faster than XLA's own form.

  Measured as `_kernel_form`: inside these bounds it is 1.2 to 2.8 times as
  fast, its gradient by the image 1.3 to 2.7 times; on smaller images a network
  gains nothing.

  Args:
    kernel: shape of the kernel.
    strides: of the convolution.
    result: shape of the result.
  """
  _, across, *channels = kernel
  _, height, width, _ = result
  is_narrow = across == 3 and max(channels) <= _NARROW
  return (
    strides == 1 and is_narrow and width % 2 == 0 and height * width >= 56 * 56
  )


def _kernel_by_products(
  x: jax.Array,
  g: jax.Array,
  shape: tuple[int, ...],
  strides: int,
  padding: Padding,
) -> jax.Array:
  """A kernel's gradient as one product for each of its places.

  Args:
    x: shape (batch, height, width, channels).
    g: gradient of the result, shape (batch, height', width', features).
    shape: of the kernel.
    strides: of the convolution.
    padding: of the convolution.

  Returns:
    The gradient, of that shape.
  """
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
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


def _kernel_turned(
  x: jax.Array,
  g: jax.Array,
  shape: tuple[int, ...],
  strides: int,
  padding: Padding,
) -> jax.Array:
  """A kernel's gradient as that of the convolution of `g` that gives `x`.

  Of the two that has the more features, which is what XLA's needs.

  Args and result: as in `_kernel_by_products`, of stride 1 alone.
  """
  down, across, channels, features = shape
  vertical, horizontal = (
    (size - 1 - before, size - 1 - after)
    for size, (before, after) in zip((down, across), padding, strict=True)
  )
  like = jnp.zeros((down, across, features, channels), x.dtype)
  by_kernel = jax.vjp(
    lambda k: plain_conv(g, k, strides, (vertical, horizontal)), like
  )[1]
  return by_kernel(x)[0][::-1, ::-1].swapaxes(2, 3)


_KernelGradient = Callable[..., jax.Array]


def _kernel_form(
  kernel: tuple[int, ...], pixels: int, strides: int
) -> _KernelGradient | None:
  """The form of a kernel's gradient that is faster than XLA's own.

  Measured with jax 0.10 and 0.12 on two cores, on the shapes of the models at
  112 and 224 px: inside these bounds XLA's takes as long to 5 times as long,
  outside half as long to about as long.

  Args:
    kernel: shape of the kernel.
    pixels: of one image of the result.
    strides: of the convolution.

  Returns:
    The form; None for XLA's.
  """
  down, across, channels, features = kernel
  if down * across == 1:
    return None
  is_wide = channels >= 96 or features > channels >= 20
  is_even = (down, across) == (2, 2)
  if (is_wide or is_even) and pixels <= 56 * 56:
    return _kernel_by_products
  is_narrowed = features <= _NARROW < channels <= 2 * _NARROW
  return _kernel_turned if strides == 1 and is_narrowed else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(
  x: jax.Array,
  kernel: jax.Array,
  strides: int,
  padding: Padding,
  kernel_gradient: _KernelGradient,
) -> jax.Array:
  del kernel_gradient
  return plain_conv(x, kernel, strides, padding)


def _conv_forward(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding, _: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return plain_conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(
  strides: int,
  padding: Padding,
  kernel_gradient: _KernelGradient,
  residuals: tuple[jax.Array, jax.Array],
  g: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """XLA's own gradient for the images, another form for the kernel."""
  x, kernel = residuals
  # The copies that the kernel's needs are made then, and gone before the rest:
  # XLA would make those of all layers first.
  x, g = lax.optimization_barrier((x, g))
  dkernel = kernel_gradient(x, g, kernel.shape, strides, padding)
  g, dkernel = lax.optimization_barrier((g, dkernel))
  by_images = jax.vjp(lambda x: plain_conv(x, kernel, strides, padding), x)[1]
  return by_images(g)[0], dkernel


_conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.jit, static_argnums=(2, 3))
def conv(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """XLA's convolution, in pairs of pixels or with another gradient if faster.

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
  if _pairs_pay(kernel.shape, strides, result.shape):
    return _conv_of_pairs(x, kernel, padding)
  pixels = result.shape[1] * result.shape[2]
  if gradient := _kernel_form(kernel.shape, pixels, strides):
    return _conv(x, kernel, strides, padding, gradient)
  return plain_conv(x, kernel, strides, padding)


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
