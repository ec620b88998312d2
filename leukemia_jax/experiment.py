"""The commands: prepare a set, train a classifier, evaluate one."""

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
  figures,
  metrics,
  models,
  report,
  train,
)
from leukemia_jax import settings as checks
from leukemia_jax import workdir as files
from leukemia_jax.data import audit, builder, dataset, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError

_KEYS = ('split', 'copies', 'init', 'train')
_SHEET = 6  # images of a class on a contact sheet


def _keys(seed: int) -> dict[str, jax.Array]:
  """One key for each use, all from the run's seed."""
  split = jax.random.split(jax.random.key(seed), len(_KEYS))
  return dict(zip(_KEYS, split, strict=True))


def _say(text: str = '') -> None:
  print(text, flush=True)


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
    _say(
      f'{len(catalogue.skipped)} bad images left out: '
      f'{", ".join(catalogue.skipped[:5])}'
      + (' ...' if len(catalogue.skipped) > 5 else '')
    )
  return data, catalogue


def make_augment(config: ml_collections.ConfigDict) -> Callable[..., Any]:
  """The augmentation of a config, as a function of (key, image)."""
  return functools.partial(augmentation.augment, **config.augment.to_dict())


def _saved_split(workdir: pathlib.Path, catalogue: Catalogue) -> Split | None:
  """The split that a run wrote down, if it is of this very set."""
  path = workdir / files.SPLIT
  try:
    split, fingerprint = splits.from_json(files.read_json(path))
  except (KeyError, TypeError) as error:
    raise InputError(f'{path} is damaged: {error} is missing') from error
  return split if fingerprint == catalogue.fingerprint else None


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
  key = _keys(config.seed)['copies']
  data = dataset.with_copies(data, copies, key, make_augment(config))
  return data, rows


def _counts(split: Split, catalogue: Catalogue) -> dict[str, dict[str, int]]:
  counts = {}
  for part, rows in zip(splits.PARTS, split, strict=True):
    by_class = np.bincount(
      catalogue.labels[rows[:, 0]], minlength=len(catalogue.class_names)
    )
    counts[part] = dict(
      zip(catalogue.class_names, by_class.tolist(), strict=True)
    )
  return counts


def prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Builds and checks a set, prints its counts, draws two contact sheets.

  Args:
    config: the experiment.
    workdir: where classes.png and augmented.png go.
  """
  files.create(workdir)
  data, catalogue = load(config)
  split = splits.make(_keys(config.seed)['split'], catalogue, config.data)
  counts, names = _counts(split, catalogue), catalogue.class_names
  rows = []
  for label, name in enumerate(names):
    members = np.flatnonzero(catalogue.labels == label)
    groups = len({catalogue.groups[i] for i in members})
    row = [name, len(members), groups, *(counts[p][name] for p in splits.PARTS)]
    rows.append([str(value) for value in row])
  _say(report.table(['class', 'images', 'groups', *splits.PARTS], rows))
  order = f'option {config.data.option}, {config.data.order}'
  _say(f'Parts: {order}; training images may be repeated to balance classes.')
  _say(
    f'{len(catalogue.ids)} images, {catalogue.masks} with a mask, '
    f'{len(catalogue.skipped)} left out; fingerprint {catalogue.fingerprint}'
  )
  if catalogue.unpaired:
    _say(
      f'{len(catalogue.unpaired)} images or masks have no counterpart (fine '
      f'for classification): {", ".join(catalogue.unpaired[:5])}'
    )
  examples, augmented = [], []
  augment = jax.jit(jax.vmap(make_augment(config)))
  for label, name in enumerate(names):
    members = np.flatnonzero(catalogue.labels == label)
    picked = members[np.linspace(0, len(members) - 1, _SHEET).astype(int)]
    examples.append((name, list(np.asarray(data.images[picked]))))
    keys = jax.random.split(jax.random.key(config.seed), _SHEET - 1)
    first = data.images[picked[0]]
    made = augment(keys, jnp.repeat(first[None], _SHEET - 1, 0))
    augmented.append((name, [np.asarray(first), *np.asarray(made)]))
  sheets = {
    'classes.png': (examples, 'Examples of each class'),
    'augmented.png': (augmented, 'An image (left) and its augmented forms'),
  }
  for file, (sheet, title) in sheets.items():
    files.write(workdir / file, figures.contact_sheet(sheet, title))
    _say(f'wrote {workdir / file}')


def make_model(
  config: ml_collections.ConfigDict, num_classes: int
) -> models.Classifier:
  """The model of a config."""
  settings = config.model
  return models.create(
    settings.name,
    num_classes=num_classes,
    dropout_rate=settings.dropout_rate,
    freeze_backbone=config.train.freeze_backbone,
    width=settings.width,
    blocks=tuple(settings.blocks),
    momentum=settings.momentum,
    dtype=jnp.dtype(settings.dtype),
  )


def _trained(
  workdir: pathlib.Path,
) -> tuple[ml_collections.ConfigDict, tuple[str, ...], dict[str, Any]]:
  """Config, classes and best weights of a finished training run."""
  settings = files.read_json(workdir / files.CONFIG)
  result = files.read_json(workdir / files.RESULT)
  if settings.pop('mode', None) != 'train':
    raise InputError(f'{workdir} is not the workdir of a training run')
  try:
    config = ml_collections.ConfigDict(settings)
    checks.check(config)
    names = tuple(result['data']['classes'])
  except (AttributeError, KeyError, TypeError) as error:
    raise InputError(
      f'{workdir / files.CONFIG} or {files.RESULT} there is damaged, or of '
      f'another version: {error}'
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


def _start_from(
  state: train.TrainState,
  weights: str,
  catalogue: Catalogue,
) -> train.TrainState:
  """Takes over the backbone of another run; its head too for equal classes."""
  _, names, variables = _trained(pathlib.Path(weights))
  taken = variables['params']
  if names != catalogue.class_names:
    taken = {'backbone': taken['backbone']}
  params = state.params | taken
  new, old = (
    jax.tree.map(lambda leaf: leaf.shape, tree)
    for tree in (params, state.params)
  )
  if new != old:
    raise InputError(
      f'config.model.weights={weights} holds a model of another shape; give '
      'the config.model.name, width and blocks that it was trained with'
    )
  return state.replace(params=params, batch_stats=variables['batch_stats'])


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


def _cost(started: float, **more: Any) -> dict[str, Any]:
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


def _describe(
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
      'groups': len(set(catalogue.groups)),
      'skipped': len(catalogue.skipped),
    },
    'parameters_sha256': checkpoint.fingerprint(variables),
  }


def _score(
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
  variables: dict[str, Any],
  data: Dataset,
  parts: dict[str, np.ndarray],
  eval_step: Callable[..., evaluate.Sums],
) -> dict[str, Any]:
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


def _finish(workdir: pathlib.Path, result: dict[str, Any]) -> None:
  result |= _environment()
  files.write_json(workdir / files.RESULT, result)
  path = report.write(workdir)
  test = result['test']
  _say(
    f'test accuracy {test["accuracy"]:.4f} over {test["images"]} images, worst '
    f'class recall {test["worst_class_recall"]:.4f}; see {path}'
  )


def run_training(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
  """Trains a classifier and scores it on its three parts.

  Args:
    config: the experiment.
    workdir: where everything of the run goes. A run that was cut off goes on
      from its latest checkpoint; a finished one is left as it is.

  Raises:
    InputError: the data or the workdir can't be used, or the loss diverged.
  """
  started = time.perf_counter()
  files.claim(workdir, {'mode': 'train', **config.to_dict()})
  if (workdir / files.RESULT).exists():
    _say(f'this run is finished: see {report.write(workdir)}')
    return
  data, catalogue = load(config)
  keys = _keys(config.seed)
  if (workdir / files.SPLIT).exists():
    saved = _saved_split(workdir, catalogue)
    if saved is None:
      raise InputError(
        f'{config.data.source} has changed since this run began; give a new '
        '--workdir'
      )
    split = saved
  else:
    split = splits.make(keys['split'], catalogue, config.data)
    files.write(workdir / files.SPLIT, splits.to_json(split, catalogue))
  data, rows = materialise(config, split, data)
  names = catalogue.class_names
  model = make_model(config, len(names))
  tx = train.make_optimizer(config.train.freeze_backbone)
  state = train.init_state(
    keys['init'],
    model,
    tx,
    image_size=config.data.image_size,
    learning_rate=config.train.learning_rate,
  )
  if config.model.weights != 'none':
    state = _start_from(state, config.model.weights, catalogue)
  # Offline copies were augmented once; then nothing is while training.
  offline = config.data.order == 'balance_then_split'
  train_step = train.make_train_step(
    apply_fn=model.apply,
    tx=tx,
    augment=None if offline else make_augment(config),
    preprocessing=config.model.preprocess,
  )
  eval_step = evaluate.make_eval_step(
    apply_fn=model.apply, preprocessing=config.model.preprocess
  )
  prepared = time.perf_counter() - started
  outcome = train.fit(
    state,
    train_step,
    eval_step,
    data,
    train_rows=rows[0],
    validation_rows=rows[1],
    num_classes=len(names),
    key=keys['train'],
    settings=config.train,
    workdir=workdir,
  )
  variables = outcome.variables
  # Repeated training images count once.
  parts = dict(zip(splits.PARTS, map(np.unique, rows), strict=True))
  result = _describe(config, catalogue, variables)
  result['data'] |= {
    'split': {
      'option': config.data.option,
      'order': config.data.order,
      'grouping': config.data.grouping,
    },
    'counts': _counts(split, catalogue),
  }
  result |= _score(config, names, variables, data, parts, eval_step)
  colour = audit.colour_accuracy(
    np.asarray(data.images),
    np.asarray(data.labels),
    parts['train'],
    parts['test'],
  )
  # A score counts for something only beside what no cell was looked at for.
  result['baselines'] = {'colour_3_nearest_neighbours': colour}
  cost = outcome.cost
  seconds = cost.train_seconds
  result |= {
    'epochs': len(outcome.history),
    'best_epoch': outcome.best_epoch + 1,
    'cost': _cost(
      started,
      prepare_seconds=round(prepared, 1),
      compile_seconds=round(cost.compile_seconds, 1),
      train_seconds=round(seconds, 1),
      images_per_second=round(cost.images / seconds, 1) if seconds else None,
    ),
  }
  _finish(workdir, result)


def run_evaluation(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  trained: pathlib.Path,
  *,
  own_source: bool,
) -> None:
  """Scores a trained model on its own set or on any other.

  Args:
    config: says where the images are; size, model and classes are those that
      the model was trained with.
    workdir: where the result goes.
    trained: the workdir of the training run.
    own_source: score on the source that the model was trained on.

  Raises:
    InputError: a path can't be used, or the classes aren't the model's.
  """
  started = time.perf_counter()
  theirs, names, variables = _trained(trained)
  if workdir.resolve() == trained.resolve():
    raise InputError(
      '--workdir and --checkpoint are the same folder; give --workdir another, '
      'where the scores go'
    )
  if not own_source:
    cache = config.data.cache_dir
    theirs.data.source = config.data.source
    theirs.data.cache_dir = cache
    for key in ('on_bad_image', 'max_pixels', 'max_bytes'):
      theirs.data[key] = config.data[key]
    theirs.synthetic = config.synthetic
  settings = {'mode': 'evaluate', 'checkpoint': str(trained.resolve())}
  files.claim(workdir, settings | theirs.to_dict())
  data, catalogue = load(theirs)
  unknown = sorted(set(catalogue.class_names) - set(names))
  if unknown:
    raise InputError(
      f'{theirs.data.source} has the classes {", ".join(unknown)}, which the '
      f'model does not know; it was trained on {", ".join(names)}. Rename the '
      'folders'
    )
  split = _saved_split(trained, catalogue)
  if split is not None:
    # The set it was trained on: only its own parts are a fair test.
    data, rows = materialise(theirs, split, data)
    parts = dict(zip(splits.PARTS, map(np.unique, rows), strict=True))
  else:
    parts = {'test': np.arange(len(catalogue.ids))}
    mapping = np.array(
      [names.index(n) for n in catalogue.class_names], np.int32
    )
    data = data._replace(labels=jnp.asarray(mapping)[data.labels])
  model = make_model(theirs, len(names))
  eval_step = evaluate.make_eval_step(
    apply_fn=model.apply, preprocessing=theirs.model.preprocess
  )
  result = _describe(theirs, catalogue, variables)
  result['data']['classes'] = list(names)
  result |= _score(theirs, names, variables, data, parts, eval_step)
  result['cost'] = _cost(started)
  _finish(workdir, result)
