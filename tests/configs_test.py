"""Every config builds, passes its checks and takes one step at small width."""

import importlib

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

from leukemia_jax import build, models, tasks
from leukemia_jax.config_check import check_config
from leukemia_jax.config_keys import flatten
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.training import initial_weights
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import new_state
from leukemia_jax.training.step import make_train_step

CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('[!_]*.py'))


def read(name):
  return importlib.import_module(f'leukemia_jax.configs.{name}').get_config()


@pytest.mark.full
@pytest.mark.parametrize('name', CONFIGS)
def test_a_step_is_traced(name):
  config = read(name)
  check_config(config)
  task = tasks.for_model(config.model.name)
  config.model.width, config.data.image_size = 0.05, 75
  if config.model.name in models.BACKBONES:
    config.model.blocks = (1, 1, 1)
  check_config(config)
  config = initial_weights.resolve_auto(config)
  inputs = build.inputs(config, task.targets)
  network = tasks.make_network(task, config, task.num_outputs(4))
  tx = make_optimizer(config.train.freeze_backbone)
  step = make_train_step(network, tx=tx, augment=inputs.augment)
  images = jnp.zeros((4, 75, 75, 3), jnp.uint8)
  masks = jnp.zeros((4, 75, 75, 1), jnp.uint8)
  has_masks = task.targets == 'masks'
  data = Dataset(images, jnp.arange(4), masks if has_masks else None)

  def first_step(key):
    state = new_state(
      key, network.model, tx, shape=(75, 75, 3), learning_rate=1e-3
    )
    after = step(state, key, data, jnp.arange(4)[None], jnp.ones((1, 4)))
    return state, *after

  before, after, reported = jax.eval_shape(first_step, jax.random.key(0))
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
  assert reported.loss.shape == reported.accuracy.shape == ()


def test_every_key_of_every_config_is_in_the_default():
  default = flatten(read('default'))
  for name in CONFIGS:
    assert flatten(read(name)) == default
