"""A config's parts: keys, inputs, augmentation, model, objective.

Each command calls `inputs` once, and `network` if it runs a model; data, models
and transforms know no config.
"""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from leukemia_jax import models
from leukemia_jax.data import decode, layouts, masks, protocols, source
from leukemia_jax.data.builder import SourceSpec
from leukemia_jax.data.dataset import AugmentFn
from leukemia_jax.data.input_pipeline import InputSpec
from leukemia_jax.errors import InputError
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.metrics.losses import Objective
from leukemia_jax.transforms.augment import augment
from leukemia_jax.transforms.colour import Removal


class Keys(NamedTuple):
  """One PRNG key for each use, all from the run's seed."""

  split: jax.Array
  copies: jax.Array
  init: jax.Array
  train: jax.Array


def make_keys(seed: int) -> Keys:
  """Derives the keys of a run from `config.seed`."""
  return Keys(*jax.random.split(jax.random.key(seed), len(Keys._fields)))


class Inputs(NamedTuple):
  """What turns a source into a data set and its split.

  Attributes:
    keys: of the run.
    spec: what is read, and how it is split.
    augment: maps (key, image) to an image, and (key, image, mask) to both.
  """

  keys: Keys
  spec: InputSpec
  augment: AugmentFn


def inputs(config: ConfigDict, targets: str) -> Inputs:
  """Takes a config's `seed`, `data`, `synthetic` and `augment`.

  Args:
    config: the config.
    targets: what its model learns: 'classes' or 'masks'.

  Returns:
    The inputs.
  """
  data = config.data
  spec = InputSpec(
    source=SourceSpec(
      source=data.source,
      reading=_reading(data),
      cache_dir=data.cache_dir,
      decoding=decoding(data),
      synthetic_scale=config.synthetic.scale,
      synthetic_seed=config.synthetic.seed,
    ),
    stream=data.stream,
    on_bad_image=data.on_bad_image,
    image_size=max(1, round(data.image_size * data.scale)),
    targets=targets,
    mask_reading=masks.Reading(
      data.mask_rule, data.clean_masks, data.clean_minimum_area
    ),
    drop_empty_masks=data.drop_empty_masks,
    removal=removal(data),
    protocol=protocols.Protocol(
      data.protocol,
      *(data[field] for field in protocols.Protocol._fields[1:]),
    ),
  )
  augmentation = functools.partial(augment, **config.augment.to_dict())
  return Inputs(make_keys(config.seed), spec, augmentation)


def removal(data: ConfigDict) -> Removal:
  """What `config.data` says that is taken out of every image."""
  return Removal(*(data[field] for field in Removal._fields))


def decoding(data: ConfigDict) -> decode.Options:
  """How `config.data` says that files are decoded."""
  return decode.Options(data.max_pixels, data.turn_by_exif, data.white_level)


def _reading(data: ConfigDict) -> source.Options:
  """How `config.data` says that a source is read."""
  return source.Options(
    layouts.Options(
      data.label,
      data.patient,
      data.mask_suffix,
      data.split,
      tuple(data.label_names),
    ),
    data.table,
    tuple(data.columns),
    data.max_bytes,
    data.follow_links,
  )


class Network(NamedTuple):
  """A model and how it learns.

  Attributes:
    model: from `models.create`.
    preprocessing: see `transforms.preprocess`; None for features.
    objective: what it minimises.
    confusion: maps (logits, targets, sample weight) to counts by true class
      (row) and predicted class (column).
    num_classes: side of those counts; 2 for masks, background and cells.
  """

  model: Any
  preprocessing: str | None
  objective: Objective
  confusion: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  num_classes: int


def network(
  config: ConfigDict,
  num_outputs: int,
  *,
  objective: Objective,
  confusion: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> Network:
  """Takes a config's `model`.

  Args:
    config: the config.
    num_outputs: classes, or 1 for masks.
    objective: of the task.
    confusion: of the task.

  Returns:
    The network.
  """
  return Network(
    create_model(config, num_outputs),
    config.model.preprocess,
    objective,
    confusion,
    max(2, num_outputs),
  )


def backbone_fields(model: ConfigDict) -> dict[str, Any]:
  """The fields of `config.model` without a head; see `models.create`."""
  fields = {
    'width': model.width,
    'dtype': jnp.dtype(model.dtype),
    'momentum': model.momentum,
  }
  if model.name in models.UNETS:
    return fields | {
      'depth': model.depth,
      'batch_norm': model.batch_norm,
      'remat': model.remat,
    }
  return fields | {'blocks': tuple(model.blocks)}


def create_model(
  config: ConfigDict, num_outputs: int
) -> models.Classifier | models.UNet:
  """The model of a config.

  Args:
    config: the config.
    num_outputs: classes, or 1 for masks.

  Returns:
    The module; see `models.create`.
  """
  fields = backbone_fields(config.model)
  if config.model.name in models.BACKBONES:
    fields |= {
      'dropout_rate': config.model.dropout_rate,
      'freeze_backbone': config.train.freeze_backbone,
    }
  return models.create(config.model.name, num_classes=num_outputs, **fields)


# What `config.data.benign_class` is if the user doesn't say it.
_DEFAULT_BENIGN = 'Benign'


def check_benign_class(config: ConfigDict, class_names: Sequence[str]) -> None:
  """Refuses a benign class that isn't there, unless nobody asked for it.

  Args:
    config: the config.
    class_names: of the model.

  Raises:
    InputError: names the nearest classes.
  """
  benign = config.data.benign_class
  if benign in ('', *class_names):
    return
  folded = {name.casefold(): name for name in class_names}
  near = difflib.get_close_matches(benign.casefold(), folded, 3, 0.6)
  names = ', '.join(folded[name] for name in near or folded)
  text = (
    f'config.data.benign_class={benign}: there is no such class, so no '
    f"sensitivity and no specificity; give one of {names}, or '' for none"
  )
  if benign != _DEFAULT_BENIGN:
    raise InputError(text)
  if near:
    print(f'warning: {text}')


class Scoring(NamedTuple):
  """How predictions are scored.

  Attributes:
    batch_size: images a step.
    benign_class: the healthy class, or ''.
    smallest_cell: diameter, px.
    mixing_key: PRNG key that mixes images before batches of the soft Dice.
    mask_reading: how the set's masks are read.
    probes_shortcuts: whether a classifier is compared with shortcuts.
    shows_images: whether pages may show images of the set.
    rates: that thresholds of a classifier's flags are chosen by.
  """

  batch_size: int
  benign_class: str
  smallest_cell: float
  mixing_key: jax.Array
  mask_reading: masks.Reading
  probes_shortcuts: bool
  shows_images: bool
  rates: Rates


def images_at_once(train: ConfigDict) -> int:
  """How many images `config.train` has computed at once: a piece of a batch."""
  at_once: int = train.batch_size // train.accumulate
  return at_once


def scoring(config: ConfigDict, inputs: Inputs) -> Scoring:
  """Takes how a config's predictions are scored."""
  return Scoring(
    batch_size=images_at_once(config.train),
    benign_class=config.data.benign_class,
    smallest_cell=config.data.smallest_cell * config.data.image_size,
    mixing_key=inputs.keys.split,
    mask_reading=inputs.spec.mask_reading,
    probes_shortcuts=config.report.shortcuts,
    shows_images=shows_images(config),
    rates=Rates(config.predict.false_alarms, config.predict.coverage),
  )


def shows_images(config: ConfigDict) -> bool:
  """Whether pages may show images: a set's terms may forbid copies."""
  # A rendered set is nobody's.
  is_rendered = config.data.source == 'synthetic'
  by_key = {'auto': is_rendered, 'yes': True, 'no': False}
  return by_key[config.report.include_images]
