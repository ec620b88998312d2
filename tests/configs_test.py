"""Every config builds, passes its checks and takes one step at small width."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from leukemia_jax import build, models, tasks
from leukemia_jax.config_check import check_config
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.training import initial_weights
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import init_state
from leukemia_jax.training.step import make_train_step

CONFIGS = sorted(p.stem for p in (ROOT / 'configs').glob('[!_]*.py'))


def read(name):
  return importlib.import_module(f'leukemia_jax.configs.{name}').get_config()


@pytest.mark.full
@pytest.mark.parametrize('name', CONFIGS)
def test_one_step(name):
  config = read(name)
  check_config(config)
  task = tasks.for_model(config.model.name)
  config.model.width, config.data.image_size = 0.05, 75
  if config.model.name in models.BACKBONES:
    config.model.blocks = (1, 1, 1)
  check_config(config)
  config = initial_weights.resolve_preprocess(config)
  inputs = build.inputs(config, task.targets)
  network = tasks.make_network(task, config, task.num_outputs(4))
  tx = make_optimizer(config.train.freeze_backbone)
  state = init_state(
    jax.random.key(0),
    network.model,
    tx,
    shape=(75, 75, 3),
    learning_rate=1e-3,
  )
  step = make_train_step(network, tx=tx, augment=inputs.augment)
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (4, 75, 75, 3)), jnp.uint8)
  masks = jnp.asarray(rng.integers(0, 2, (4, 75, 75, 1)), jnp.uint8)
  has_masks = task.targets == 'masks'
  data = Dataset(images, jnp.arange(4), masks if has_masks else None)
  indices, weight = jnp.arange(4)[None], jnp.ones((1, 4))
  after, reported = jax.jit(step)(
    state, jax.random.key(1), data, indices, weight
  )
  assert np.isfinite(float(reported.loss))
  assert 0 <= float(reported.accuracy) <= 1
  assert int(after.step) == 1
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), after.params, state.params
  )
  assert all(jax.tree.leaves(moved['logits']))


def test_every_key_of_every_config_is_in_the_default():
  default = set(read('default').to_dict())
  for name in CONFIGS:
    assert set(read(name).to_dict()) == default
