"""U-Net (Ronneberger et al., arXiv:1505.04597), and with feature pyramids.

As in the study: no batch norm unless asked for, transposed convolutions, same
padding. With `fpn` (Lin et al., arXiv:1612.03144) all skips but the first pass
a block that adds the up-sampled block of the next deeper skip.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from leukemia_jax.models import initializers, layers
from leukemia_jax.models.batch_norm import BatchNorm
from leukemia_jax.models.layers import Dtype


class UNet(nn.Module):
  """Images to a map of logits of the same size.

  Attributes:
    num_classes: channels of the map; 1 is foreground against background. 0
      gives the last feature map instead.
    fpn: whether skips pass feature-pyramid blocks.
    width: factor on every number of filters; 1 starts with 64.
    depth: number of times that the image is halved, and filters doubled.
    batch_norm: whether one follows each 3x3 convolution of the two paths.
    momentum: of the batch norms' statistics.
    remat: store no activation inside a pair of convolutions for the backward
      pass, but compute it again there: less memory, more time.
    dtype: dtype of the computation; parameters and logits are float32.
  """

  num_classes: int
  fpn: bool = False
  width: float = 1.0
  depth: int = 4
  batch_norm: bool = False
  momentum: float = 0.99
  remat: bool = False
  dtype: Dtype = jnp.float32

  minimum_size = 1

  def filters(self, level: int) -> int:
    """The number of filters after `level` halvings."""
    return 2**level * max(1, round(64 * self.width))

  def _conv(self, features: int, size: int, name: str) -> nn.Module:
    return layers.Conv(
      features,
      (size, size),
      use_bias=True,
      kernel_init=initializers.HE_NORMAL,
      dtype=self.dtype,
      name=name,
    )

  def _double(
    self, x: jax.Array, level: int, name: str, *, train: bool
  ) -> jax.Array:
    """Two convolutions with their ReLUs."""

    def double(module: 'UNet', x: jax.Array) -> jax.Array:
      for i in (1, 2):
        x = module._conv(module.filters(level), 3, f'{name}_conv_{i}')(x)
        if module.batch_norm:
          x = BatchNorm(
            train=train,
            use_scale=True,
            momentum=module.momentum,
            dtype=module.dtype,
            name=f'{name}_norm_{i}',
          )(x)
        x = nn.relu(x).astype(layers.map_dtype(module.dtype, train=train))
      return x

    return (nn.remat(double) if self.remat else double)(self, x)

  def _pyramid(
    self, skip: jax.Array, deeper: jax.Array | None, level: int
  ) -> jax.Array:
    """A feature-pyramid block; Keras' GELU is the exact one."""
    features, name = self.filters(level), f'pyramid_{level}'

    def step(x: jax.Array, size: int, role: str) -> jax.Array:
      x = self._conv(features, size, f'{name}_{role}')(x)
      return nn.gelu(x, approximate=False)

    x = step(skip, 1, 'skip')
    if deeper is not None:
      x = x + step(deeper.repeat(2, 1).repeat(2, 2), 1, 'deeper')
    return step(x, 3, 'out')

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps images to maps of logits.

    Args:
      images: float, shape (batch, height, width, 3). Sides that 2**depth does
        not divide are padded by their last row and column, and cropped back.
      train: whether batch norms use the batch's statistics.

    Returns:
      Logits, float32 (batch, height, width, num_classes), and named
      intermediates: 'bottleneck', the deepest feature map, and 'features', the
      last one.
    """
    if self.depth < 1:
      raise ValueError(f'a U-Net halves once or more, not {self.depth} times')
    height, width = images.shape[1:3]
    x = images.astype(self.dtype)
    for axis in (1, 2):
      last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)
      # Not `jnp.pad`, which converters to ONNX mistake.
      fill = [last] * (-x.shape[axis] % 2**self.depth)
      x = jnp.concatenate([x, *fill], axis) if fill else x
    skips = []
    for level in range(self.depth):
      x = self._double(x, level, f'down_{level}', train=train)
      skips.append(x)
      x = layers.max_pool(x, 2)
    x = bottleneck = self._double(x, self.depth, 'bottleneck', train=train)
    deeper = None
    for level in reversed(range(self.depth)):
      skip = skips[level]
      if self.fpn and level:
        skip = deeper = self._pyramid(skip, deeper, level)
      x = layers.TransposedConv(
        self.filters(level), self.dtype, name=f'up_{level}'
      )(x)
      x = jnp.concatenate([x.astype(skip.dtype), skip], -1)
      x = self._double(x, level, f'up_{level}', train=train)
    x = features = x[:, :height, :width]
    if self.num_classes:
      x = layers.Conv(self.num_classes, (1, 1), use_bias=True, name='logits')(
        x.astype(jnp.float32)
      )
    return x, {'bottleneck': bottleneck, 'features': features}
