"""What a run's weights start from: chance, ImageNet, Keras, another run."""

import hashlib
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from leukemia_jax import experiment, models, train
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError
from leukemia_jax.models import keras_import, published
from leukemia_jax.train import TrainState

CHANCE, _IMAGENET = 'none', 'imagenet'


def _run(weights: str) -> pathlib.Path | None:
  """The training run that weights come from, if they do."""
  if weights in (CHANCE, _IMAGENET) or not pathlib.Path(weights).is_dir():
    return None
  return pathlib.Path(weights)


def with_scale(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The config with the input scale that its weights were made with.

  Args:
    config: the experiment. `config.model.preprocess='auto'` becomes 'unit' for
      weights drawn by chance, 'backbone' for ImageNet's, and that of the run
      for a workdir.

  Returns:
    A config whose scale is named.

  Raises:
    InputError: there is nothing at the weights' path, or a Keras file, which
      does not tell its scale.
  """
  weights = config.model.weights
  if weights not in (CHANCE, _IMAGENET) and not pathlib.Path(weights).exists():
    raise InputError(
      f'config.model.weights={weights}: there is no such file or folder. Give '
      f'{CHANCE}, {_IMAGENET}, a Keras file or the --workdir of a run'
    )
  if config.model.preprocess != 'auto':
    return config
  run = _run(weights)
  if weights == CHANCE:
    scale = 'unit'
  elif weights == _IMAGENET:
    scale = 'backbone'
  elif run is not None:
    scale = experiment.read_config(run).model.preprocess
  else:
    raise InputError(
      f'config.model.weights={weights}: say what its images were scaled to, '
      "--config.model.preprocess=backbone for [-1, 1] (ImageNet's) or =unit "
      'for [0, 1]'
    )
  config = ml_collections.ConfigDict(config.to_dict())
  config.model.preprocess = scale
  return config


def _from_keras(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The variables of ImageNet or of a Keras file, its top left away."""
  model, path = config.model, pathlib.Path(config.model.weights)
  if config.model.weights == _IMAGENET:
    cache = pathlib.Path(config.data.cache_dir).expanduser()
    path = published.fetch(published.IMAGENET[model.name], cache / 'weights')
  fields = experiment.model_fields(config)
  shape = {k: fields[k] for k in ('width', 'blocks', 'depth') if k in fields}
  taken = keras_import.load_weights(path, model.name, **shape)
  if model.name in models.BACKBONES:
    taken['params'] = {'backbone': taken['params']['backbone']}
  return taken


def start(
  state: TrainState,
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
) -> TrainState:
  """Puts the weights that a config names into a new state.

  Args:
    state: before the first step, drawn by chance.
    config: the experiment.
    class_names: of the run; the head of another run is taken over if its
      classes are the same.

  Returns:
    The state.

  Raises:
    InputError: the weights can't be had, or are another model's.
  """
  weights = config.model.weights
  if weights == CHANCE:
    return state
  run = _run(weights)
  if run is None:
    taken = _from_keras(config)
  else:
    _, names, taken = experiment.load_trained(run)
    if names != class_names and not experiment.segments(config):
      taken['params'] = {'backbone': taken['params']['backbone']}
  params = state.params | taken['params']
  new, old = (
    jax.tree.map(lambda leaf: leaf.shape, tree)
    for tree in (params, state.params)
  )
  if new != old:
    raise InputError(
      f'config.model.weights={weights} holds a model of another shape; give '
      'the config.model.name, width and blocks that it was trained with'
    )
  params, statistics = jax.device_put((params, taken['batch_stats']))
  return state.replace(params=params, batch_stats=statistics)


def seen_images(
  weights: str, split: Split, catalogue: Catalogue
) -> dict[str, int] | None:
  """How many held-out images the starting weights have learnt from.

  Args:
    weights: `config.model.weights`.
    split: of the run.
    catalogue: of its set.

  Returns:
    The number by part; None for weights that are not a run's of ours.
  """
  run = _run(weights)
  if run is None:
    return None
  _, _, learnt = experiment.saved_split(run)
  seen = {
    part: sum(catalogue.pixels[i] in learnt for i in np.unique(rows[:, 0]))
    for part, rows in split._asdict().items()
    if part != 'train'
  }
  for part, count in seen.items():
    if count:
      print(
        f'warning: the weights of {weights} have learnt from {count} images of '
        f'the {part} part: its scores are too good'
      )
  if seen['test']:
    print(
      'Use the same config.seed and split there and here, or train the weights '
      'with --config.data.order=outside_study'
    )
  return seen


def identity(config: ml_collections.ConfigDict) -> str:
  """What a config's starting weights are a function of.

  Args:
    config: the experiment.

  Returns:
    A text that changes when they do; none of them is loaded for it.

  Raises:
    InputError: there is nothing at the weights' path.
  """
  weights = config.model.weights
  if weights == CHANCE:
    return f'drawn from seed {config.seed}'
  if weights == _IMAGENET:
    return published.IMAGENET[config.model.name].digest
  run = _run(weights)
  if run is not None:
    return experiment.trained_fingerprint(run)
  try:
    with open(weights, 'rb') as stream:
      return hashlib.file_digest(stream, 'sha256').hexdigest()
  except OSError as error:
    raise InputError(
      f'config.model.weights={weights} cannot be read: {error.strerror}'
    ) from None


def backbone(
  config: ml_collections.ConfigDict, class_names: tuple[str, ...]
) -> dict[str, Any]:
  """A classifier's starting weights without its head.

  Args:
    config: the experiment.
    class_names: of the set.

  Returns:
    What `models.create` with no classes applies.

  Raises:
    InputError: see `start`.
  """
  size = config.data.image_size
  state = train.init_state(
    experiment.make_keys(config.seed)['init'],
    experiment.make_model(config, len(class_names)),
    # No moments of what is not trained.
    train.make_optimizer(freeze_backbone=True),
    shape=(size, size, 3),
    learning_rate=config.train.learning_rate,
  )
  variables = start(state, config, class_names).variables()
  return {
    collection: {'backbone': tree['backbone']}
    for collection, tree in variables.items()
  }


def of_run(
  config: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
  """The config with the shape of the run that its weights are from.

  Args:
    config: the experiment; others than a run's weights change nothing.

  Returns:
    A config that makes a model which holds the weights.

  Raises:
    InputError: the run is of another model or image size.
  """
  run = _run(config.model.weights)
  if run is None:
    return config
  theirs = experiment.read_config(run)
  for key, here, there in (
    ('model.name', config.model.name, theirs.model.name),
    ('data.image_size', config.data.image_size, theirs.data.image_size),
    ('data.scale', config.data.scale, theirs.data.scale),
  ):
    if here != there:
      raise InputError(
        f'{run} was trained with config.{key}={there}, not {here}'
      )
  config = ml_collections.ConfigDict(config.to_dict())
  for field in ('width', 'blocks', 'momentum'):
    config.model[field] = theirs.model[field]
  return config
