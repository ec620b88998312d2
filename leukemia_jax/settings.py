"""Checks on a config's values, so that a run fails before it starts."""

from collections.abc import Callable
from typing import Any

import ml_collections

from leukemia_jax import augment, evaluate, metrics, models
from leukemia_jax.data import masks, splits
from leukemia_jax.errors import InputError


def _one_of(*values: Any) -> tuple[str, Callable[[Any], bool]]:
  return f'one of {", ".join(map(repr, values))}', lambda v: v in values


def _between(low: float, high: float) -> tuple[str, Callable[[Any], bool]]:
  return f'from {low} to {high}', lambda v: low <= v <= high


def _whole(low: int, high: int) -> tuple[str, Callable[[Any], bool]]:
  return (
    f'a whole number from {low} to {high}',
    lambda v: isinstance(v, int) and low <= v <= high,
  )


def _is_quality(value: Any) -> bool:
  return len(value) == 0 or (
    len(value) == 2
    and all(isinstance(v, int) for v in value)
    and 1 <= value[0] <= value[1] <= 100
  )


def _is_blocks(value: Any) -> bool:
  return len(value) in (0, 3) and all(
    isinstance(v, int) and 1 <= v <= 100 for v in value
  )


def _all(
  what: str, rule: tuple[str, Callable[[Any], bool]]
) -> tuple[str, Callable[[Any], bool]]:
  words, allowed = rule
  return (
    f'() of one or more different {what}, each {words}',
    lambda v: 0 < len(v) == len(set(v)) and all(map(allowed, v)),
  )


_BELOW_ONE = ('from 0 to below 1', lambda v: 0 <= v < 1)
_POSITIVE = ('above 0, finite', lambda v: 0 < v < float('inf'))
_TEXT = ('a text that is not empty', lambda v: isinstance(v, str) and v != '')
_FLAG = ('True or False', lambda v: isinstance(v, bool))

# What each key may be, in words and as a test.
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
  'seed': _whole(0, 2**32 - 1),
  'data.source': _TEXT,
  'data.image_size': _whole(1, 4096),
  'data.scale': ('above 0, at most 8', lambda v: 0 < v <= 8),
  'data.cache_dir': _TEXT,
  'data.on_bad_image': _one_of('error', 'skip'),
  'data.max_pixels': _whole(1, 2**40),
  'data.max_bytes': _whole(1, 2**50),
  'data.option': _one_of(*splits.OPTIONS),
  'data.order': _one_of(*splits.ORDERS),
  'data.grouping': _one_of(*splits.GROUPINGS),
  'data.block': _whole(1, 10**6),
  'data.per_class': _whole(0, 10**6),
  'data.mask_rule': ('such as max_channel>60 or grey>128', masks.is_rule),
  'data.clean_masks': _FLAG,
  'data.clean_minimum_area': _whole(1, 10**6),
  'data.drop_empty_masks': _FLAG,
  'data.smallest_cell': ('above 0, at most 1', lambda v: 0 < v <= 1),
  'data.benign_class': ('a text', lambda v: isinstance(v, str)),
  'synthetic.scale': ('above 0, at most 20', lambda v: 0 < v <= 20),
  'synthetic.seed': _whole(0, 2**32 - 1),
  'augment.brightness_delta': _between(0, 1),
  'augment.contrast_delta': _between(0, 1),
  'augment.rotation': _between(0, 180),
  'augment.fill': _one_of(*augment.FILLS),
  'augment.jpeg_quality': ('() or (lowest, highest), 1..100', _is_quality),
  'augment.flip_horizontal': _FLAG,
  'augment.flip_vertical': _FLAG,
  'model.name': _one_of(*models.NAMES),
  'model.weights': _TEXT,
  'model.preprocess': _one_of('auto', *evaluate.PREPROCESSING),
  'model.dropout_rate': _BELOW_ONE,
  'model.width': ('above 0, at most 8', lambda v: 0 < v <= 8),
  'model.blocks': ('() or three numbers from 1 to 100', _is_blocks),
  'model.depth': _whole(0, 8),
  'model.batch_norm': _FLAG,
  'model.checkpoint': _FLAG,
  'model.momentum': _BELOW_ONE,
  'model.dtype': _one_of('float32', 'bfloat16'),
  'study.models': _all('backbones', _one_of(*models.BACKBONES)),
  'study.options': _all('options', _one_of(*splits.OPTIONS)),
  'study.learning_rates': _all('rates', _POSITIVE),
  'study.dropout_rates': _all('rates', _BELOW_ONE),
  'study.repeats': _whole(1, 1000),
  'study.row': _whole(-1, 10**6),
  'study.calibration_images': _whole(0, 10**6),
  'study.segmentation': (
    '() or workdirs, each a text that is not empty',
    lambda v: all(map(_TEXT[1], v)),
  ),
  'train.learning_rate': _POSITIVE,
  'train.epochs': _whole(1, 10**6),
  'train.batch_size': _whole(1, 2**16),
  'train.accumulate': _whole(1, 2**16),
  'train.loss': _one_of(*metrics.CLASS_LOSSES),
  'train.mask_loss': _one_of(*metrics.MASK_LOSSES),
  'train.freeze_backbone': _FLAG,
  'train.plateau_factor': ('above 0, at most 1', lambda v: 0 < v <= 1),
  'train.plateau_patience': _whole(1, 10**6),
  'train.stop_patience': _whole(1, 10**6),
  'train.checkpoint_steps': _whole(1, 10**9),
  'train.steps_per_call': _whole(1, 10**4),
}


def check(config: ml_collections.ConfigDict) -> None:
  """Checks every value that has a rule.

  Args:
    config: with all the keys of configs/default.py.

  Raises:
    InputError: names each wrong key, its value and what it may be.
  """
  wrong = []
  for key, (words, allowed) in _ALLOWED.items():
    value: Any = config
    try:
      for part in key.split('.'):
        value = value[part]
      fine = allowed(value)
    except (AttributeError, KeyError):
      wrong.append(f'config.{key} is missing: take it from configs/default.py')
      continue
    except TypeError:
      fine = False
    if not fine:
      wrong.append(f'config.{key}={value!r} must be {words}')
  if not wrong:
    wrong = _mismatches(config)
  if wrong:
    raise InputError('\n'.join(wrong))


def _mismatches(config: ml_collections.ConfigDict) -> list[str]:
  """Values that are fine but for the model that they are given with."""
  wrong, model = [], config.model
  minimum = models.minimum_size(model.name)
  data = config.data
  if round(data.image_size * data.scale) < minimum:
    scale = f' * config.data.scale={data.scale}' if data.scale != 1 else ''
    wrong.append(
      f'config.data.image_size={data.image_size}{scale} must be {minimum} or '
      f'more for {model.name}'
    )
  if config.train.batch_size % config.train.accumulate:
    wrong.append(
      f'config.train.batch_size={config.train.batch_size} must be a multiple '
      f'of config.train.accumulate={config.train.accumulate}'
    )
  if model.name in models.UNETS:
    if model.blocks or not model.depth:
      wrong.append(
        f'config.model.blocks={model.blocks!r} must be () and '
        f'config.model.depth={model.depth} 1 or more for {model.name}, as in '
        f'configs/{model.name}.py'
      )
    if model.weights == 'imagenet':
      wrong.append(f'config.model.weights=imagenet: {model.name} has none')
    if config.train.freeze_backbone:
      wrong.append(
        f'config.train.freeze_backbone=True: {model.name} has no backbone'
      )
    return wrong
  if model.depth or not model.blocks:
    wrong.append(
      f'config.model.depth={model.depth} must be 0 and config.model.blocks='
      f'{model.blocks!r} three numbers for {model.name}'
    )
  if model.batch_norm or model.checkpoint:
    wrong.append(
      'config.model.batch_norm and config.model.checkpoint must be False for '
      f'{model.name}: they are for {", ".join(models.UNETS)}'
    )
  published = models.create(model.name, num_classes=0).backbone
  size = published.width, published.blocks
  if model.weights == 'imagenet' and size != (model.width, tuple(model.blocks)):
    wrong.append(
      f'config.model.weights=imagenet needs config.model.width={size[0]} and '
      f'config.model.blocks={size[1]}, as in configs/{model.name}.py, not '
      f'{model.width} and {tuple(model.blocks)}'
    )
  return wrong
