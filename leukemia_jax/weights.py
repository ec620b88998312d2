"""What a run's weights start from: chance, ImageNet, Keras, another run."""

import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from leukemia_jax import experiment, models
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError
from leukemia_jax.models import keras_import, published
from leukemia_jax.train import TrainState

_CHANCE, _IMAGENET = 'none', 'imagenet'


def _run(weights: str) -> pathlib.Path | None:
  """The training run that weights come from, if they do."""
  if weights in (_CHANCE, _IMAGENET) or not pathlib.Path(weights).is_dir():
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
  if weights not in (_CHANCE, _IMAGENET) and not pathlib.Path(weights).exists():
    raise InputError(
      f'config.model.weights={weights}: there is no such file or folder. Give '
      f'{_CHANCE}, {_IMAGENET}, a Keras file or the --workdir of a run'
    )
  if config.model.preprocess != 'auto':
    return config
  run = _run(weights)
  if weights == _CHANCE:
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
  if weights == _CHANCE:
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


def seen_images(weights: str, split: Split, catalogue: Catalogue) -> int | None:
  """How many held-out images the starting weights have learnt from.

  Args:
    weights: `config.model.weights`.
    split: of the run.
    catalogue: of its set.

  Returns:
    The number; None for weights that are not a run's of ours.
  """
  run = _run(weights)
  if run is None:
    return None
  _, _, learnt = experiment.saved_split(run)
  held_out = np.concatenate([split.validation, split.test])[:, 0]
  seen = sum(catalogue.pixels[i] in learnt for i in np.unique(held_out))
  if seen:
    print(
      f'warning: the weights of {weights} have learnt from {seen} images that '
      'validation and test hold here: the scores are too good. Use the same '
      'config.seed and split there and here'
    )
  return seen
