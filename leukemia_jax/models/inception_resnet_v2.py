"""InceptionResNetV2 (Szegedy et al., arXiv:1602.07261), as Keras has it.

Every convolution is followed by a batch norm without gamma and a ReLU, except
the last one of a residual block. Module names are the roles that the layers
have in the paper; `kernel`, `bias`, `mean` and `var` hold what Keras' do.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from leukemia_jax.models import layers
from leukemia_jax.models.batch_norm import BatchNorm
from leukemia_jax.models.layers import FIRST_STAGE, Dtype

# A branch is a list of (filters, kernel size); a block is its branches.
# (kernel rows, kernel columns)
BLOCK35 = (
  ((32, (1, 1)),),
  ((32, (1, 1)), (32, (3, 3))),
  ((32, (1, 1)), (48, (3, 3)), (64, (3, 3))),
)
BLOCK17 = (
  ((192, (1, 1)),),
  ((128, (1, 1)), (160, (1, 7)), (192, (7, 1))),
)
BLOCK8 = (
  ((192, (1, 1)),),
  ((192, (1, 1)), (224, (1, 3)), (256, (3, 1))),
)
MIXED_5B = (
  ((96, (1, 1)),),
  ((48, (1, 1)), (64, (5, 5))),
  ((64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
)
MIXED_6A = (
  ((384, (3, 3)),),
  ((256, (1, 1)), (256, (3, 3)), (384, (3, 3))),
)
MIXED_7A = (
  ((256, (1, 1)), (384, (3, 3))),
  ((256, (1, 1)), (288, (3, 3))),
  ((256, (1, 1)), (288, (3, 3)), (320, (3, 3))),
)


class ConvNorm(nn.Module):
  """Convolution, batch norm without gamma, ReLU."""

  features: int
  kernel_size: tuple[int, int]
  strides: int = 1
  padding: str = 'SAME'
  momentum: float = 0.99
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps (batch, height, width, channels) arrays."""
    x = layers.Conv(
      self.features,
      self.kernel_size,
      strides=self.strides,
      padding=self.padding,
      dtype=self.dtype,
      name='conv',
    )(x)
    norm = BatchNorm(
      train=train,
      use_scale=False,
      momentum=self.momentum,
      dtype=self.dtype,
      name='norm',
    )
    return nn.relu(norm(x))


class InceptionResNetV2(nn.Module):
  """The backbone, without top: images to the last feature map.

  Attributes:
    width: factor on every number of filters; 1 is the published network.
    blocks: number of residual blocks at 35, 17 and 8 px (for 299 px images);
      (10, 20, 10) is the published network.
    momentum: of the batch norms' moving statistics; 0.99 is Keras'. Runs of a
      few hundred steps need a smaller one, or the statistics lag behind.
    dtype: dtype of the computation; parameters are float32.
  """

  width: float = 1.0
  blocks: tuple[int, int, int] = (10, 20, 10)
  momentum: float = 0.99
  dtype: Dtype = jnp.float32

  # Below this side the last stages have no pixel left.
  minimum_size = 75

  @staticmethod
  def first_centre(side: int) -> float:
    """Where the first pixel of the first stage looks in an image, px."""
    del side  # the stem pads nothing
    return 13.0

  def filters(self, features: int) -> int:
    """The number of filters after `width`, at least 1."""
    return max(1, round(features * self.width))

  def _branches(self, x, branches, train, name, reduce=False):
    """Runs a table of branches; with `reduce` their last steps halve."""
    outputs = []
    for b, branch in enumerate(branches):
      y = x
      for i, (features, kernel_size) in enumerate(branch):
        last = reduce and i == len(branch) - 1
        y = ConvNorm(
          self.filters(features),
          kernel_size,
          strides=2 if last else 1,
          padding='VALID' if last else 'SAME',
          momentum=self.momentum,
          dtype=self.dtype,
          name=f'{name}_branch_{b}_{i}',
        )(y, train)
      outputs.append(y)
    return outputs

  def _residual(self, x, branches, train, name, scale, activate=True):
    mixed = jnp.concatenate(self._branches(x, branches, train, name), -1)
    step = layers.Conv(
      x.shape[-1], (1, 1), use_bias=True, dtype=self.dtype, name=f'{name}_out'
    )(mixed)
    x = x + scale * step
    x = nn.relu(x) if activate else x
    return x.astype(layers.map_dtype(self.dtype, train=train))

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps images to features.

    Args:
      x: shape (batch, height, width, 3), sides of 75 px or more, values as the
        weights expect them ([-1, 1] for ImageNet's).
      train: whether batch norms use, and update by, the batch's statistics.

    Returns:
      Shape (batch, height / 32, width / 32, 1536 * width), about.
    """
    if min(x.shape[1:3]) < self.minimum_size:
      raise ValueError(
        f'InceptionResNetV2 needs images of {self.minimum_size} px or more, '
        f'not {x.shape[1]} x {x.shape[2]}'
      )
    step = functools.partial(ConvNorm, momentum=self.momentum, dtype=self.dtype)
    valid = functools.partial(step, padding='VALID')
    f = self.filters
    x = x.astype(self.dtype)
    x = valid(f(32), (3, 3), strides=2, name='stem_0')(x, train)
    x = valid(f(32), (3, 3), name='stem_1')(x, train)
    x = step(f(64), (3, 3), name='stem_2')(x, train)
    x = layers.max_pool(x, 3)
    x = valid(f(80), (1, 1), name='stem_3')(x, train)
    x = valid(f(192), (3, 3), name='stem_4')(x, train)
    x = layers.max_pool(x, 3)
    pooled = layers.average_pool_3x3(x)
    parts = self._branches(x, MIXED_5B, train, 'mixed_5b')
    parts.append(step(f(64), (1, 1), name='mixed_5b_pool')(pooled, train))
    x = jnp.concatenate(parts, -1)
    for i in range(self.blocks[0]):
      x = self._residual(x, BLOCK35, train, f'block35_{i + 1}', 0.17)
    x = layers.tap(self, FIRST_STAGE, x)
    pooled = layers.max_pool(x, 3)
    parts = self._branches(x, MIXED_6A, train, 'mixed_6a', reduce=True)
    x = jnp.concatenate([*parts, pooled], -1)
    for i in range(self.blocks[1]):
      x = self._residual(x, BLOCK17, train, f'block17_{i + 1}', 0.1)
    pooled = layers.max_pool(x, 3)
    parts = self._branches(x, MIXED_7A, train, 'mixed_7a', reduce=True)
    x = jnp.concatenate([*parts, pooled], -1)
    for i in range(self.blocks[2]):
      last = i == self.blocks[2] - 1
      scale = 1.0 if last else 0.2
      name = f'block8_{i + 1}'
      x = self._residual(x, BLOCK8, train, name, scale, activate=not last)
    return step(f(1536), (1, 1), name='conv_7b')(x, train)
