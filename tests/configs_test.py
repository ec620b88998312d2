"""Every config builds, passes its checks and takes one step at small width."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from leukemia_jax import experiment, models, settings, train, weights
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.errors import InputError

CONFIGS = sorted((ROOT / 'configs').glob('*.py'))


def read(path):
  spec = importlib.util.spec_from_file_location('config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


@pytest.mark.full
@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_one_step(path):
  config = read(path)
  settings.check(config)
  segments = config.model.name in models.UNETS
  config.model.width, config.data.image_size = 0.05, 75
  if not segments:
    config.model.blocks = (1, 1, 1)
  settings.check(config)
  config = weights.with_scale(config)
  model = experiment.make_model(config, 1 if segments else 4)
  tx = train.make_optimizer(config.train.freeze_backbone)
  state = train.init_state(
    jax.random.key(0), model, tx, shape=(75, 75, 3), learning_rate=1e-3
  )
  step = train.make_train_step(
    apply_fn=model.apply,
    tx=tx,
    augment=experiment.make_augment(config),
    preprocessing=config.model.preprocess,
    objective=experiment.objective(config),
  )
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (4, 75, 75, 3)), jnp.uint8)
  masks = jnp.asarray(rng.integers(0, 2, (4, 75, 75, 1)), jnp.uint8)
  data = Dataset(images, jnp.arange(4), masks if segments else None)
  rows, weight = jnp.arange(4)[None], jnp.ones((1, 4))
  after, reported = jax.jit(step)(state, jax.random.key(1), data, rows, weight)
  assert np.isfinite(float(reported.loss))
  assert 0 <= float(reported.accuracy) <= 1
  assert int(after.step) == 1
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), after.params, state.params
  )
  assert all(jax.tree.leaves(moved['logits']))


def test_every_key_of_every_config_is_in_the_default():
  default = set(read(ROOT / 'configs/default.py').to_dict())
  for path in CONFIGS:
    assert set(read(path).to_dict()) == default


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('model.name', 'resnet50', "one of 'inception_resnet_v2'"),
    ('data.order', 'balance', "one of 'split_then_balance'"),
    ('data.option', 3, 'one of 1, 2'),
    ('model.dropout_rate', 1.0, 'from 0 to below 1'),
    ('train.learning_rate', 0.0, 'above 0'),
    ('train.epochs', 0, 'from 1 to'),
    ('augment.jpeg_quality', (0, 50), r'1\.\.100'),
    ('augment.fill', 'wrap', "'edge', 'constant'"),
    ('model.blocks', (1, 2), 'three numbers'),
    ('model.weights', 'imagenet', r'needs config\.model\.width=1\.0'),
    ('model.depth', 2, 'must be 0'),
    ('model.blocks', (), 'three numbers'),
    ('data.image_size', 32, '75 or more'),
    ('seed', -1, 'from 0 to'),
  ],
)
def test_wrong_values_are_named(key, value, words):
  config = read(ROOT / 'configs/default.py')
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=rf'config\.{key}=.*{words}'):
    settings.check(config)
