"""Where weights come from, by what the config says."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from leukemia_jax.configs import nasnet_mobile

from leukemia_jax import build
from leukemia_jax.errors import InputError
from leukemia_jax.pretrained import download, keras_weights
from leukemia_jax.training import initial_weights
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import new_state


@pytest.fixture
def config():
  """NASNet-Mobile's, small."""
  config = nasnet_mobile.get_config()
  config.model.width, config.model.blocks = 0.05, (1, 1, 1)
  return config


def state_of_ones(config):
  """A new state of the config's model for four classes, not compiled."""
  shapes = jax.eval_shape(
    lambda: new_state(
      jax.random.key(0),
      build.create_model(config, 4),
      make_optimizer(False),
      shape=(32, 32, 3),
      learning_rate=0.1,
    )
  )
  return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)


@pytest.fixture
def file(config, tmp_path):
  """A Keras file of other weights than a new state's, and those weights."""
  model = build.create_model(config, 0)
  images = jnp.zeros((1, 32, 32, 3))
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  path = tmp_path / 'w.weights.h5'
  keras_weights.export_weights(
    variables, path, 'nasnet_mobile', width=0.05, blocks=(1, 1, 1)
  )
  return path, variables


def test_a_keras_file_fills_the_backbone_and_leaves_the_head(config, file):
  path, variables = file
  state = state_of_ones(config)
  config.model.weights = str(path)
  started = initial_weights.initialize(state, config, ('a', 'b', 'c', 'd'))
  jax.tree.map(
    np.testing.assert_array_equal,
    started.params['backbone'],
    variables['params']['backbone'],
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    started.batch_stats,
    variables['batch_stats'],
  )
  for part in ('hidden', 'logits'):
    jax.tree.map(
      np.testing.assert_array_equal, started.params[part], state.params[part]
    )


@pytest.mark.parametrize('sound', [True, False])
def test_imagenet_is_taken_from_the_cache_if_it_is_the_file(
  config, file, tmp_path, monkeypatch, sound
):
  path, variables = file
  config.model.weights = 'imagenet'
  config.data.cache_dir = str(tmp_path / 'cache')
  placed = tmp_path / 'cache/weights/w.h5'
  placed.parent.mkdir(parents=True)
  placed.write_bytes(path.read_bytes() if sound else b'something else')
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  # Nobody listens there.
  small = download.WeightsFile(
    'http://127.0.0.1:9/w.h5', f'sha256:{digest}', 10**6
  )
  monkeypatch.setitem(download.IMAGENET, 'nasnet_mobile', small)
  if not sound:
    with pytest.raises(InputError, match='could not be fetched'):
      initial_weights.initialize(
        state_of_ones(config), config, ('a', 'b', 'c', 'd')
      )
    return
  started = initial_weights.initialize(
    state_of_ones(config), config, ('a', 'b', 'c', 'd')
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    started.params['backbone'],
    variables['params']['backbone'],
  )


def test_a_file_of_another_width_is_refused(config, file):
  path, _ = file
  config.model.weights, config.model.width = str(path), 0.5
  with pytest.raises(keras_weights.WeightsError, match='misshapen'):
    initial_weights.initialize(
      state_of_ones(config), config, ('a', 'b', 'c', 'd')
    )


@pytest.mark.parametrize(
  ('given', 'asked', 'expected'),
  [
    ('none', 'auto', 'unit'),
    ('imagenet', 'auto', 'backbone'),
    ('imagenet', 'unit', 'unit'),
    (__file__, 'unit', 'unit'),
    ('none', 'backbone', 'backbone'),
  ],
)
def test_the_scale_follows_the_weights(config, given, asked, expected):
  config.model.weights, config.model.preprocess = given, asked
  assert initial_weights.resolve_preprocess(config).model.preprocess == expected


def test_a_file_does_not_tell_its_scale(config, tmp_path):
  config.model.weights = str(tmp_path / 'file.h5')
  with pytest.raises(InputError, match='no such file or folder'):
    initial_weights.resolve_preprocess(config)
  (tmp_path / 'file.h5').write_bytes(b'')
  with pytest.raises(InputError, match='preprocess=backbone'):
    initial_weights.resolve_preprocess(config)
  config.model.preprocess = 'backbone'
  with pytest.raises(InputError, match='no HDF5 file'):
    initial_weights.initialize(state_of_ones(config), config, ('a', 'b'))
