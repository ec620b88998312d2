"""Models by name, and the study's head on top of a backbone."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from leukemia_jax.models.inception_resnet_v2 import InceptionResNetV2

BACKBONES = {'inception_resnet_v2': InceptionResNetV2}


class Classifier(nn.Module):
  """A backbone with the study's head.

  Global average pool, dropout, Dense 256 with ReLU, dropout, Dense
  `num_classes`. The head computes in float32, whatever the backbone does.

  Attributes:
    backbone: module from images to a feature map.
    num_classes: number of classes.
    dropout_rate: share of the features that each dropout zeroes.
    freeze_backbone: run the backbone as in inference, its batch-norm
      statistics fixed, also in training.
  """

  backbone: nn.Module
  num_classes: int
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
      Logits, float32 (batch, num_classes), and named intermediates:
      'features', the last feature map.
    """
    train_backbone = train and not self.freeze_backbone
    features = self.backbone(images, train_backbone)
    if self.freeze_backbone:
      features = jax.lax.stop_gradient(features)
    x = features.astype(jnp.float32).mean((1, 2))
    dropout = nn.Dropout(self.dropout_rate, deterministic=not train)
    glorot = nn.initializers.glorot_uniform()
    x = dropout(x)
    x = nn.relu(nn.Dense(256, kernel_init=glorot, name='hidden')(x))
    x = dropout(x)
    x = nn.Dense(self.num_classes, kernel_init=glorot, name='logits')(x)
    return x, {'features': features}


def create(
  name: str,
  *,
  num_classes: int,
  dropout_rate: float = 0.0,
  freeze_backbone: bool = False,
  **fields: Any,
) -> Classifier:
  """Makes a classifier from a backbone's name.

  Args:
    name: a key of `BACKBONES`.
    num_classes: number of classes.
    dropout_rate: see `Classifier`.
    freeze_backbone: see `Classifier`.
    **fields: fields of the backbone, such as `width` and `dtype`.

  Returns:
    The module.

  Raises:
    ValueError: for an unknown name; lists the known ones.
  """
  if name not in BACKBONES:
    raise ValueError(f'no model {name!r}; there are {sorted(BACKBONES)}')
  return Classifier(
    BACKBONES[name](**fields),
    num_classes,
    dropout_rate=dropout_rate,
    freeze_backbone=freeze_backbone,
  )
