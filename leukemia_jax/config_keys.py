"""What each key of a config may be, what it decides, and which was meant.

A mistyped key or path is answered before JAX is loaded: what the values of the
others may be is imported only when they are checked.
"""

import difflib
import functools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from leukemia_jax import files
from leukemia_jax.data import listing
from leukemia_jax.errors import InputError

# Values of `config.model.weights` that are no path.
RANDOM, IMAGENET = 'none', 'imagenet'


# Keys of `config.model` that a study has for each backbone.
_SECTION = ('weights', 'preprocess', 'width', 'blocks')


class Rule(NamedTuple):
  """What a value may be, in words and as a test."""

  words: str
  allows: Callable[[Any], bool]


class Key(NamedTuple):
  """A key of a config.

  Attributes:
    rule: what its value may be.
    evaluation: whether an evaluation may change it; all other keys are the
      trained model's own.
    identifies: whether another value makes another run.
  """

  rule: Rule
  evaluation: bool = False
  identifies: bool = True


def _one_of(*values: Any) -> Rule:
  return Rule(f'one of {", ".join(map(repr, values))}', lambda v: v in values)


def _between(low: float, high: float) -> Rule:
  return Rule(f'from {low} to {high}', lambda v: low <= v <= high)


def _at_most(high: float) -> Rule:
  return Rule(f'above 0, at most {high}', lambda v: 0 < v <= high)


def _whole(low: int, high: int) -> Rule:
  return Rule(
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


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _are_texts(value: Any) -> bool:
  return not isinstance(value, str) and all(
    isinstance(v, str) and '=' in v for v in value
  )


def _is_pattern(value: Any) -> bool:
  try:
    return bool(re.compile(value)) and isinstance(value, str)
  except (re.error, RecursionError):
    return False


def _is_patient(value: Any) -> bool:
  if value in ('', 'auto', 'folder'):
    return True
  if re.fullmatch(r'folder:.*', value):
    return bool(re.fullmatch(r'folder:[1-9]\d{0,3}', value))
  return _is_pattern(value) and re.compile(value).groups == 1


def _all(what: str, rule: Rule) -> Rule:
  return Rule(
    f'() of one or more different {what}, each {rule.words}',
    lambda v: 0 < len(v) == len(set(v)) and all(map(rule.allows, v)),
  )


_BELOW_ONE = Rule('from 0 to below 1', lambda v: 0 <= v < 1)
_SHARE = Rule('above 0, below 1', lambda v: 0 < v < 1)
_POSITIVE = Rule('above 0, finite', lambda v: 0 < v < float('inf'))
_TEXT = Rule(
  'a text that is not empty', lambda v: isinstance(v, str) and v != ''
)
_FLAG = Rule('True or False', lambda v: isinstance(v, bool))


def _data_keys() -> dict[str, Key]:
  from leukemia_jax.data import grouping, masks, protocols
  from leukemia_jax.transforms.colour import Removal

  return {
    'seed': Key(_whole(0, 2**32 - 1)),
    'data.source': Key(_TEXT, evaluation=True),
    'data.unit': Key(_one_of('field', 'cell'), evaluation=True),
    'data.table': Key(Rule('a text', _is_text), evaluation=True),
    'data.columns': Key(
      Rule("() or texts such as ('path=ID','label=labels')", _are_texts),
      evaluation=True,
    ),
    'data.label_names': Key(
      Rule("() or texts such as ('0=hem','1=all')", _are_texts),
      evaluation=True,
    ),
    'data.label': Key(
      Rule('a regular expression, or empty', _is_pattern), evaluation=True
    ),
    'data.patient': Key(
      Rule(
        "'auto', '', 'folder', 'folder:N' from 1, or a regular expression with "
        'one group',
        _is_patient,
      ),
      evaluation=True,
    ),
    'data.mask_suffix': Key(Rule('a text', _is_text), evaluation=True),
    'data.turn_by_exif': Key(_FLAG, evaluation=True),
    'data.white_level': Key(_whole(0, 65535), evaluation=True),
    'data.follow_links': Key(_FLAG, evaluation=True),
    'data.split': Key(_one_of(*protocols.SPLITS)),
    'data.image_size': Key(_whole(1, 4096)),
    'data.scale': Key(_at_most(8), evaluation=True),
    'data.cache_dir': Key(_TEXT, evaluation=True, identifies=False),
    'data.on_bad_image': Key(_one_of('error', 'skip'), evaluation=True),
    'data.max_pixels': Key(_whole(1, 2**40), evaluation=True),
    'data.max_bytes': Key(_whole(1, 2**50), evaluation=True),
    'data.option': Key(_one_of(*protocols.OPTIONS)),
    'data.protocol': Key(_one_of(*protocols.PROTOCOLS)),
    'data.grouping': Key(_one_of(*grouping.GROUPINGS)),
    'data.block': Key(_whole(1, 10**6)),
    'data.folds': Key(_whole(1, 1000)),
    'data.fold': Key(_whole(-1, 999)),
    'data.embargo': Key(_whole(0, 10**6)),
    'data.per_class': Key(_whole(0, 10**6)),
    'data.mask_rule': Key(
      Rule('such as max_channel>60 or grey>128', masks.is_rule),
      evaluation=True,
    ),
    'data.clean_masks': Key(_FLAG, evaluation=True),
    'data.clean_minimum_area': Key(_whole(1, 10**6), evaluation=True),
    'data.drop_empty_masks': Key(_FLAG),
    **{f'data.{name}': Key(_FLAG) for name in Removal._fields},
    'data.smallest_cell': Key(_at_most(1), evaluation=True),
    'data.benign_class': Key(Rule('a text', _is_text), evaluation=True),
    'report.include_images': Key(
      _one_of('auto', 'yes', 'no'), evaluation=True, identifies=False
    ),
    'report.shortcuts': Key(_FLAG, evaluation=True),
    'evaluate.recalibrate': Key(_whole(0, 10**6), evaluation=True),
    'predict.false_alarms': Key(_SHARE, evaluation=True),
    'predict.coverage': Key(_SHARE, evaluation=True),
    'synthetic.scale': Key(_at_most(20), evaluation=True),
    'synthetic.seed': Key(_whole(0, 2**32 - 1), evaluation=True),
  }


def _augment_keys() -> dict[str, Key]:
  from leukemia_jax.transforms import augment

  return {
    'augment.brightness_delta': Key(_between(0, 1)),
    'augment.contrast_delta': Key(_between(0, 1)),
    'augment.stain': Key(_between(0, 1)),
    'augment.rotation': Key(_between(0, 180)),
    'augment.fill': Key(_one_of(*augment.FILLS)),
    'augment.jpeg_quality': Key(
      Rule('() or (lowest, highest), 1..100', _is_quality)
    ),
    'augment.flip_horizontal': Key(_FLAG),
    'augment.flip_vertical': Key(_FLAG),
  }


def _model_keys() -> dict[str, Key]:
  from leukemia_jax import models
  from leukemia_jax.data import protocols
  from leukemia_jax.metrics import losses
  from leukemia_jax.transforms import preprocess

  return {
    'model.name': Key(_one_of(*models.NAMES)),
    'model.weights': Key(_TEXT),
    'model.preprocess': Key(_one_of('auto', *preprocess.PREPROCESSING)),
    'model.dropout_rate': Key(_BELOW_ONE),
    'model.width': Key(_at_most(8)),
    'model.blocks': Key(Rule('() or three numbers from 1 to 100', _is_blocks)),
    'model.depth': Key(_whole(0, 8)),
    'model.batch_norm': Key(_FLAG),
    'model.remat': Key(_FLAG),
    'model.momentum': Key(_BELOW_ONE),
    'model.dtype': Key(_one_of('float32', 'bfloat16')),
    'study.models': Key(_all('backbones', _one_of(*models.BACKBONES))),
    'study.options': Key(_all('options', _one_of(*protocols.OPTIONS))),
    'study.learning_rates': Key(_all('rates', _POSITIVE)),
    'study.dropout_rates': Key(_all('rates', _BELOW_ONE)),
    'study.repeats': Key(_whole(1, 1000)),
    'study.row': Key(_whole(-1, 10**6), identifies=False),
    'study.calibration_images': Key(_whole(0, 10**6)),
    'study.segmentation': Key(
      Rule(
        '() or workdirs, each a text that is not empty',
        lambda v: all(map(_TEXT.allows, v)),
      ),
      identifies=False,
    ),
    'train.learning_rate': Key(_POSITIVE),
    'train.epochs': Key(_whole(1, 10**6)),
    'train.batch_size': Key(_whole(1, 2**16), evaluation=True),
    'train.accumulate': Key(_whole(1, 2**16)),
    'train.loss': Key(_one_of(*losses.CLASS_LOSSES)),
    'train.mask_loss': Key(_one_of(*losses.MASK_LOSSES)),
    'train.freeze_backbone': Key(_FLAG),
    'train.decay': Key(_one_of('plateau', 'cosine')),
    'train.plateau_factor': Key(_at_most(1)),
    'train.plateau_patience': Key(_whole(1, 10**6)),
    'train.stop_patience': Key(_whole(1, 10**6)),
    'train.checkpoint_steps': Key(_whole(1, 10**9)),
    'train.steps_per_call': Key(_whole(1, 10**4)),
  }


@functools.cache
def keys() -> dict[str, Key]:
  """The table of all keys that have a rule."""
  return _data_keys() | _augment_keys() | _model_keys()


def _leaf(key: str) -> str:
  return key.rpartition('.')[2]


def nearest_keys(key: str, known: list[str]) -> list[str]:
  """The keys that a mistyped one may stand for.

  Args:
    key: as typed, such as 'train.lr'.
    known: all keys.

  Returns:
    Six at most, the nearest first: keys of a section of that name, of the same
    last part, of its initials, and of similar spelling.
  """
  leaf, section = _leaf(key), key.rpartition('.')[0]
  near = [k for k in known if k.startswith(f'{key}.')]
  near += [k for k in known if _leaf(k) == leaf]
  abbreviated = [
    k for k in known if ''.join(w[:1] for w in _leaf(k).split('_')) == leaf
  ]
  # A key of the section that was named comes first.
  near += sorted(abbreviated, key=lambda k: k.rpartition('.')[0] != section)
  near += difflib.get_close_matches(key, known, 3, 0.6)
  similar = difflib.get_close_matches(leaf, map(_leaf, known))
  near += [k for k in known if _leaf(k) in similar]
  return list(dict.fromkeys(near))[:6]


def check_paths(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Checks the paths of a config, and no more.

  Args:
    config: with all the keys of configs/default.py.
    workdir: of the command; its files must not be taken for images next time.

  Raises:
    InputError: a path leads nowhere, or the workdir lies in the source.
  """
  try:
    name, weights = config.data.source, config.model.weights
  except AttributeError:
    return  # `check_config` names what is missing.
  if not (_TEXT.allows(name) and _TEXT.allows(weights)):
    return  # It names what is no text, too.
  folder = listing.locate(name)
  if folder and workdir.resolve().is_relative_to(folder.resolve()):
    raise InputError(
      f'--workdir={workdir} lies in config.data.source={name}; give a folder '
      'outside the images'
    )
  check_weights(weights)


def check_weights(weights: str, prefix: str = 'config.model') -> None:
  """Checks that weights are known by name, or that their path exists.

  Args:
    weights: `config.model.weights`.
    prefix: as in `check_config`.

  Raises:
    InputError: they are not.
  """
  if weights not in (RANDOM, IMAGENET) and not files.expand(weights).exists():
    raise InputError(
      f'{prefix}.weights={weights}: there is no such file or folder. Give '
      f'{RANDOM}, {IMAGENET}, a Keras file or the --workdir of a run'
    )


def check_config(config: ConfigDict, prefix: str = 'config.model') -> None:
  """Checks every value that has a rule.

  Args:
    config: with all the keys of configs/default.py.
    prefix: where the user gave the values of `config.model`; a study has a
      section for each backbone.

  Raises:
    InputError: names each key that can't be, its value and what it may be.
  """
  problems = list(_misfits(config, prefix)) or list(_mismatches(config, prefix))
  if problems:
    raise InputError('\n'.join(problems))


def _misfits(config: ConfigDict, prefix: str) -> Iterator[str]:
  """Values that no config may have."""
  for key, (rule, *_) in keys().items():
    name = f'config.{key}'
    if key.startswith('model.') and _leaf(key) in _SECTION:
      name = f'{prefix}.{_leaf(key)}'
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
  minimum = models.minimum_size(model.name)
  if round(data.image_size * data.scale) < minimum:
    scale = f' * config.data.scale={data.scale}' if data.scale != 1 else ''
    yield (
      f'config.data.image_size={data.image_size}{scale} must be {minimum} or '
      f'more for {model.name}'
    )
  if data.grey and config.augment.stain:
    yield (
      f'config.augment.stain={config.augment.stain} changes colours, and '
      'config.data.grey=True has taken them out; give one of the two'
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
