"""A backbone under a classification head, and the head alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from leukemia_jax.models.inception_resnet_v2 import InceptionResNetV2
from leukemia_jax.models.nasnet import NASNet


def pool(features: jax.Array) -> jax.Array:
  """Averages a feature map over its pixels, in float32 or wider.

  Args:
    features: float, shape (batch, height, width, channels).

  Returns:
    Shape (batch, channels).
  """
  wide = jnp.promote_types(features.dtype, jnp.float32)
  return features.astype(wide).mean((1, 2))


def _head(
  x: jax.Array,
  *,
  num_classes: int,
  include_top: bool,
  dropout_rate: float,
  train: bool,
) -> jax.Array:
  """The layers of a head, which become part of the module that calls this."""
  dropout = nn.Dropout(dropout_rate, deterministic=not train)
  glorot = nn.initializers.glorot_uniform()
  x = dropout(x)
  if not include_top:
    x = nn.relu(nn.Dense(256, kernel_init=glorot, name='hidden')(x))
    x = dropout(x)
  return nn.Dense(num_classes, kernel_init=glorot, name='logits')(x)


class Head(nn.Module):
  """A classifier's head alone, on pooled features: its parameters and draws.

  Attributes:
    num_classes: number of classes.
    dropout_rate: share of the features that each dropout zeroes.
  """

  num_classes: int
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(
    self, features: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps pooled features to class scores.

    Args:
      features: float, shape (batch, channels); see `pool`.
      train: whether dropout is active (it draws from the 'dropout' key).

    Returns:
      Logits, shape (batch, num_classes), and no intermediates.
    """
    x = _head(
      features,
      num_classes=self.num_classes,
      include_top=False,
      dropout_rate=self.dropout_rate,
      train=train,
    )
    return x, {}


class Classifier(nn.Module):
  """A backbone with a head.

  The head is the study's: global average pool, dropout, Dense 256 with ReLU,
  dropout, Dense `num_classes`; or the published networks' own. It computes in
  float32, whatever the backbone does.

  Attributes:
    backbone: module from images to a feature map.
    num_classes: number of classes; 0 for no head.
    include_top: whether the head is that of the published networks, which
      leaves the hidden layer away.
    dropout_rate: share of the features that each dropout zeroes.
    freeze_backbone: run the backbone as in inference, its batch-norm
      statistics fixed, also in training.
  """

  backbone: InceptionResNetV2 | NASNet
  num_classes: int
  include_top: bool = False
  dropout_rate: float = 0.0
  freeze_backbone: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, *, train: bool
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps images to class scores.

    Args:
      images: float, shape (batch, height, width, 3).
      train: whether dropout is active (it draws from the 'dropout' key) and
        batch norms use the batch's statistics.

    Returns:
      Logits, float32 (batch, num_classes), or without a head the last feature
      map; and named intermediates: 'features', the last feature map.
    """
    train_backbone = train and not self.freeze_backbone
    features = self.backbone(images, train_backbone)
    if self.freeze_backbone:
      features = jax.lax.stop_gradient(features)
    if not self.num_classes:
      return features, {'features': features}
    x = _head(
      pool(features),
      num_classes=self.num_classes,
      include_top=self.include_top,
      dropout_rate=self.dropout_rate,
      train=train,
    )
    return x, {'features': features}
