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
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from leukemia_jax import augment as augmentation
from leukemia_jax import (
  checkpoint,
  evaluate,
  metrics,
  models,
  report,
)
from leukemia_jax import settings as checks
from leukemia_jax import workdir as files
from leukemia_jax.data import audit, builder, dataset, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError

_KEYS = ('split', 'copies', 'init', 'train')
_AUGMENT_BATCH = 32


def make_keys(seed: int) -> dict[str, jax.Array]:
  """One key for each use, all from the run's seed."""
  split = jax.random.split(jax.random.key(seed), len(_KEYS))
  return dict(zip(_KEYS, split, strict=True))


def load(config: ml_collections.ConfigDict) -> tuple[Dataset, Catalogue]:
  """Prepares a config's source if need be and reads it.

  Args:
    config: the experiment.

  Returns:
    Images and labels on the device, and the catalogue.
  """
  directory = builder.prepare(config.data, config.synthetic)
  data, catalogue = dataset.load(directory, config.data.image_size)
  if catalogue.skipped:
    print(
      f'{len(catalogue.skipped)} bad images left out: '
      f'{", ".join(catalogue.skipped[:5])}'
      + (' ...' if len(catalogue.skipped) > 5 else '')
    )
  return data, catalogue


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
  config: ml_collections.ConfigDict, split: Split, data: Dataset
) -> tuple[Dataset, list[np.ndarray]]:
  """Makes the augmented copies that a split asks for, and finds its rows.

  Args:
    config: the experiment.
    split: of the set.
    data: the originals.

  Returns:
    The set with the copies appended, and for each part the row numbers of its
    images in that set.
  """
  every = splits.unique(np.concatenate(split))
  copies = every[every[:, 1] > 0]
  first = len(data.labels)
  place = {tuple(row): first + i for i, row in enumerate(copies.tolist())}
  rows = [
    np.array([place.get((i, c), i) for i, c in part.tolist()], np.int32)
    for part in split
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


def model_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The fields of a config's model; see `models.create`."""
  settings = config.model
  fields = {'width': settings.width, 'dtype': jnp.dtype(settings.dtype)}
  if settings.name in models.UNETS:
    return fields | {'depth': settings.depth}
  return fields | {
    'blocks': tuple(settings.blocks),
    'momentum': settings.momentum,
    'dropout_rate': settings.dropout_rate,
    'freeze_backbone': config.train.freeze_backbone,
  }


def make_model(
  config: ml_collections.ConfigDict, num_classes: int
) -> models.Classifier | models.UNet:
  """The model of a config."""
  return models.create(
    config.model.name, num_classes=num_classes, **model_fields(config)
  )


def objective(
  config: ml_collections.ConfigDict,
) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """What a config's model minimises; see `train.make_train_step`."""
  if config.model.name in models.UNETS:
    return metrics.mask_objective
  return metrics.class_objective


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
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
      raise TypeError('classes must be two names or more')
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(
      f'{workdir / files.RESULT} is damaged, or of another version: {error}'
    ) from error
  model = make_model(config, len(names))
  size = config.data.image_size
  abstract = jax.eval_shape(
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


def _environment() -> dict[str, Any]:
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


def run_cost(started: float, **more: Any) -> dict[str, Any]:
  """What a command took so far: seconds, peak memory, and what is given."""
  # Linux counts kilobytes, macOS bytes.
  unit = 1 if sys.platform == 'darwin' else 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  return {
    'seconds': round(time.perf_counter() - started, 1),
    **more,
    'peak_memory_bytes': peak,
  }


def _size(tree: Any) -> int:
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
    'task': 'classification',
    'model': {
      'name': config.model.name,
      'width': config.model.width,
      'blocks': list(config.model.blocks),
      'image_size': config.data.image_size,
      'parameters': _size(variables['params']),
      'statistics': _size(variables['batch_stats']),
    },
    'data': {
      # The name alone: where it lies is nobody's business but the workdir's.
      'source': pathlib.Path(config.data.source).name,
      'fingerprint': catalogue.fingerprint,
      'classes': list(catalogue.class_names),
      'images': len(catalogue.ids),
      'groups': _group_count(config, catalogue),
      'skipped': len(catalogue.skipped),
    },
    'parameters_sha256': checkpoint.fingerprint(variables),
  }


def score_parts(
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
  variables: dict[str, Any],
  data: Dataset,
  parts: dict[str, np.ndarray],
  eval_step: Callable[..., evaluate.Sums],
) -> dict[str, Any]:
  """Scores a model on parts of a set.

  Args:
    config: for the batch size and the benign class.
    class_names: names of the model's classes.
    variables: the model's.
    data: the set.
    parts: row numbers by part.
    eval_step: from `evaluate.make_eval_step`.

  Returns:
    `metrics.scores` by part.
  """
  result = {}
  for part, rows in parts.items():
    loss, confusion = evaluate.run(
      eval_step,
      variables,
      data,
      rows,
      batch_size=config.train.batch_size,
      num_classes=len(class_names),
    )
    result[part] = metrics.scores(
      confusion, loss, class_names, config.data.benign_class
    )
  return result


def write_result(workdir: pathlib.Path, result: dict[str, Any]) -> None:
  """Writes result.json and the report, and prints the score that counts."""
  result |= _environment()
  files.write_json(workdir / files.RESULT, result)
  path = report.write(workdir)
  test = result['test']
  print(
    f'test accuracy {test["accuracy"]:.4f} over {test["images"]} images, worst '
    f'class recall {test["worst_class_recall"]:.4f}; see {path}'
  )
