"""What weights start from: random, ImageNet, a Keras file, another model."""

import hashlib
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, devices, files
from leukemia_jax.config_check import check_weights
from leukemia_jax.config_keys import HUB_REFERENCE, IMAGENET, RANDOM
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError
from leukemia_jax.pretrained import download, hub, keras_weights
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import TrainState, init_state
from leukemia_jax.workdir import config_of, description, result, saved
from leukemia_jax.workdir.saved import Learnt


def _run_folder(weights: str) -> pathlib.Path | None:
  """The training run that weights come from, if they do."""
  folder = files.expand(weights)
  is_run = folder.is_dir() and not (folder / description.NAME).exists()
  return folder if is_run and weights not in (RANDOM, IMAGENET) else None


def _exported_folder(config: ConfigDict) -> pathlib.Path | None:
  """The exported model that weights come from, if they do; fetched first."""
  weights = config.model.weights
  if match := HUB_REFERENCE.fullmatch(weights):
    names = description.NAME, description.WEIGHTS
    cache = files.expand(config.data.cache_dir) / 'hub'
    return hub.fetch(match[1], match[2], names, cache)
  folder = files.expand(weights)
  return folder if (folder / description.NAME).is_file() else None


def _begun(workdir: pathlib.Path | None) -> dict[str, Any]:
  """What a run that has begun took for `config.model`; {} before."""
  path = workdir and config_of(workdir)
  content = files.read_json(path) if path else None
  model = content.get('model') if isinstance(content, dict) else None
  return model if isinstance(model, dict) else {}


def resolve_dtype(
  config: ConfigDict, workdir: pathlib.Path | None = None
) -> ConfigDict:
  """The config with a dtype.

  Args:
    config: the config. `config.model.dtype='auto'` becomes what the run has
      begun with; else 'bfloat16' where the processor has matrix units for it,
      or 'float32'.
    workdir: of the run, if there is one.

  Returns:
    A config that names one.
  """
  if config.model.dtype != 'auto':
    return config
  config = ml_collections.ConfigDict(config.to_dict())
  config.model.dtype = _begun(workdir).get('dtype', devices.fast_dtype())
  return config


def resolve_auto(
  config: ConfigDict,
  workdir: pathlib.Path | None = None,
  prefix: str = 'config.model',
) -> ConfigDict:
  """The config with the input scale of its weights, and a dtype.

  Args:
    config: the config. `config.model.preprocess='auto'` becomes what the run
      has begun with; else 'unit' for random weights, 'backbone' for
      ImageNet's, and that of the model for a run or an export. For the dtype
      see `resolve_dtype`.
    workdir: of the run, if there is one. One that has begun needs its weights'
      path no more.
    prefix: see `config_check.check_config`.

  Returns:
    A config that names both.

  Raises:
    InputError: there is nothing at the weights' path, or a Keras file, which
      does not tell its scale.
  """
  weights, begun = config.model.weights, _begun(workdir)
  if not begun:
    check_weights(weights, prefix)
  config = resolve_dtype(config, workdir)
  if config.model.preprocess != 'auto':
    return config
  config = ml_collections.ConfigDict(config.to_dict())
  if 'preprocess' in begun:
    config.model.preprocess = begun['preprocess']
    return config
  if weights == RANDOM:
    preprocess = 'unit'
  elif weights == IMAGENET:
    preprocess = 'backbone'
  elif folder := _run_folder(weights):
    preprocess = saved.read_config(folder).model.preprocess
  elif folder := _exported_folder(config):
    preprocess = description.read(folder).architecture.preprocess
  else:
    raise InputError(
      f'{prefix}.weights={weights}: say what its images were scaled to, '
      f"--{prefix}.preprocess=backbone for [-1, 1] (ImageNet's) or =unit "
      'for [0, 1]'
    )
  config.model.preprocess = preprocess
  return config


def match_source_run(config: ConfigDict) -> ConfigDict:
  """The config with the shape of the classifier that its weights are from.

  Args:
    config: the config; weights of no run and no export change nothing.

  Returns:
    A config that makes a model which holds the weights.

  Raises:
    InputError: they are of another model or image size.
  """
  shape: dict[str, Any] = {}
  if folder := _run_folder(config.model.weights):
    source = saved.read_config(folder)
    shape = {k: source.model[k] for k in ('width', 'blocks', 'momentum')}
    name, image_size = source.model.name, source.data.image_size
    scale = source.data.scale
  elif folder := _exported_folder(config):
    exported = description.read(folder)
    architecture = exported.architecture
    shape = {
      'width': architecture.width,
      'blocks': tuple(architecture.blocks),
      'momentum': architecture.momentum,
    }
    name, image_size = architecture.name, exported.image_size
    scale = exported.scale
  else:
    return config
  expected = {
    'model.name': name,
    'data.image_size': image_size,
    'data.scale': scale,
  }
  for key, value in expected.items():
    section, field = key.split('.')
    if config[section][field] != value:
      raise InputError(
        f'{folder} was trained with config.{key}={value}, not '
        f'{config[section][field]}'
      )
  config = ml_collections.ConfigDict(config.to_dict())
  config.model.update(shape)
  return config


def _from_keras(config: ConfigDict) -> dict[str, Any]:
  """The variables of ImageNet or of a Keras file."""
  model, path = config.model, files.expand(config.model.weights)
  if config.model.weights == IMAGENET:
    cache = files.expand(config.data.cache_dir)
    path = download.fetch(download.IMAGENET[model.name], cache / 'weights')
  fields = build.backbone_fields(model)
  shape = {k: fields[k] for k in ('width', 'blocks', 'depth') if k in fields}
  return keras_weights.load_weights(path, model.name, **shape)


def initialize(
  state: TrainState, config: ConfigDict, class_names: tuple[str, ...]
) -> TrainState:
  """Puts the weights that a config names into a new state.

  Args:
    state: before the first step, its weights random.
    config: the config.
    class_names: of the run; the head of another run is taken over if its
      classes are the same.

  Returns:
    The state.

  Raises:
    InputError: the weights can't be had, or are another model's.
  """
  weights = config.model.weights
  if weights == RANDOM:
    return state
  check_weights(weights)
  source_classes: list[str] = []
  if folder := _run_folder(weights):
    source = saved.load_trained(folder)
    variables, source_classes = source.variables, source.result.data.classes
  elif folder := _exported_folder(config):
    exported = description.read(folder)
    variables = description.read_weights(folder, exported)
    source_classes = exported.classes
  else:
    variables = _from_keras(config)
  same_classes = tuple(source_classes) == class_names
  params = variables['params']
  if 'backbone' in params:
    # A head has a meaning only for its own classes.
    own = params if same_classes else {'backbone': params['backbone']}
    params = state.params | own
  new, old = (
    jax.tree.map(lambda leaf: leaf.shape, tree)
    for tree in (
      (params, variables['batch_stats']),
      (state.params, state.batch_stats),
    )
  )
  if new != old:
    raise InputError(
      f'config.model.weights={weights} holds a model of another shape; give '
      'the config.model.name, width, blocks, depth and batch_norm that it was '
      'trained with'
    )
  params, statistics = jax.device_put((params, variables['batch_stats']))
  return state.replace(params=params, batch_stats=statistics)


def learnt_by(weights: str) -> Learnt:
  """The images that weights have learnt from, and those they started from.

  Args:
    weights: `config.model.weights`.

  Returns:
    The images; none of a Keras file's, whose images are not of this kind.

  Raises:
    InputError: the split of their run can't be read.
  """
  if weights in (RANDOM, IMAGENET):
    return Learnt(frozenset(), is_known=True)
  if folder := _run_folder(weights):
    return saved.read_split(folder).learnt
  # Of an export, or of what is gone, nobody knows them.
  return Learnt(frozenset(), is_known=files.expand(weights).is_file())


def seen_images(
  weights: str, learnt: Learnt, split: Split, catalogue: Catalogue
) -> dict[str, int] | None:
  """How many held-out images the starting weights have learnt from.

  Args:
    weights: `config.model.weights`.
    learnt: what they have learnt from.
    split: of the run.
    catalogue: of its set.

  Returns:
    The number by part; None for weights that are not a run's.
  """
  if not learnt.is_known:
    print(
      f'warning: nobody knows which images the weights of {weights}, or those '
      'that they started from, have learnt from: if some are held out here, '
      'scores are too good'
    )
  if not learnt.pixel_hashes:
    return None
  hashes = catalogue.pixel_hashes
  counts = {
    part: sum(hashes[i] in learnt.pixel_hashes for i in np.unique(pairs[:, 0]))
    for part, pairs in split._asdict().items()
    if part != 'train'
  }
  for part, count in counts.items():
    if count:
      print(
        f'warning: the weights of {weights} have learnt from {count} images of '
        f'the {part} part: its scores are too good'
      )
  if counts['test']:
    print(
      'Use the same config.seed and split there and here, or train the weights '
      'with --config.data.protocol=disjoint_from_study_tests'
    )
  return counts


def fingerprint(config: ConfigDict) -> str:
  """What a config's starting weights are a function of.

  Args:
    config: the config.

  Returns:
    A text that changes when they do; none of them is loaded for it.

  Raises:
    InputError: there is nothing at the weights' path.
  """
  weights = config.model.weights
  if weights == RANDOM:
    key = build.make_keys(config.seed).init
    return f'random, of key {jax.random.key_data(key).tolist()}'
  if weights == IMAGENET:
    return download.IMAGENET[config.model.name].digest
  if folder := _run_folder(weights):
    return result.read(folder).parameters_sha256
  if folder := _exported_folder(config):
    return description.read(folder).files[description.WEIGHTS].sha256
  try:
    with files.expand(weights).open('rb') as stream:
      return hashlib.file_digest(stream, 'sha256').hexdigest()
  except OSError as error:
    raise InputError(
      f'config.model.weights={weights} cannot be read: {error.strerror}'
    ) from None


def backbone(
  config: ConfigDict, class_names: tuple[str, ...]
) -> dict[str, Any]:
  """A classifier's starting weights without its head.

  Args:
    config: the config.
    class_names: of the set.

  Returns:
    What `models.create` with no classes applies.

  Raises:
    InputError: see `initialize`.
  """
  size = config.data.image_size
  state = init_state(
    build.make_keys(config.seed).init,
    build.create_model(config, len(class_names)),
    # No moments of what is not trained.
    make_optimizer(freeze_backbone=True),
    shape=(size, size, 3),
    learning_rate=config.train.learning_rate,
  )
  variables = initialize(state, config, class_names).variables()
  return {
    collection: {'backbone': tree['backbone']}
    for collection, tree in variables.items()
  }
