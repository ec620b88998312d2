"""NASNet-A (Zoph et al., arXiv:1707.07012), as Keras has it.

Two cells, each a table of five sums, make the whole network; NASNet-Large and
NASNet-Mobile are settings of it. Paddings and croppings are Keras' at any image
size, odd and even.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from leukemia_jax.models import initializers, layers
from leukemia_jax.models.batch_norm import BatchNorm
from leukemia_jax.models.layers import FIRST_STAGE, Dtype


class Cell(NamedTuple):
  """A cell: sums of two operations each, and what it puts out.

  An operation is (kind, input): kinds are 'separable_<kernel size>', 'average',
  'max' and 'identity'; inputs are 'before' (the output of the cell before the
  last, adjusted), 'last' (that of the last cell, squeezed) or the number of an
  earlier sum. The output joins some inputs' channels.
  """

  sums: tuple[tuple[tuple[str, str | int], tuple[str, str | int]], ...]
  output: tuple[str | int, ...]
  strides: int


NORMAL = Cell(
  sums=(
    (('separable_5', 'last'), ('separable_3', 'before')),
    (('separable_5', 'before'), ('separable_3', 'before')),
    (('average', 'last'), ('identity', 'before')),
    (('average', 'before'), ('average', 'before')),
    (('separable_3', 'last'), ('identity', 'last')),
  ),
  output=('before', 0, 1, 2, 3, 4),
  strides=1,
)
# Its operations on 'before' and 'last' halve the image, those on sums don't.
REDUCTION = Cell(
  sums=(
    (('separable_5', 'last'), ('separable_7', 'before')),
    (('max', 'last'), ('separable_7', 'before')),
    (('average', 'last'), ('separable_5', 'before')),
    (('identity', 1), ('average', 0)),
    (('separable_3', 0), ('max', 'last')),
  ),
  output=(1, 2, 3, 4),
  strides=2,
)


def cells(blocks: tuple[int, int, int]) -> list[tuple[str, Cell, float]]:
  """The cells after the first convolution, in order.

  Args:
    blocks: number of normal cells in each of the three stages.

  Returns:
    For each its name, its table and the factor on the number of filters.
  """
  table = [('stem_1', REDUCTION, 0.25), ('stem_2', REDUCTION, 0.5)]
  for stage, count in enumerate(blocks):
    if stage:
      table.append((f'reduction_{stage}', REDUCTION, 2.0**stage))
    table += [(f'normal_{stage}_{i}', NORMAL, 2.0**stage) for i in range(count)]
  return table


def _halving_padding(
  x: jax.Array, window: int
) -> tuple[tuple[int, int], tuple[int, int]]:
  """Zeros around an image for an unpadded window of stride 2, as in Keras."""
  height, width = ((window // 2 - 1 + n % 2, window // 2) for n in x.shape[1:3])
  return height, width


def _every_other(x: jax.Array) -> jax.Array:
  """Every second pixel of each side; indexing would gather it in ONNX."""
  for axis in (1, 2):
    x = lax.slice_in_dim(x, 0, x.shape[axis], 2, axis)
  return x


class SeparableBlock(nn.Module):
  """Twice: ReLU, depthwise and pointwise convolution, batch norm."""

  features: int
  kernel_size: int
  strides: int
  norm: Callable[..., nn.Module]
  dtype: Dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (batch, height, width, channels) arrays."""
    half = self.kernel_size // 2
    same = ((half, half), (half, half))
    for i, strides in enumerate((self.strides, 1), 1):
      padding = same if strides == 1 else _halving_padding(x, self.kernel_size)
      x = layers.DepthwiseConv(
        self.kernel_size, strides, padding, x.dtype, name=f'depthwise_{i}'
      )(nn.relu(x))
      x = layers.Conv(
        self.features, (1, 1), dtype=self.dtype, name=f'pointwise_{i}'
      )(x)
      x = self.norm(name=f'norm_{i}')(x)
    return x


class NASNetCell(nn.Module):
  """One cell of a table: (last, before) -> output.

  Attributes:
    cell: the table.
    features: number of filters of every operation.
    norm: makes a batch norm from its name.
    join: joins maps over their channels.
    dtype: dtype of the computation.
  """

  cell: Cell
  features: int
  norm: Callable[..., nn.Module]
  join: Callable[[list[jax.Array]], jax.Array]
  dtype: Dtype

  def _conv(self, features: int, name: str) -> nn.Module:
    return layers.Conv(
      features,
      (1, 1),
      kernel_init=initializers.HE_NORMAL,
      dtype=self.dtype,
      name=name,
    )

  def _adjust(self, before: jax.Array, last: jax.Array) -> jax.Array:
    """Brings the cell before the last to the last one's size and filters."""
    # Keras compares widths alone.
    if before.shape[2] != last.shape[2]:
      before = nn.relu(before)
      shifted = jnp.pad(before[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
      halves = [
        self._conv(self.features // 2, f'adjust_conv_{i}')(_every_other(x))
        for i, x in enumerate((before, shifted), 1)
      ]
      return self.norm(name='adjust_norm')(jnp.concatenate(halves, -1))
    if before.shape[3] != self.features:
      before = self._conv(self.features, 'adjust_conv')(nn.relu(before))
      return self.norm(name='adjust_norm')(before)
    return before

  def _operate(self, kind: str, x: jax.Array, strides: int, name: str):
    if kind == 'identity':
      return x
    if kind == 'average' and strides == 1:
      return layers.average_pool_3x3(x)
    if kind in ('average', 'max'):
      # Keras pads with zeros that count, for both.
      x = jnp.pad(x, ((0, 0), *_halving_padding(x, 3), (0, 0)))
      if kind == 'max':
        return layers.max_pool(x, 3)
      return layers.average_windows(x, 2, 'VALID')
    size = int(kind.removeprefix('separable_'))
    return SeparableBlock(
      self.features, size, strides, self.norm, self.dtype, name=name
    )(x)

  @nn.compact
  def __call__(self, last: jax.Array, before: jax.Array | None) -> jax.Array:
    """Maps the outputs of the last two cells to this one's."""
    before = last if before is None else self._adjust(before, last)
    squeezed = self._conv(self.features, 'conv')(nn.relu(last))
    values: dict[str | int, jax.Array] = {
      'before': before,
      'last': self.norm(name='norm')(squeezed),
    }
    for i, pair in enumerate(self.cell.sums):
      parts = [
        self._operate(
          kind,
          values[x],
          1 if isinstance(x, int) else self.cell.strides,
          f'{side}_{i + 1}',
        )
        for side, (kind, x) in zip(('left', 'right'), pair, strict=True)
      ]
      values[i] = parts[0] + parts[1]
    return self.join([values[x] for x in self.cell.output])


class NASNet(nn.Module):
  """The backbone, without top: images to the last feature map.

  Attributes:
    penultimate_filters: channels of the last feature map.
    stem_filters: filters of the first convolution.
    skip_reduction: whether the cell after a reduction looks past it, at what
      came before.
    width: factor on every number of filters; 1 is the published network.
    blocks: number of normal cells in the three stages.
    momentum: of the batch norms' moving statistics; 0.9997 is Keras'. Runs of
      a few thousand steps need a smaller one, or the statistics lag behind.
    dtype: dtype of the computation; parameters are float32.
  """

  penultimate_filters: int
  stem_filters: int
  skip_reduction: bool
  width: float = 1.0
  blocks: tuple[int, int, int] = (6, 6, 6)
  momentum: float = 0.9997
  dtype: Dtype = jnp.float32

  # Keras' own limit.
  minimum_size = 32

  @staticmethod
  def first_centre(side: int) -> float:
    """Where the first pixel of the first stage looks in an image, px."""
    # The stem's convolution, and two cells that halve maps of even sides off
    # their middle.
    centre, stride, size = 1.0, 2, (side - 1) // 2
    for _ in range(2):
      centre += stride * (1 - size % 2)
      stride, size = 2 * stride, -(-size // 2)
    return centre

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps images to features.

    Args:
      x: shape (batch, height, width, 3), sides of 32 px or more, values as the
        weights expect them ([-1, 1] for ImageNet's).
      train: whether batch norms use, and update by, the batch's statistics.

    Returns:
      Shape (batch, height / 32, width / 32, penultimate_filters * width),
      about.
    """
    if min(x.shape[1:3]) < self.minimum_size:
      raise ValueError(
        f'NASNet needs images of {self.minimum_size} px or more, not '
        f'{x.shape[1]} x {x.shape[2]}'
      )
    norm = functools.partial(
      BatchNorm,
      train=train,
      use_scale=True,
      momentum=self.momentum,
      # As in training always: depthwise convolutions sum in float32 anyway.
      dtype=layers.map_dtype(self.dtype, train=True),
    )
    join = functools.partial(layers.concatenate, dtype=self.dtype, train=train)
    # A multiple of four, since cells halve it twice.
    filters = 4 * max(1, round(self.penultimate_filters * self.width / 96))
    x = layers.Conv(
      max(1, round(self.stem_filters * self.width)),
      (3, 3),
      strides=2,
      padding='VALID',
      kernel_init=initializers.HE_NORMAL,
      dtype=self.dtype,
      name='stem_conv',
    )(x.astype(self.dtype))
    last, before = norm(name='stem_norm')(x), None
    for name, cell, factor in cells(self.blocks):
      if name == 'reduction_1':
        last = layers.tap(self, FIRST_STAGE, last)
      output = NASNetCell(
        cell, int(filters * factor), norm, join, self.dtype, name=name
      )(last, before)
      if not (name.startswith('reduction') and self.skip_reduction):
        before = last
      last = output
    return nn.relu(last).astype(layers.map_dtype(self.dtype, train=train))
