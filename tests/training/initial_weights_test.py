"""Where weights come from, by what the config says."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from leukemia_jax.configs import default, nasnet_mobile

from leukemia_jax import build, devices
from leukemia_jax.errors import InputError
from leukemia_jax.pretrained import (
  download,
  keras_weights,
  safetensors_files,
)
from leukemia_jax.training import initial_weights
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import new_state
from leukemia_jax.workdir import description


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


@pytest.mark.parametrize(
  'sound', [pytest.param(True, marks=pytest.mark.full), False]
)
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


@pytest.fixture
def export(config, tmp_path, monkeypatch):
  """A model as it lies in the hub's cache; gives its folder and variables."""
  # Nobody is asked.
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
  config.data.cache_dir = str(tmp_path)
  config.data.image_size = 32
  repository, commit = tmp_path / 'hub/models--a-lab--smears', 'c0ffee00' * 5
  folder = repository / 'snapshots' / commit
  folder.mkdir(parents=True)
  (repository / 'refs').mkdir()
  (repository / 'refs/main').write_text(commit)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
    state_of_ones(config).variables(),
  )
  content = safetensors_files.to_bytes(variables)
  (folder / description.WEIGHTS).write_bytes(content)
  own = description.Description(
    statement='',
    task='classification',
    run='first',
    parameters_sha256='0' * 64,
    architecture=description.Architecture(
      'nasnet_mobile', 0.05, [1, 1, 1], 0, False, 0.8, 'backbone'
    ),
    classes=['a', 'b', 'c', 'd'],
    image_size=32,
    scale=1.0,
    input='',
    outputs={},
    temperature=1.0,
    least_probability=0.9,
    threshold=None,
    files={
      description.WEIGHTS: description.ExportedFile(
        hashlib.sha256(content).hexdigest()
      )
    },
    images_per_second=1.0,
    platforms=[],
    written='2026-01-01',
    readable_until='2026-07-01',
    versions={},
  )
  description.write(folder, own)
  return folder, variables


@pytest.mark.parametrize(
  'revision',
  [
    'main',
    *(pytest.param(x, marks=pytest.mark.full) for x in ('c0ffee00' * 5, '')),
  ],
)
def test_an_export_starts_a_training(config, export, revision):
  folder, variables = export
  content = (folder / description.WEIGHTS).read_bytes()
  digest = hashlib.sha256(content).hexdigest()
  # A revision on the hub, or the folder itself.
  config.model.weights = (
    f'hf:a-lab/smears@{revision}' if revision else str(folder)
  )
  config.model.preprocess = 'auto'
  resolved = initial_weights.resolve_auto(config)
  assert resolved.model.preprocess == 'backbone'
  assert initial_weights.fingerprint(config) == digest
  shaped = config.copy_and_resolve_references()
  shaped.model.width, shaped.model.blocks = 1.0, (4, 4, 4)
  shaped = initial_weights.match_source_run(shaped)
  assert (shaped.model.width, shaped.model.blocks) == (0.05, (1, 1, 1))
  assert shaped.model.momentum == 0.8
  state = state_of_ones(config)
  for class_names, part in (
    (('a', 'b', 'c', 'd'), variables['params']['hidden']),
    # A head has a meaning only for its own classes.
    (('b', 'a', 'c', 'd'), state.params['hidden']),
  ):
    started = initial_weights.initialize(state, config, class_names)
    jax.tree.map(np.testing.assert_array_equal, started.params['hidden'], part)
    jax.tree.map(
      np.testing.assert_array_equal,
      started.params['backbone'],
      variables['params']['backbone'],
    )


def test_an_export_that_is_not_what_it_says_is_refused(config, export):
  folder, _ = export
  config.model.weights = 'hf:a-lab/smears@main'
  path = folder / description.WEIGHTS
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(InputError, match='not the file that model.json names'):
    initial_weights.initialize(state_of_ones(config), config, ())
  config.data.image_size = 64
  with pytest.raises(
    InputError, match='trained with config.data.image_size=32'
  ):
    initial_weights.match_source_run(config)
  config.model.weights = 'hf:a-lab/smears@v2'
  with pytest.raises(InputError, match='hf:a-lab/smears@v2 could not be fetch'):
    initial_weights.initialize(state_of_ones(config), config, ())


def test_a_network_that_cannot_be_is_refused(config, export):
  folder, _ = export
  path = folder / description.NAME
  content = json.loads(path.read_text())
  content['architecture']['preprocess'] = 'x'
  path.write_text(json.dumps(content))
  config.model.weights, config.model.preprocess = str(folder), 'auto'
  with pytest.raises(InputError, match="model.json is damaged: preprocess='x'"):
    initial_weights.resolve_auto(config)


def test_nobody_knows_what_an_export_has_learnt_from(export, capsys):
  folder, _ = export
  learnt = initial_weights.learnt_by(str(folder))
  seen = initial_weights.seen_images(str(folder), learnt, None, None)
  assert seen is None
  assert 'nobody knows which images' in capsys.readouterr().out


@pytest.mark.parametrize(
  'weights',
  [
    'hf:smears',
    'hf:a/b',
    'hf:a/b/c@main',
    'hf:../b@main',
    'hf:a/b@../main',
    'hf:',
  ],
)
def test_a_reference_that_is_none_is_refused(config, weights):
  config.model.weights = weights
  with pytest.raises(InputError, match='must be hf:OWNER/NAME@REVISION'):
    initial_weights.resolve_auto(config)


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
  assert initial_weights.resolve_auto(config).model.preprocess == expected


def test_a_file_does_not_tell_its_scale(config, tmp_path):
  config.model.weights = str(tmp_path / 'file.h5')
  with pytest.raises(InputError, match='no such file or folder'):
    initial_weights.resolve_auto(config)
  (tmp_path / 'file.h5').write_bytes(b'')
  with pytest.raises(InputError, match='preprocess=backbone'):
    initial_weights.resolve_auto(config)
  config.model.preprocess = 'backbone'
  with pytest.raises(InputError, match='no HDF5 file'):
    initial_weights.initialize(state_of_ones(config), config, ('a', 'b'))


def test_a_dtype_is_chosen_by_the_processor():
  config = default.get_config()
  config.model.dtype = 'auto'
  chosen = initial_weights.resolve_auto(config).model.dtype
  assert chosen == ('bfloat16' if devices.has_matrix_units() else 'float32')
  assert config.model.dtype == 'auto'
