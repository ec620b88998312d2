"""A study of small backbones on a few smears, for tests of studies."""

import pathlib

import jax.numpy as jnp
from leukemia_jax.configs import default
from ml_collections import ConfigDict

from leukemia_jax.data.dataset import Dataset
from leukemia_jax.study import features, heads, runner
from leukemia_jax.study.grid import model_config
from leukemia_jax.training import setup

MODEL = 'inception_resnet_v2'


def small_config(cache: pathlib.Path) -> ConfigDict:
  """A study with impatient rules."""
  config = default.get_config()
  config.data.cache_dir = str(cache)
  config.data.protocol = 'balance_then_split'
  config.data.image_size = 75
  config.synthetic.scale = 0.03
  config.train.epochs = 12
  config.train.batch_size = 8
  config.train.plateau_patience, config.train.stop_patience = 1, 3
  for name in config.study.models:
    config.study[name].width = 0.05
    config.study[name].blocks = (1, 1, 1)
  return config


def loaded_with_features(config: ConfigDict):
  """What a study works on, for one backbone."""
  config = model_config(config, MODEL)
  study_set = runner.load(config)
  backbone = runner.make_backbone(config, study_set)
  extracted = features.extract(
    backbone,
    study_set.dataset.images,
    cache=pathlib.Path(config.data.cache_dir, 'features'),
    batch_size=config.train.batch_size,
  )
  data = Dataset(jnp.asarray(extracted.features), study_set.dataset.labels)
  return config, study_set, data


def make_heads(config, study_set, rate=0.0, **options) -> heads.Heads:
  """Heads as a study trains them."""
  num_classes = len(study_set.catalogue.class_names)
  network = runner._head_network(config, num_classes, rate)
  return heads.Heads(network, setup.schedule(config), **options)
