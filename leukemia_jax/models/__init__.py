"""Models by name: backbones under a classification head, and U-Nets."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from leukemia_jax.models.classifier import Classifier, Head, pool
from leukemia_jax.models.inception_resnet_v2 import InceptionResNetV2
from leukemia_jax.models.layers import FIRST_STAGE
from leukemia_jax.models.nasnet import NASNet
from leukemia_jax.models.unet import UNet

__all__ = [
  'BACKBONES',
  'NAMES',
  'TITLES',
  'UNETS',
  'Classifier',
  'Head',
  'Size',
  'UNet',
  'apply_with_features',
  'create',
  'minimum_size',
  'pool',
  'published_size',
  'with_rounded_kernels',
]


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
# As papers and tables name them.
TITLES = {
  'inception_resnet_v2': 'InceptionResNetV2',
  'nasnet_large': 'NASNetLarge',
  'nasnet_mobile': 'NASNetMobile',
  'unet': 'U-Net',
  'unet_fpn': 'U-Net with FPN',
}
_HEAD = ('include_top', 'dropout_rate', 'freeze_backbone')


def create(name: str, *, num_classes: int, **fields: Any) -> Classifier | UNet:
  """Makes a model from its name.

  `model.apply(variables, images, train=False)` gives (output, intermediates).
  The output is logits, or with `num_classes=0` the last feature map itself.

  Args:
    name: one of `NAMES`.
    num_classes: number of classes; for a U-Net 1 is foreground against
      background.
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


def apply_with_features(
  model: Classifier, variables: Any, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Class scores, and what an image looks like to a backbone early on.

  Args:
    model: a classifier.
    variables: its own.
    images: float, shape (batch, height, width, 3).

  Returns:
    Logits, and the mean over pixels of the feature map after the backbone's
    first stage, float32 (batch, channels).
  """
  (logits, _), taps = model.apply(
    variables, images, train=False, mutable=['intermediates']
  )
  (features,) = taps['intermediates']['backbone'][FIRST_STAGE]
  return logits, pool(features)


def with_rounded_kernels(model: Classifier | UNet, variables: Any) -> Any:
  """Variables for inference whose kernels are rounded once, not in each call.

  Args:
    model: that they are of.
    variables: float32.

  Returns:
    Variables that give the same outputs: kernels of convolutions whose products
    are in the model's dtype have it. They are no longer fit to train or to
    store.
  """
  dtype = model.dtype if isinstance(model, UNet) else model.backbone.dtype

  def is_rounded(path: tuple[Any, ...]) -> bool:
    names = [key.key for key in path]
    # Heads and a U-Net's last layer compute in float32, and so do depthwise
    # convolutions where maps stay in it.
    return names[-1] == 'kernel' and not any(
      name.startswith(('hidden', 'logits', 'depthwise')) for name in names
    )

  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: (
      leaf.astype(dtype, copy=False) if is_rounded(path) else leaf
    ),
    variables,
  )


def minimum_size(name: str) -> int:
  """The smallest side of an image that a model takes, px."""
  model = create(name, num_classes=0)
  return getattr(model, 'backbone', model).minimum_size


class Size(NamedTuple):
  """What makes a model smaller or larger; `blocks` is () for a U-Net.

  Attributes:
    width: factor on the number of filters.
    blocks: residual blocks, or normal cells, of the three stages.
    depth: how often a U-Net halves the image; 0 for backbones.
  """

  width: float
  blocks: tuple[int, ...]
  depth: int


def published_size(name: str) -> Size:
  """The size of a published network."""
  model = create(name, num_classes=0)
  if isinstance(model, UNet):
    return Size(model.width, (), model.depth)
  return Size(model.backbone.width, tuple(model.backbone.blocks), 0)
