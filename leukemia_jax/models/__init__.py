"""Models by name: backbones under a classification head, and U-Nets."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from leukemia_jax.models.inception_resnet_v2 import InceptionResNetV2
from leukemia_jax.models.nasnet import NASNet
from leukemia_jax.models.unet import UNet

BACKBONES: dict[str, Callable[..., InceptionResNetV2 | NASNet]] = {
  'inception_resnet_v2': InceptionResNetV2,
  # 6 @ 4032 in the paper's words.
  'nasnet_large': functools.partial(
    NASNet, penultimate_filters=4032, stem_filters=96, skip_reduction=True
  ),
  # 4 @ 1056.
  'nasnet_mobile': functools.partial(
    NASNet,
    penultimate_filters=1056,
    stem_filters=32,
    skip_reduction=False,
    blocks=(4, 4, 4),
  ),
}
UNETS: dict[str, Callable[..., UNet]] = {
  'unet': UNet,
  'unet_fpn': functools.partial(UNet, fpn=True),
}
NAMES = (*BACKBONES, *UNETS)


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


_HEAD = ('include_top', 'dropout_rate', 'freeze_backbone')


def create(name: str, *, num_classes: int, **fields: Any) -> Classifier | UNet:
  """Makes a model from its name.

  `model.apply(variables, images, train=False)` gives (output, intermediates).
  The output is logits, or with `num_classes=0` the last feature map itself.

  Args:
    name: one of `NAMES`.
    num_classes: number of classes; for a U-Net 1 is foreground against ground.
    **fields: for a backbone those of `Classifier`, such as `include_top`, and
      its own, such as `width` and `dtype`; for a U-Net its own.

  Returns:
    The module: a `Classifier` or a `UNet`.

  Raises:
    ValueError: for an unknown name or field; lists the known ones.
  """
  if name not in NAMES:
    raise ValueError(f'no model {name!r}; there are {", ".join(NAMES)}')
  head = {key: fields.pop(key) for key in _HEAD if key in fields}
  try:
    if name in UNETS:
      return UNETS[name](num_classes=num_classes, **head, **fields)
    return Classifier(BACKBONES[name](**fields), num_classes, **head)
  except TypeError as error:
    raise ValueError(f'{name}: {error}') from error


def minimum_size(name: str) -> int:
  """The smallest side of an image that a model takes, px."""
  model = create(name, num_classes=0)
  return getattr(model, 'backbone', model).minimum_size
