"""Whether a config can be run: each value, and values beside each other."""

import pathlib
from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from leukemia_jax import files
from leukemia_jax.config_keys import (
  HUB,
  HUB_REFERENCE,
  IMAGENET,
  RANDOM,
  SECTION,
  TEXT,
  flatten,
  keys,
  last_part,
  no_such_key,
)
from leukemia_jax.data import listing
from leukemia_jax.errors import InputError

# Keys of some modes: what every other may have, and those modes.
_KEYS_OF_MODES: dict[str, tuple[Any, tuple[str, ...]]] = {
  'evaluate.recalibrate': (0, ('evaluate',)),
  'data.scale': (1.0, ('evaluate', 'prepare', 'audit')),
  'mesh.devices': (1, ('train', 'prepare', 'audit')),
  'data.stream': (False, ('train', 'evaluate', 'prepare')),
  'study.row': (-1, ('study',)),
}
# Keys of predictions that modes have no use for, since they read no folder or
# write no page.
_OF_FOLDERS = ('data.max_bytes', 'data.follow_links')
_OF_PAGES = ('predict.sheet', 'report.include_images', 'train.batch_size')
_WITHOUT = {
  'serve': (*_OF_FOLDERS, *_OF_PAGES),
  'export': (
    *_OF_FOLDERS,
    *_OF_PAGES,
    *('data.max_pixels', 'data.turn_by_exif', 'data.white_level'),
    'predict.scale',
  ),
}
# What a study has of its own, and where.
_OF_STUDIES = {
  'model.name': 'study.models',
  **{f'model.{name}': f'study.NAME.{name}' for name in SECTION},
  'model.dropout_rate': 'study.dropout_rates',
  'train.learning_rate': 'study.learning_rates',
}


def override(
  config: ConfigDict, overrides: dict[str, Any], mode: str
) -> ConfigDict:
  """A trained run's config with the keys that a later command may change.

  Args:
    config: of the run.
    overrides: values by key.
    mode: of the command: 'evaluate', or one that predicts new images.

  Returns:
    A copy, checked.

  Raises:
    InputError: a key is the model's own, or a value can't be.
  """
  field = 'evaluation' if mode == 'evaluate' else 'prediction'
  allowed = [
    name
    for name, key in keys().items()
    if getattr(key, field) and name not in _WITHOUT.get(mode, ())
  ]
  for key in overrides:
    if key not in allowed:
      raise InputError(
        f"config.{key} is the trained model's own, or of no use here, and "
        f'cannot be given with --mode={mode}; these can: {", ".join(allowed)}'
      )
  config = ConfigDict(config.to_dict())
  config.update_from_flattened_dict(overrides)
  if 'train.batch_size' in overrides:
    # It says how many are computed at once.
    config.train.accumulate = 1
  check_config(config)
  check_size(config)
  return config


def check_paths(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Checks the paths of a config, and no more.

  Args:
    config: with all the keys of configs/default.py.
    workdir: of the command; its files must not be taken for images next time.

  Raises:
    InputError: a path leads nowhere, or workdir or cache lie in the source.
  """
  try:
    name, cache = config.data.source, config.data.cache_dir
  except AttributeError:
    return  # `check_config` names what is missing.
  if not all(map(TEXT.allows, (name, cache))):
    return  # It names what is no text, too.
  folder = listing.locate(name)
  if folder and workdir.resolve().is_relative_to(folder.resolve()):
    raise InputError(
      f'--workdir={workdir} lies in config.data.source={name}; give a folder '
      'outside the images'
    )
  if folder and files.expand(cache).resolve().is_relative_to(folder.resolve()):
    raise InputError(
      f'config.data.cache_dir={cache} lies in config.data.source={name}; give '
      'a folder outside the images'
    )


def check_start(config: ConfigDict) -> None:
  """Checks where a config's weights are to come from; see `check_weights`."""
  try:
    weights = config.model.weights
  except AttributeError:
    return  # `check_config` names what is missing.
  check_weights(weights)


def check_weights(weights: str, prefix: str = 'config.model') -> None:
  """Checks that weights are known by name, or that their path exists.

  Args:
    weights: `config.model.weights`.
    prefix: as in `check_config`, which names weights that are no text.

  Raises:
    InputError: they are not.
  """
  if weights in (RANDOM, IMAGENET) or not TEXT.allows(weights):
    return
  if weights.startswith(HUB):
    if not HUB_REFERENCE.fullmatch(weights):
      raise InputError(
        f'{prefix}.weights={weights} must be {HUB}OWNER/NAME@REVISION, the '
        'revision being a commit, a tag or a branch'
      )
  elif not files.expand(weights).exists():
    raise InputError(
      f'{prefix}.weights={weights}: there is no such file or folder. Give '
      f'{RANDOM}, {IMAGENET}, a Keras file, the --workdir of a run or of an '
      f'export, or {HUB}OWNER/NAME@REVISION'
    )


def check_mode(
  config: ConfigDict, mode: str, named: Collection[str] = ()
) -> None:
  """Refuses keys that would promise what a mode, or a model, does not do.

  Others are left aside where they mean nothing: one command line serves
  several modes.

  Args:
    config: that `check_config` has passed.
    mode: of the command, one that takes a whole config.
    named: keys that the user gave values to.

  Raises:
    InputError: names the key, and the modes or models that it is for.
  """
  for key, (neutral, modes) in _KEYS_OF_MODES.items():
    value = _value(config, key)
    if value != neutral and mode not in modes:
      raise InputError(
        f'config.{key}={value} goes together with --mode={", ".join(modes)}'
      )
  for key, own in _OF_STUDIES.items():
    if mode == 'study' and key in named:
      raise InputError(
        f'config.{key} is for --mode=train; a study has config.{own}'
      )
  if mode in ('train', 'benchmark'):
    check_size(config)
  if mode == 'train':
    _check_training(config)


def _check_training(config: ConfigDict) -> None:
  """Refuses what a model's training would leave aside, or can't use."""
  from leukemia_jax import models

  model, train = config.model, config.train
  for key, neutral, names in (
    ('train.loss', 'cross_entropy', models.BACKBONES),
    ('train.mask_loss', 'bce', models.UNETS),
    ('data.drop_empty_masks', False, models.UNETS),
  ):
    value = _value(config, key)
    if value != neutral and model.name not in names:
      raise InputError(
        f'config.{key}={value} is for {", ".join(names)}, not for {model.name}'
      )
  if config.data.hide_corners and model.name in models.UNETS:
    raise InputError(
      'config.data.hide_corners=True hides cells that '
      f'{model.name} is to find: it is for classifiers'
    )
  if train.freeze_backbone and model.weights == RANDOM:
    raise InputError(
      'config.train.freeze_backbone=True needs config.model.weights: a deep '
      'backbone of random weights tells images hardly apart'
    )


def check_size(config: ConfigDict) -> None:
  """Refuses images that are too small for the model.

  Args:
    config: that `check_config` has passed.

  Raises:
    InputError: names the smallest size.
  """
  from leukemia_jax import models

  data, name = config.data, config.model.name
  minimum = models.minimum_size(name)
  if round(data.image_size * data.scale) < minimum:
    scale = f' * config.data.scale={data.scale}' if data.scale != 1 else ''
    raise InputError(
      f'config.data.image_size={data.image_size}{scale} must be {minimum} or '
      f'more for {name}'
    )


def _value(config: ConfigDict, key: str) -> Any:
  section, _, name = key.partition('.')
  return config[section][name]


def check_config(config: ConfigDict, prefix: str = 'config.model') -> None:
  """Checks every value that has a rule.

  Args:
    config: with all the keys of configs/default.py.
    prefix: where the user gave the values of `config.model`; a study has a
      section for each backbone.

  Raises:
    InputError: names each key that can't be, or isn't known, its value and what
      it may be.
  """
  problems = list(_misfits(config, prefix)) or list(_mismatches(config, prefix))
  if problems:
    raise InputError('\n'.join(problems))


def _misfits(config: ConfigDict, prefix: str) -> Iterator[str]:
  """Keys and values that no config may have."""
  from leukemia_jax import models

  known = list(keys())
  study = {f'study.{n}.{k}' for n in models.BACKBONES for k in SECTION}
  for key in flatten(config):
    if key not in known and key not in study:
      yield no_such_key(key, known)
  for key, (rule, *_) in keys().items():
    name = f'config.{key}'
    if key.startswith('model.') and last_part(key) in SECTION:
      name = f'{prefix}.{last_part(key)}'
    value: Any = config
    try:
      for part in key.split('.'):
        value = value[part]
      fits = rule.allows(value)
    except (AttributeError, KeyError):
      yield f'{name} is missing: take it from configs/default.py'
      continue
    except TypeError:
      fits = False
    if not fits:
      yield f'{name}={value!r} must be {rule.words}'


def _mismatches(config: ConfigDict, prefix: str) -> Iterator[str]:
  """Values that are fine, except for the model that they are given with."""
  from leukemia_jax import models
  from leukemia_jax.data import protocols

  model, data, train = config.model, config.data, config.train
  fields = (data[field] for field in protocols.Protocol._fields[1:])
  yield from protocols.problems(protocols.Protocol(data.protocol, *fields))
  if data.grey and config.augment.stain:
    yield (
      f'config.augment.stain={config.augment.stain} changes colours, and '
      'config.data.grey=True has taken them out; give one of the two'
    )
  if data.stream and data.protocol == 'balance_then_split':
    yield (
      'config.data.stream=True: the copies of config.data.protocol='
      'balance_then_split are in memory; give --config.data.stream=False'
    )
  if train.batch_size % train.accumulate:
    yield (
      f'config.train.batch_size={train.batch_size} must be a multiple of '
      f'config.train.accumulate={train.accumulate}'
    )
  if model.name in models.UNETS:
    yield from _unet_mismatches(config, prefix)
  else:
    yield from _backbone_mismatches(model, prefix)


def _unet_mismatches(config: ConfigDict, prefix: str) -> Iterator[str]:
  model = config.model
  if model.blocks or not model.depth:
    yield (
      f'{prefix}.blocks={model.blocks!r} must be () and '
      f'config.model.depth={model.depth} 1 or more for {model.name}, as in '
      f'configs/{model.name}.py'
    )
  if model.weights == IMAGENET:
    yield f'{prefix}.weights=imagenet: {model.name} has none'
  if config.train.freeze_backbone:
    yield f'config.train.freeze_backbone=True: {model.name} has no backbone'
  if config.evaluate.recalibrate:
    yield (
      f'config.evaluate.recalibrate={config.evaluate.recalibrate}: '
      f'{model.name} says no classes; it is for classifiers'
    )
  if config.data.neutral_background:
    yield (
      'config.data.neutral_background=True shows the masks that '
      f'{model.name} is to find: it is for classifiers'
    )


def _backbone_mismatches(model: ConfigDict, prefix: str) -> Iterator[str]:
  from leukemia_jax import models

  if model.depth or not model.blocks:
    yield (
      f'config.model.depth={model.depth} must be 0 and {prefix}.blocks='
      f'{model.blocks!r} three numbers for {model.name}'
    )
  if model.batch_norm or model.remat:
    yield (
      'config.model.batch_norm and config.model.remat must be False for '
      f'{model.name}: they are for {", ".join(models.UNETS)}'
    )
  size = models.published_size(model.name)[:2]
  own = model.width, tuple(model.blocks)
  if model.weights == IMAGENET and size != own:
    yield (
      f'{prefix}.weights=imagenet needs {prefix}.width={size[0]} and '
      f'{prefix}.blocks={size[1]}, as in configs/{model.name}.py, not '
      f'{own[0]} and {own[1]}'
    )
