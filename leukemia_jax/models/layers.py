"""Convolution, batch norm and pooling as Keras' models use them.

The modules choose between XLA's own form of a layer and that of `cpu_forms` or
`cpu_convs`; both give the same values up to rounding.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from leukemia_jax.models import cpu_convs, cpu_forms, initializers

Dtype = Any
# The tap of a backbone where an image is an eighth of its size: after the
# first of the three stages of blocks.
FIRST_STAGE, FIRST_STAGE_STRIDE = 'first_stage', 8
_WANTS_PLAIN = contextvars.ContextVar('wants_plain', default=False)


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
  """Within it layers are traced in their plain forms alone.

  For other programs than XLA, which know no choice by processor. A model's
  variables must be constants there: batch norms are worked out while tracing.
  """
  token = _WANTS_PLAIN.set(True)
  # What was traced before has the choice inside.
  jax.clear_caches()
  try:
    yield
  finally:
    _WANTS_PLAIN.reset(token)
    jax.clear_caches()


def wants_plain() -> bool:
  """Whether this is within `plain_forms`."""
  return _WANTS_PLAIN.get()


def _by_processor(
  *operands: jax.Array,
  cpu: Callable[..., jax.Array],
  cpu_gradient: Callable[..., tuple[jax.Array, ...]] | None = None,
  default: Callable[..., jax.Array],
) -> jax.Array:
  """One of two forms of a layer, by what it is compiled for.

  Args:
    *operands: of the layer.
    cpu: the form for CPUs.
    cpu_gradient: from operands and the result's gradient to the operands', for
      reverse mode alone; else the choice itself is differentiated, which takes
      several times as long to trace.
    default: the form for all others.
  """
  if wants_plain():
    return default(*operands)

  # Traced once for the layer and for its gradient's rule.
  choose = jax.jit(
    functools.partial(lax.platform_dependent, cpu=cpu, default=default)
  )
  if cpu_gradient is None:
    return choose(*operands)

  def default_gradient(*args: jax.Array) -> tuple[jax.Array, ...]:
    *operands, g = args
    return jax.vjp(default, *operands)[1](g)

  def backward(
    operands: tuple[jax.Array, ...], g: jax.Array
  ) -> tuple[jax.Array, ...]:
    return lax.platform_dependent(
      *operands, g, cpu=cpu_gradient, default=default_gradient
    )

  layer = jax.custom_vjp(choose)
  layer.defvjp(lambda *operands: (choose(*operands), operands), backward)
  return layer(*operands)


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


def _is_for_cpu() -> bool:
  """Whether convolutions are traced in the forms of `cpu_convs`.

  Chosen while tracing, unlike the other layers' forms: a convolution's gradient
  crawls within `lax.platform_dependent`, as it does within loops.
  """
  return jax.default_backend() == 'cpu' and not wants_plain()


def _makes_products(dtype: Dtype) -> bool:
  """Whether convolutions are products of bfloat16 with float32 sums."""
  return jnp.dtype(dtype) == jnp.bfloat16 and _is_for_cpu()


def map_dtype(dtype: Dtype, *, train: bool) -> Dtype:
  """The dtype of feature maps between layers.

  Args:
    dtype: of the computation.
    train: whether a gradient follows.

  Returns:
    The dtype; on a CPU bfloat16's products round what they take themselves,
    and training is faster if nothing is rounded between them.
  """
  return jnp.float32 if train and _makes_products(dtype) else dtype


def concatenate(
  maps: Sequence[jax.Array], dtype: Dtype, *, train: bool
) -> jax.Array:
  """Joins maps over their channels for convolutions to take.

  Args:
    maps: shape (batch, height, width, channels).
    dtype: of the convolutions' computation.
    train: whether a gradient follows.

  Returns:
    Shape (batch, height, width, sum of channels); on a CPU, in inference for
    bfloat16's products, rounded as each of them would do it.
  """
  if train or not _makes_products(dtype):
    return jnp.concatenate(maps, -1)
  return cpu_convs.join(list(maps))


def _convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: int,
  padding: str | cpu_forms.Padding,
  dtype: Dtype,
) -> jax.Array:
  """A convolution in its fastest form.

  Args:
    x: shape (batch, height, width, channels).
    kernel: shape (height, width, channels, features).
    strides: step in both directions.
    padding: 'SAME', 'VALID', or zeros before and after, for rows and columns.
    dtype: dtype of the computation.

  Returns:
    Shape (batch, height', width', features), of that dtype, or float32 where
    products are summed so.
  """
  window, steps = kernel.shape[:2], (strides, strides)
  if isinstance(padding, str):
    pads = lax.padtype_to_pads(x.shape[1:3], window, steps, padding)
    padding = pads[0], pads[1]
  if _makes_products(dtype):
    return cpu_convs.product_conv(x, kernel, strides, padding)
  x, kernel = x.astype(dtype), kernel.astype(dtype)
  if window == (1, 1) and strides == 1 and not wants_plain():
    # XLA differentiates a matrix product faster.
    return x @ kernel[0, 0]
  form = cpu_convs.conv if _is_for_cpu() else cpu_convs.plain_conv
  return form(x, kernel, strides, padding)


class Conv(nn.Module):
  """A convolution.

  Attributes:
    features: number of output channels.
    kernel_size: height and width of the kernel.
    strides: step in both directions.
    padding: 'SAME' or 'VALID'.
    use_bias: whether to add a bias.
    kernel_init: draws the kernel.
    dtype: dtype of the computation; parameters are float32.
  """

  features: int
  kernel_size: tuple[int, int]
  strides: int = 1
  padding: str = 'SAME'
  use_bias: bool = False
  kernel_init: initializers.Initializer = initializers.GLOROT_UNIFORM
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (batch, height, width, channels) arrays; see `_convolve`."""
    shape = (*self.kernel_size, x.shape[-1], self.features)
    y = _convolve(
      x,
      self.param('kernel', self.kernel_init, shape),
      strides=self.strides,
      padding=self.padding,
      dtype=self.dtype,
    )
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, (self.features,))
      y = y + bias.astype(y.dtype)[None, None, None]
    return y


def _doubled_by_phases(
  x: jax.Array, kernel: jax.Array, dtype: Dtype
) -> jax.Array:
  """A transposed convolution as a plain one that makes four pixels of each.

  In one dimension pixel 2p is x[p] w[0] + x[p-1] w[2], and 2p + 1 is x[p] w[1]:
  a window of two pixels gives both.

  Args:
    x: shape (batch, height, width, channels).
    kernel: shape (3, 3, features, channels).
    dtype: dtype of the computation.

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
  y = _convolve(
    x,
    both.reshape(2, 2, channels, 4 * features),
    strides=1,
    padding=((1, 0), (1, 0)),
    dtype=dtype,
  )
  y = y.reshape(batch, height, width, 2, 2, features)
  return y.transpose(0, 1, 3, 2, 4, 5).reshape(
    batch, 2 * height, 2 * width, features
  )


class TransposedConv(nn.Module):
  """A 3x3 transposed convolution that doubles both sides, in Keras' layout.

  It is a plain one: on a CPU XLA's own takes four times as long for the
  kernel's gradient.

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
      'kernel', initializers.GLOROT_UNIFORM, (3, 3, self.features, x.shape[-1])
    )
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    y = _doubled_by_phases(x, kernel, self.dtype)
    return y + bias.astype(y.dtype)[None, None, None]


# Jitted: JAX traces and differentiates such a function once for all layers of
# one shape.
@functools.partial(jax.jit, static_argnames=('strides', 'padding'))
def _depthwise(
  x: jax.Array, kernel: jax.Array, strides: int, padding: cpu_forms.Padding
) -> jax.Array:
  """See `cpu_forms.sum_of_shifted`."""

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
    cpu=lambda x, kernel: cpu_forms.sum_of_shifted(x, kernel, strides, padding),
    cpu_gradient=lambda x, kernel, g: cpu_forms.sum_of_shifted_gradient(
      x, kernel, g, strides, padding
    ),
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
  padding: cpu_forms.Padding
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (batch, height, width, channels) arrays."""
    # Keras' layout, so that its initialisation has Keras' variance too.
    kernel = self.param(
      'kernel',
      initializers.GLOROT_UNIFORM,
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
  reduction takes 13 ms where this takes 1, and its gradient 124 ms against 7.

  Args:
    x: shape (batch, height, width, channels).
    window: side of the window.

  Returns:
    Shape (batch, (height - window) // 2 + 1, (width - window) // 2 + 1,
    channels).
  """
  return _by_processor(
    x,
    cpu=lambda x: cpu_forms.max_of_shifted(x, window),
    default=lambda x: nn.max_pool(
      x, window_shape=(window, window), strides=(2, 2), padding='VALID'
    ),
  )


def average_windows(
  x: jax.Array, strides: int, padding: str, *, count_padding: bool = True
) -> jax.Array:
  """XLA's own 3x3 average pool, with sums in float32 or better.

  Args:
    x: shape (batch, height, width, channels).
    strides: step in both directions.
    padding: 'SAME' or 'VALID'.
    count_padding: whether padded zeros count in an average.

  Returns:
    Shape (batch, height', width', channels), dtype of x.
  """
  # By name, as the converter to ONNX takes them.
  y = nn.avg_pool(
    x.astype(jnp.promote_types(x.dtype, jnp.float32)),
    window_shape=(3, 3),
    strides=(strides, strides),
    padding=padding,
    count_include_pad=count_padding,
  )
  return y.astype(x.dtype)


@jax.jit
def average_pool_3x3(x: jax.Array) -> jax.Array:
  """3x3 average pool with stride 1, same size, padding not counted.

  Its gradient is made for reverse mode alone.
  """
  return _by_processor(
    x,
    cpu=cpu_forms.average_of_shifted,
    cpu_gradient=lambda _, g: (cpu_forms.average_of_shifted_gradient(g),),
    default=lambda x: average_windows(x, 1, 'SAME', count_padding=False),
  )
