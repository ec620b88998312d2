"""What each key of a config may be, what it decides, and which was meant.

A mistyped key or path is answered before JAX is loaded: what the values of the
others may be is imported only when they are checked.
"""

import difflib
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

# Values of `config.model.weights` that are no path.
RANDOM, IMAGENET = 'none', 'imagenet'
# And those of an exported model on the Hugging Face hub.
HUB = 'hf:'
HUB_REFERENCE = re.compile(r'hf:(\w[\w.-]*/\w[\w.-]*)@(\w[\w.-]*)')

# Of the factors on the size of images.
LARGEST_SCALE = 8
# Keys of `config.model` that a study has for each backbone.
SECTION = ('weights', 'preprocess', 'width', 'blocks')


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
    prediction: whether a prediction may change it.
    identifies: whether another value makes another run.
  """

  rule: Rule
  evaluation: bool = False
  prediction: bool = False
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
  except (re.error, RecursionError, OverflowError):
    return False


def _is_patient(value: Any) -> bool:
  if value in ('', 'auto', 'folder'):
    return True
  if re.fullmatch(r'folder:.*', value):
    return bool(re.fullmatch(r'folder:[1-9]\d{0,3}', value))
  return _is_pattern(value) and re.compile(value).groups == 1


def _is_scale(value: Any) -> bool:
  try:
    return value == 'auto' or 0 < float(value) <= LARGEST_SCALE
  except ValueError:
    return False


def _all(what: str, rule: Rule) -> Rule:
  return Rule(
    f'() of one or more different {what}, each {rule.words}',
    lambda v: 0 < len(v) == len(set(v)) and all(map(rule.allows, v)),
  )


_BELOW_ONE = Rule('from 0 to below 1', lambda v: 0 <= v < 1)
_SHARE = Rule('above 0, below 1', lambda v: 0 < v < 1)
_POSITIVE = Rule('above 0, finite', lambda v: 0 < v < float('inf'))
TEXT = Rule(
  'a text that is not empty', lambda v: isinstance(v, str) and v != ''
)
_FLAG = Rule('True or False', lambda v: isinstance(v, bool))


def _data_keys() -> dict[str, Key]:
  from leukemia_jax.data import grouping, masks, protocols
  from leukemia_jax.transforms.colour import Removal

  return {
    'seed': Key(_whole(0, 2**32 - 1)),
    'data.source': Key(TEXT, evaluation=True),
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
    'data.turn_by_exif': Key(_FLAG, evaluation=True, prediction=True),
    'data.white_level': Key(_whole(0, 65535), evaluation=True, prediction=True),
    'data.follow_links': Key(_FLAG, evaluation=True, prediction=True),
    'data.split': Key(_one_of(*protocols.SPLITS)),
    'data.image_size': Key(_whole(1, 4096)),
    'data.scale': Key(_at_most(LARGEST_SCALE), evaluation=True),
    'data.cache_dir': Key(TEXT, evaluation=True, identifies=False),
    'data.stream': Key(_FLAG, evaluation=True, identifies=False),
    'data.on_bad_image': Key(_one_of('error', 'skip'), evaluation=True),
    'data.max_pixels': Key(_whole(1, 2**40), evaluation=True, prediction=True),
    'data.max_bytes': Key(_whole(1, 2**50), evaluation=True, prediction=True),
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
    'synthetic.scale': Key(_at_most(20), evaluation=True),
    'synthetic.seed': Key(_whole(0, 2**32 - 1), evaluation=True),
  }


def _use_keys() -> dict[str, Key]:
  return {
    'report.include_images': Key(
      _one_of('auto', 'yes', 'no'),
      evaluation=True,
      prediction=True,
      identifies=False,
    ),
    'report.shortcuts': Key(_FLAG, evaluation=True),
    'evaluate.recalibrate': Key(_whole(0, 10**6), evaluation=True),
    'predict.scale': Key(
      Rule(f"'auto', or above 0, at most {LARGEST_SCALE}", _is_scale),
      prediction=True,
    ),
    'predict.sheet': Key(_whole(0, 10**4), prediction=True, identifies=False),
    'predict.false_alarms': Key(_SHARE, prediction=True),
    'predict.coverage': Key(_SHARE, prediction=True),
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
    'model.weights': Key(TEXT),
    'model.preprocess': Key(_one_of('auto', *preprocess.PREPROCESSING)),
    'model.dropout_rate': Key(_BELOW_ONE),
    'model.width': Key(_at_most(8)),
    'model.blocks': Key(Rule('() or three numbers from 1 to 100', _is_blocks)),
    'model.depth': Key(_whole(0, 8)),
    'model.batch_norm': Key(_FLAG),
    'model.remat': Key(_FLAG),
    'model.momentum': Key(_BELOW_ONE),
    'model.dtype': Key(_one_of('auto', 'float32', 'bfloat16')),
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
        lambda v: all(map(TEXT.allows, v)),
      ),
      identifies=False,
    ),
    'mesh.devices': Key(_whole(0, 10**4), identifies=False),
    'train.learning_rate': Key(_POSITIVE),
    'train.epochs': Key(_whole(1, 10**6)),
    'train.batch_size': Key(_whole(1, 2**16), evaluation=True, prediction=True),
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
  return _data_keys() | _use_keys() | _augment_keys() | _model_keys()


def last_part(key: str) -> str:
  """A key without its sections."""
  return key.rpartition('.')[2]


def flatten(config: ConfigDict, prefix: str = '') -> list[str]:
  """The keys of a config, such as 'train.epochs'."""
  names: list[str] = []
  for key, value in config.items():
    is_section = isinstance(value, ConfigDict)
    names += flatten(value, f'{prefix}{key}.') if is_section else [prefix + key]
  return names


def no_such_key(key: str, known: list[str]) -> str:
  """The error for a key that is not known; see `nearest_keys`."""
  near = ', '.join(f'config.{k}' for k in nearest_keys(key, known))
  return f'there is no key config.{key}' + (
    f'; did you mean {near}?' if near else ''
  )


def nearest_keys(key: str, known: list[str]) -> list[str]:
  """The keys that a mistyped one may stand for.

  Args:
    key: as typed, such as 'train.lr'.
    known: all keys.

  Returns:
    Six at most, the nearest first: keys of a section of that name, of the same
    last part, of its initials, and of similar spelling.
  """
  leaf, section = last_part(key), key.rpartition('.')[0]
  near = [k for k in known if k.startswith(f'{key}.')]
  near += [k for k in known if last_part(k) == leaf]
  abbreviated = [
    k for k in known if ''.join(w[:1] for w in last_part(k).split('_')) == leaf
  ]
  # A key of the section that was named comes first.
  near += sorted(abbreviated, key=lambda k: k.rpartition('.')[0] != section)
  near += difflib.get_close_matches(key, known, 3, 0.6)
  similar = difflib.get_close_matches(leaf, map(last_part, known))
  near += [k for k in known if last_part(k) in similar]
  return list(dict.fromkeys(near))[:6]
