"""Convolution, batch norm and pooling as Keras' models use them.

The fast forms that XLA lacks on a CPU live here alone; both forms of a layer
give the same values up to rounding, except for which of equal pixels gets a
max-pool's gradient.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Dtype = Any
Initializer = jax.nn.initializers.Initializer
# Keras' default.
GLOROT_UNIFORM = nn.initializers.glorot_uniform()
# The tap of a backbone where an image is an eighth of its size: after the
# first of the three stages of blocks.
FIRST_STAGE, FIRST_STAGE_STRIDE = 'first_stage', 8
_WANTS_PLAIN = contextvars.ContextVar('wants_plain', default=False)


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
  """Within it layers are traced in their plain forms alone.

  For other programs than XLA, which know no choice by processor.
  """
  token = _WANTS_PLAIN.set(True)
  # What was traced before has the choice inside.
  jax.clear_caches()
  try:
    yield
  finally:
    _WANTS_PLAIN.reset(token)
    jax.clear_caches()


def _by_processor(
  *operands: jax.Array,
  cpu: Callable[..., jax.Array],
  default: Callable[..., jax.Array],
) -> jax.Array:
  """One of two forms of a layer, by what it is compiled for."""
  if _WANTS_PLAIN.get():
    return default(*operands)
  return lax.platform_dependent(*operands, cpu=cpu, default=default)


def tap(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
  """Lets a caller of `apply` read an intermediate, and change it.

  Args:
    module: that computes it.
    name: of the intermediate.
    x: its value.

  Returns:
    The value, plus the variable of that name in the collection 'perturbations'
    if there is one: the gradient by that zero is the gradient by the value. It
    is stored where the collection 'intermediates' is mutable.
  """
  module.sow('intermediates', name, x)
  # A new model gets no such variable.
  return x if module.is_initializing() else module.perturb(name, x)


class PointwiseConv(nn.Module):
  """A 1x1 convolution as a matrix product, whose gradients XLA does faster.

  Attributes:
    features: number of output channels.
    use_bias: whether to add a bias.
    kernel_init: draws the kernel.
    dtype: dtype of the computation; parameters are float32.
  """

  features: int
  use_bias: bool = False
  kernel_init: Initializer = GLOROT_UNIFORM
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (batch, height, width, channels) to (..., features)."""
    kernel = self.param(
      'kernel', self.kernel_init, (1, 1, x.shape[-1], self.features)
    )
    x = jnp.einsum(
      'bhwc,cd->bhwd', x.astype(self.dtype), kernel[0, 0].astype(self.dtype)
    )
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      x = x + bias.astype(self.dtype)[None, None, None]
    return x


def conv(
  features: int,
  kernel_size: Sequence[int],
  *,
  strides: int = 1,
  padding: str = 'SAME',
  use_bias: bool = False,
  kernel_init: Initializer = GLOROT_UNIFORM,
  dtype: Dtype = jnp.float32,
  name: str | None = None,
) -> nn.Module:
  """A convolution in its fastest form.

  Args:
    features: number of output channels.
    kernel_size: height and width of the kernel.
    strides: step in both directions.
    padding: 'SAME' or 'VALID'.
    use_bias: whether to add a bias.
    kernel_init: draws the kernel.
    dtype: dtype of the computation.
    name: the module's name.

  Returns:
    A module that maps (batch, height, width, channels) arrays.
  """
  if tuple(kernel_size) == (1, 1) and strides == 1:
    return PointwiseConv(features, use_bias, kernel_init, dtype, name=name)
  return nn.Conv(
    features,
    tuple(kernel_size),
    strides=strides,
    padding=padding,
    use_bias=use_bias,
    dtype=dtype,
    kernel_init=kernel_init,
    name=name,
  )


def _doubled_by_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A transposed convolution as a plain one that makes four pixels of each.

  In one dimension pixel 2p is x[p] w[0] + x[p-1] w[2], and 2p + 1 is x[p] w[1]:
  a window of two pixels gives both.

  Args:
    x: shape (batch, height, width, channels).
    kernel: shape (3, 3, features, channels).

  Returns:
    Shape (batch, 2 height, 2 width, features).
  """
  batch, height, width, channels = x.shape
  features = kernel.shape[2]
  none = jnp.zeros_like(kernel[0])
  # (window, phase, ...) for rows, then for columns.
  rows = jnp.array([[kernel[2], none], [kernel[0], kernel[1]]])
  left, middle, right = (rows[:, :, i] for i in range(3))
  none = jnp.zeros_like(left)
  both = jnp.array([[right, none], [left, middle]])
  # (column, its phase, row, its phase, features, channels) to a kernel's order.
  both = both.transpose(2, 0, 5, 3, 1, 4)
  y = lax.conv_general_dilated(
    x,
    both.reshape(2, 2, channels, 4 * features),
    (1, 1),
    ((1, 0), (1, 0)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  y = y.reshape(batch, height, width, 2, 2, features)
  return y.transpose(0, 1, 3, 2, 4, 5).reshape(
    batch, 2 * height, 2 * width, features
  )


class TransposedConv(nn.Module):
  """A 3x3 transposed convolution that doubles both sides, in Keras' layout.

  It is a plain one: on a CPU XLA's own takes four times as long for the
  kernel's gradient. Not chosen by platform: a convolution's gradient crawls
  within `lax.platform_dependent`, as it does within loops.

  Attributes:
    features: number of output channels.
    dtype: dtype of the computation; parameters are float32.
  """

  features: int
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (batch, height, width, channels) to twice the sides."""
    kernel = self.param(
      'kernel', GLOROT_UNIFORM, (3, 3, self.features, x.shape[-1])
    )
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    y = _doubled_by_phases(x.astype(self.dtype), kernel.astype(self.dtype))
    return y + bias.astype(self.dtype)[None, None, None]


def batch_norm(
  *,
  train: bool,
  use_scale: bool,
  momentum: float = 0.99,
  dtype: Dtype = jnp.float32,
  name: str | None = None,
) -> nn.Module:
  """Batch normalisation with Keras' epsilon (1e-3).

  Args:
    train: normalise by the batch and update the statistics, or use them.
    use_scale: whether there is a gamma.
    momentum: of the moving statistics.
    dtype: dtype of the result; statistics are float32.
    name: the module's name.

  Returns:
    A module that maps (batch, height, width, channels) arrays.
  """
  return nn.BatchNorm(
    use_running_average=not train,
    momentum=momentum,
    epsilon=1e-3,
    use_scale=use_scale,
    dtype=dtype,
    name=name,
  )


def _slices(
  x: jax.Array, window: int, strides: int
) -> Iterator[tuple[tuple[int, int], jax.Array]]:
  """What each place of a window sees: ((row, column), strided slice of x)."""
  height, width = ((n - window) // strides for n in x.shape[1:3])
  for i in range(window):
    for j in range(window):
      rows = slice(i, i + height * strides + 1, strides)
      columns = slice(j, j + width * strides + 1, strides)
      yield (i, j), x[:, rows, columns]


Padding = tuple[tuple[int, int], tuple[int, int]]


def _sum_of_shifted(
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
      for (i, j), part in _slices(x, kernel.shape[0], strides)
    ),
  ).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """`_sum_of_shifted` with a gradient of its own."""
  return _sum_of_shifted(x, kernel, strides, padding)


def _shifted_forward(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _shifted(x, kernel, strides, padding), (x, kernel)


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
  spread = [
    (size - 1 - low, n + low - (m - 1) * strides - 1, strides - 1)
    for (low, _), n, m in zip(padding, x.shape[1:3], g.shape[1:3], strict=True)
  ]
  zero = jnp.zeros((), g.dtype)
  wide = lax.pad(g, zero, [(0, 0, 0), *spread, (0, 0, 0)])
  dx = _sum_of_shifted(wide, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))
  padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  dtype = jnp.promote_types(g.dtype, jnp.float32)
  products = [
    part.astype(dtype) * g.astype(dtype)
    for _, part in _slices(padded, size, strides)
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


_shifted.defvjp(_shifted_forward, _shifted_backward)


# Jitted, as the pools below: JAX traces and differentiates such a function once
# for all layers of one shape.
@functools.partial(jax.jit, static_argnames=('strides', 'padding'))
def _depthwise(
  x: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
  """See `_shifted`."""

  def grouped(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
      x,
      kernel.swapaxes(2, 3),
      (strides, strides),
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=x.shape[-1],
    )

  return _by_processor(
    x,
    kernel,
    cpu=lambda x, kernel: _shifted(x, kernel, strides, padding),
    default=grouped,
  )


class DepthwiseConv(nn.Module):
  """A convolution of every channel with a kernel of its own.

  On a CPU it is a sum of shifted, scaled copies: XLA's own grouped convolution
  runs there at under 1 GFLOP/s, this at 30 to 70. Its gradient is made for
  reverse mode alone (`jax.grad`, not `jax.jvp`).

  Attributes:
    kernel_size: side of the kernel.
    strides: step in both directions.
    padding: zeros before and after, for rows and for columns.
    dtype: dtype of the computation; parameters are float32.
  """

  kernel_size: int
  strides: int
  padding: Padding
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (batch, height, width, channels) arrays."""
    # Keras' layout, so that its initialisation has Keras' variance too.
    kernel = self.param(
      'kernel',
      GLOROT_UNIFORM,
      (self.kernel_size, self.kernel_size, x.shape[-1], 1),
    )
    return _depthwise(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      self.strides,
      self.padding,
    )


@functools.partial(jax.jit, static_argnames='window')
def max_pool(x: jax.Array, window: int) -> jax.Array:
  """Max-pool with stride 2 and no padding.

  On a CPU it is the maximum of strided slices: for 3x3, XLA's own window
  reduction takes 13 ms where this takes 1, and its gradient 117 ms against 25.

  Args:
    x: shape (batch, height, width, channels).
    window: side of the window.

  Returns:
    Shape (batch, (height - window) // 2 + 1, (width - window) // 2 + 1,
    channels).
  """
  return _by_processor(
    x,
    cpu=lambda x: functools.reduce(
      jnp.maximum, (part for _, part in _slices(x, window, 2))
    ),
    default=lambda x: nn.max_pool(
      x, window_shape=(window, window), strides=(2, 2), padding='VALID'
    ),
  )


@jax.jit
def average_pool_3x3(x: jax.Array) -> jax.Array:
  """3x3 average pool with stride 1, same size, padding not counted."""
  return _by_processor(
    x,
    cpu=_average_of_shifted,
    # Flax divides by the counts in float32.
    default=lambda x: nn.avg_pool(
      x,
      window_shape=(3, 3),
      strides=(1, 1),
      padding='SAME',
      count_include_pad=False,
    ).astype(x.dtype),
  )


def _average_of_shifted(x: jax.Array) -> jax.Array:
  ones = jnp.ones((3, 3, x.shape[-1], 1), x.dtype)
  total = _sum_of_shifted(x, ones, 1, ((1, 1), (1, 1)))
  rows, columns = (
    3.0 - (np.arange(n) == 0) - (np.arange(n) == n - 1) for n in x.shape[1:3]
  )
  counts = jnp.asarray(np.outer(rows, columns)[None, :, :, None], x.dtype)
  return total / counts
