"""From a config to its parts: data, split, model, scores, result."""

import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from leukemia_jax import augment as augmentation
from leukemia_jax import checkpoint, metrics, models, report
from leukemia_jax import settings as checks
from leukemia_jax import workdir as files
from leukemia_jax.data import audit, builder, dataset, masks, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError

_KEYS = ('split', 'copies', 'init', 'train')
_AUGMENT_BATCH = 32


def make_keys(seed: int) -> dict[str, jax.Array]:
  """One key for each use, all from the run's seed."""
  split = jax.random.split(jax.random.key(seed), len(_KEYS))
  return dict(zip(_KEYS, split, strict=True))


def segments(config: ml_collections.ConfigDict) -> bool:
  """Whether a config's model makes masks, not classes."""
  return config.model.name in models.UNETS


def load(
  config: ml_collections.ConfigDict, *, read_masks: bool | None = None
) -> tuple[Dataset, Catalogue]:
  """Prepares a config's source if need be and reads it.

  Args:
    config: the experiment.
    read_masks: whether to read masks; None does for a model that makes them.

  Returns:
    Images, labels and masks on the device, and the catalogue.

  Raises:
    InputError: the source can't be used; or, for a model that makes masks, some
      are missing or bad, or none has a cell.
  """
  settings = config.data
  if read_masks is None:
    read_masks = segments(config)
  rule = masks.Settings(
    settings.mask_rule, settings.clean_masks, settings.clean_minimum_area
  )
  directory = builder.prepare(settings, config.synthetic)
  size = max(1, round(settings.image_size * settings.scale))
  data, catalogue = dataset.load(directory, size, rule if read_masks else None)
  if catalogue.skipped:
    print(
      f'{len(catalogue.skipped)} bad images left out: '
      f'{", ".join(catalogue.skipped[:5])}'
      + (' ...' if len(catalogue.skipped) > 5 else '')
    )
  if segments(config):
    data, catalogue = _with_masks_alone(config, data, catalogue)
    if not catalogue.coverage.any():
      raise InputError(_all_empty(config, '', len(catalogue.ids)))
  elif len(catalogue.class_names) < 2:
    raise InputError(
      f'{settings.source} has one class, {catalogue.class_names[0]!r}: a '
      'classifier needs two class folders or more'
    )
  return data, catalogue


def _with_masks_alone(
  config: ml_collections.ConfigDict, data: Dataset, catalogue: Catalogue
) -> tuple[Dataset, Catalogue]:
  """The images that have a mask; others are an error, or skipped."""
  paired = np.flatnonzero(~np.isnan(catalogue.coverage))
  bad = list(catalogue.bad_masks)
  if not len(paired) and not bad:
    raise InputError(
      f'{config.data.source} has no masks, which {config.model.name} learns '
      'from: give Original/<Class>/ with Segmented/<Class>/, or images/ with '
      'masks/, files of one name each'
    )
  bad += [f'{path}: no file of its name there' for path in catalogue.unpaired]
  if not bad:
    return data, catalogue
  if config.data.on_bad_image == 'error' or not len(paired):
    raise builder.unusable(
      f'{config.data.source}: {len(bad)} masks are bad, or masks and images '
      'have no counterpart',
      bad,
    )
  left_out = len(catalogue.ids) - len(paired)
  print(f'{left_out} images without a mask that can be used left out')
  return dataset.select(data, catalogue, paired)


def _all_empty(
  config: ml_collections.ConfigDict, whose: str, count: int
) -> str:
  return (
    f'{config.data.source}: all {count} masks{whose} are empty by '
    f'config.data.mask_rule={config.data.mask_rule}. Give the rule that fits '
    '(grey>0 for masks of 0 and 1)'
  )


def make_split(
  config: ml_collections.ConfigDict, catalogue: Catalogue
) -> Split:
  """Splits a set as the config says.

  Args:
    config: the experiment.
    catalogue: of the set.

  Returns:
    The split; with `config.data.drop_empty_masks` images of empty masks are in
    no training part.

  Raises:
    InputError: the set can't be split; or, for a model that makes masks, all of
      a class are empty.
  """
  key, trainable = make_keys(config.seed)['split'], None
  if segments(config):
    for label, name in enumerate(catalogue.class_names):
      coverage = catalogue.coverage[catalogue.labels == label]
      if len(coverage) and not coverage.any():
        raise InputError(
          _all_empty(config, f' of {name}', len(coverage))
          + ", or remove the class's folder"
        )
    if config.data.drop_empty_masks:
      trainable = catalogue.coverage >= masks.EMPTY_SHARE
  split = splits.make(key, catalogue, config.data, trainable=trainable)
  if not len(split.train):
    raise InputError(
      'config.data.drop_empty_masks=True leaves no image to train on: all '
      'masks of the training part are empty'
    )
  return split


def make_augment(config: ml_collections.ConfigDict) -> Callable[..., Any]:
  """The augmentation of a config, as a function of (key, image)."""
  return functools.partial(augmentation.augment, **config.augment.to_dict())


def saved_split(workdir: pathlib.Path) -> tuple[Split, str, set[str]]:
  """The split that a run wrote down, its set, and the images it learnt from."""
  path = workdir / files.SPLIT
  saved = files.read_json(path)
  try:
    split, fingerprint = splits.from_json(saved)
    count = len(saved['pixels'])
    for part in split:
      if not len(part) or part.min() < 0 or part[:, 0].max() >= count:
        raise ValueError('a part is empty or names images that are not there')
    return split, fingerprint, splits.learnt_from(saved)
  except (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
  ) as error:
    raise InputError(f'{path} is damaged: {error!r}') from error


def materialise(
  config: ml_collections.ConfigDict,
  parts: Sequence[np.ndarray],
  data: Dataset,
) -> tuple[Dataset, list[np.ndarray]]:
  """Makes the augmented copies that parts ask for, and finds their rows.

  Args:
    config: the experiment.
    parts: a split of the set, or the parts of several.
    data: the originals.

  Returns:
    The set with the copies appended, and for each part the row numbers of its
    images in that set.
  """
  every = splits.unique(np.concatenate(parts))
  copies = every[every[:, 1] > 0]
  first = len(data.labels)
  place = {tuple(row): first + i for i, row in enumerate(copies.tolist())}
  rows = [
    np.array([place.get((i, c), i) for i, c in part.tolist()], np.int32)
    for part in parts
  ]
  key = make_keys(config.seed)['copies']
  data = dataset.with_copies(data, copies, key, make_augment(config))
  return data, rows


def training_augment(
  config: ml_collections.ConfigDict,
) -> Callable[..., Any] | None:
  """What happens to every training image in every epoch; None for nothing.

  Copies that were made and augmented once, before the split, are left alone,
  and so is everything beside them: the study's way.
  """
  if config.data.order == 'balance_then_split':
    return None
  return make_augment(config)


def balancing_trace(
  config: ml_collections.ConfigDict,
  catalogue: Catalogue,
  data: Dataset,
  *,
  seed: int,
) -> float:
  """How far balancing marks the class, whatever the images show.

  The labels are dealt out anew at random, as many of each as there are. The
  set is then split, balanced and augmented as for training, and a linear model
  looks for the labels in processing traces alone; see `audit.trace_probe`.

  Args:
    config: the experiment; its order and augmentation are what is probed.
    catalogue: of the set.
    data: the set.
    seed: of the deal.

  Returns:
    Balanced accuracy; 1 / classes is chance.
  """
  dealt = np.random.default_rng(seed).permutation(catalogue.labels)
  catalogue = dataclasses.replace(catalogue, labels=dealt)
  data = data._replace(labels=jnp.asarray(dealt))
  keys = make_keys(config.seed)
  split = splits.make(keys['split'], catalogue, config.data)
  every, rows = materialise(config, split, data)
  images, augment = every.images[rows[0]], training_augment(config)
  if augment is not None:
    each = jax.random.split(keys['train'], len(images))
    pairs = jax.jit(lambda pair: augment(*pair))
    images = jax.lax.map(pairs, (each, images), batch_size=_AUGMENT_BATCH)
  return audit.trace_probe(
    np.asarray(images), dealt[split.train[:, 0]], split.train[:, 0]
  )


def part_counts(
  split: Split, catalogue: Catalogue
) -> dict[str, dict[str, int]]:
  """Number of images by part and class, repeated ones counted again."""
  counts = {}
  for part, rows in zip(splits.PARTS, split, strict=True):
    by_class = np.bincount(
      catalogue.labels[rows[:, 0]], minlength=len(catalogue.class_names)
    )
    counts[part] = dict(
      zip(catalogue.class_names, by_class.tolist(), strict=True)
    )
  return counts


def backbone_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The fields of a config's model without a head; see `models.create`."""
  settings = config.model
  fields = {'width': settings.width, 'dtype': jnp.dtype(settings.dtype)}
  fields['momentum'] = settings.momentum
  if settings.name in models.UNETS:
    return fields | {
      'depth': settings.depth,
      'batch_norm': settings.batch_norm,
      'checkpoint': settings.checkpoint,
    }
  return fields | {'blocks': tuple(settings.blocks)}


def model_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The fields of a config's model; see `models.create`."""
  if segments(config):
    return backbone_fields(config)
  return backbone_fields(config) | {
    'dropout_rate': config.model.dropout_rate,
    'freeze_backbone': config.train.freeze_backbone,
  }


def make_model(
  config: ml_collections.ConfigDict, num_classes: int
) -> models.Classifier | models.UNet:
  """The model of a config; one that makes masks tells cells from ground."""
  return models.create(
    config.model.name,
    num_classes=1 if segments(config) else num_classes,
    **model_fields(config),
  )


def objective(
  config: ml_collections.ConfigDict,
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """What a config's model minimises; see `train.make_train_step`."""
  if segments(config):
    return functools.partial(
      metrics.mask_objective, loss=config.train.mask_loss
    )
  return functools.partial(metrics.class_objective, loss=config.train.loss)


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
  """The config of a training run."""
  path = workdir / files.CONFIG
  settings = files.read_json(path)
  if not isinstance(settings, dict) or settings.pop('mode', '') != 'train':
    raise InputError(f'{path} is not that of a training run')
  try:
    config = ml_collections.ConfigDict(settings)
    checks.check(config)
  except (AttributeError, TypeError, ValueError) as error:
    raise InputError(
      f'{path} is damaged, or of another version: {error}'
    ) from error
  return config


def load_trained(
  workdir: pathlib.Path,
) -> tuple[ml_collections.ConfigDict, tuple[str, ...], dict[str, Any]]:
  """Config, classes and best weights of a finished training run."""
  config = read_config(workdir)
  result = files.read_json(workdir / files.RESULT)
  try:
    names = tuple(result['data']['classes'])
    least = 1 if segments(config) else 2
    if len(names) < least or not all(isinstance(n, str) for n in names):
      raise TypeError(f'classes must be {least} names or more')
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(
      f'{workdir / files.RESULT} is damaged, or of another version: {error}'
    ) from error
  model = make_model(config, len(names))
  size = config.data.image_size
  abstract = {'batch_stats': {}} | jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False
    )
  )
  manager = checkpoint.open_manager(workdir / files.BEST)
  restored = checkpoint.restore(manager, abstract)
  manager.close()
  if restored is None:
    raise InputError(f'{workdir / files.BEST} holds no checkpoint')
  return config, names, restored[0]


def trained_fingerprint(workdir: pathlib.Path) -> str:
  """The hash of a finished training run's weights."""
  result = files.read_json(workdir / files.RESULT)
  found = result.get('parameters_sha256') if isinstance(result, dict) else None
  if not isinstance(found, str):
    raise InputError(f'{workdir / files.RESULT} names no parameters_sha256')
  return found


def environment() -> dict[str, Any]:
  """The versions and the device that numbers come from."""
  packages = (
    'leukemia_jax',
    'jax',
    'flax',
    'optax',
    'orbax-checkpoint',
    'numpy',
  )
  versions = {'python': platform.python_version()}
  for package in packages:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = 'not installed'
  device = jax.devices()[0]
  kind = f'{device.device_kind}, {os.cpu_count()} cores, {platform.machine()}'
  return {'versions': versions, 'device': kind}


def peak_memory_bytes(who: int = resource.RUSAGE_SELF) -> int:
  """The most memory that this process, or `resource.RUSAGE_CHILDREN`, took."""
  # Linux counts kilobytes, macOS bytes.
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(who).ru_maxrss * unit


def run_cost(started: float, **more: Any) -> dict[str, Any]:
  """What a command took so far: seconds, peak memory, and what is given."""
  return {
    'seconds': round(time.perf_counter() - started, 1),
    **more,
    'peak_memory_bytes': peak_memory_bytes(),
  }


def size_of(tree: Any) -> int:
  """The number of values in a pytree of arrays."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _group_count(
  config: ml_collections.ConfigDict, catalogue: Catalogue
) -> int:
  settings = config.data
  groups = splits.group_ids(catalogue, settings.grouping, settings.block)
  return len(set(groups.tolist()))


def describe(
  config: ml_collections.ConfigDict,
  catalogue: Catalogue,
  variables: dict[str, Any],
) -> dict[str, Any]:
  """What identifies a result: model, data, weights."""
  return {
    'task': 'segmentation' if segments(config) else 'classification',
    'model': {
      'name': config.model.name,
      'width': config.model.width,
      'blocks': list(config.model.blocks),
      'depth': config.model.depth,
      'image_size': config.data.image_size,
      'parameters': size_of(variables['params']),
      'statistics': size_of(variables['batch_stats']),
    },
    'data': {
      # The name alone: where it lies is nobody's business but the workdir's.
      'source': pathlib.Path(config.data.source).name,
      'fingerprint': catalogue.fingerprint,
      'scale': config.data.scale,
      'classes': list(catalogue.class_names),
      'images': len(catalogue.ids),
      'groups': _group_count(config, catalogue),
      'skipped': len(catalogue.skipped),
    },
    'parameters_sha256': checkpoint.fingerprint(variables),
  }


def write_result(workdir: pathlib.Path, result: dict[str, Any]) -> None:
  """Writes result.json and the report, and prints the score that counts."""
  result |= environment()
  files.write_json(workdir / files.RESULT, result)
  path = report.write(workdir)
  test = result['test']
  if result['task'] == 'segmentation':
    rule = result['baselines'].get('colour_rule')
    print(
      f'test Dice {test["dice"]:.4f}, IoU {test["iou"]:.4f} over '
      f'{test["images"]} images'
      + (f' (a colour rule: Dice {rule["dice"]:.4f})' if rule else '')
      + f'; see {path}'
    )
    return
  print(
    f'test accuracy {test["accuracy"]:.4f} over {test["images"]} images, worst '
    f'class recall {test["worst_class_recall"]:.4f}; see {path}'
  )
