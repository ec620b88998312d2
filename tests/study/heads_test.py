"""Heads trained together: against training runs, each other and Keras."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from small_study import MODEL, loaded_with_features, make_heads, small_config

from leukemia_jax import devices, files, models
from leukemia_jax.build import Network
from leukemia_jax.commands import train
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.metrics import classification, losses
from leukemia_jax.pretrained import keras_weights
from leukemia_jax.study import heads, runner
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import TrainState
from leukemia_jax.training.step import make_train_step
from leukemia_jax.workdir import result, saved


@pytest.fixture(scope='session')
def config(once) -> ml_collections.ConfigDict:
  return small_config(once('study cache', pathlib.Path.mkdir))


@pytest.mark.parametrize(
  ('loss', 'rate'),
  [
    ('cross_entropy', 0.01),
    ('keras_clipped', 0.0001),
  ],
)
@pytest.mark.full
def test_a_row_is_a_training_run_with_a_frozen_backbone(
  config, tmp_path, monkeypatch, loss, rate
):
  if rate == 0.01:
    # In batches of another size features round otherwise. A weight whose
    # gradient is near Adam's epsilon then differs by 1 % of the rate, which is
    # 1e-6 at the lower rate. In training's own batches there is no such thing.
    monkeypatch.setattr(
      devices, 'step_batching', lambda batch_size, _: (batch_size, 1)
    )
  # Weights that tell images apart, in a file that both can start from.
  of_model, study_set, _ = loaded_with_features(config)
  file = tmp_path / 'calibrated.weights.h5'
  keras_weights.export_weights(
    runner.make_backbone(of_model, study_set).load(),
    file,
    MODEL,
    width=0.05,
    blocks=(1, 1, 1),
  )
  config = ml_collections.ConfigDict(config.to_dict())
  config.train.loss = loss
  config.study[MODEL].weights = str(file)
  config.study[MODEL].preprocess = 'unit'
  config, study_set, data = loaded_with_features(config)
  parts = heads.parts_of(study_set.indices[1], config.train.batch_size)
  run = heads.Run(rate, config.seed)
  (outcome,) = make_heads(config, study_set, 0.2).fit(
    [run], data, parts, lambda done: None
  )
  # The same by the command that trains: backbone in every step.
  config.data.option, config.model.dropout_rate = 1, 0.2
  config.train.learning_rate = rate
  train.run(config, tmp_path / 'w')
  finished = result.read(tmp_path / 'w')
  assert (finished.epochs, finished.best_epoch) == outcome[1:3]
  # The rules had something to decide.
  log = files.read_json_lines(tmp_path / 'w/metrics.jsonl')
  assert len({line['learning_rate'] for line in log}) > 1
  assert finished.best_epoch < finished.epochs
  variables = saved.load_trained(tmp_path / 'w').variables
  for layer, leaves in outcome.params.items():
    for name, leaf in leaves.items():
      expected = variables['params'][layer][name]
      assert np.abs(np.asarray(leaf) - expected).max() < 1e-5, (layer, name)


@pytest.mark.full
def test_heads_together_are_heads_alone(config):
  config, study_set, data = loaded_with_features(config)
  rates = (0.1, 0.01, 0.0001)
  runs = [heads.Run(rate, seed) for rate in rates for seed in range(2)]
  parts = heads.parts_of(study_set.indices[1], config.train.batch_size)
  fitter = make_heads(config, study_set, 0.4)
  done: list[int] = []
  together = fitter.fit(runs, data, parts, done.append)
  # Each stopped by itself.
  assert len({outcome.epochs for outcome in together}) > 1
  assert sum(done) == len(runs) * config.train.epochs
  for run, outcome in zip(runs, together, strict=True):
    (alone,) = fitter.fit([run], data, parts, lambda done: None)
    assert alone[1:] == outcome[1:]
    jax.tree.map(np.testing.assert_array_equal, alone.params, outcome.params)


@pytest.mark.full
def test_heads_side_by_side_are_heads_one_after_the_other(config):
  config, study_set, data = loaded_with_features(config)
  parts = heads.parts_of(study_set.indices[1], config.train.batch_size)
  runs = [
    heads.Run(rate, config.seed, wanted)
    for rate, wanted in ((0.01, True), (0.001, False), (0.0001, True))
  ]
  for_gpu, for_cpu = (
    make_heads(config, study_set, 0.2, side_by_side=side_by_side).fit(
      runs, data, parts, lambda done: None
    )
    for side_by_side in (True, False)
  )
  for one, other in zip(for_gpu, for_cpu, strict=True):
    assert one[1:] == other[1:]
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
      one.params,
      other.params,
    )
  assert for_cpu[1].epochs == 0 and for_cpu[0].epochs > 1


@pytest.mark.full
def test_a_head_that_diverges_is_marked_and_keeps_its_best(config):
  config, study_set, data = loaded_with_features(config)
  parts = heads.parts_of(study_set.indices[1], config.train.batch_size)
  runs = [heads.Run(rate, config.seed) for rate in (1e30, 0.001)]
  wild, tame = make_heads(config, study_set).fit(
    runs, data, parts, lambda done: None
  )
  assert wild.diverged and not tame.diverged
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wild.params))
  assert tame.epochs > 1


def keras_head(width, classes, rate, dtype):
  import keras

  keras.config.set_floatx(dtype)
  # Layers made before have settled it, whatever floatx says.
  keras.config.set_dtype_policy(dtype)
  model = keras.Sequential(
    [
      keras.layers.Input((width,)),
      keras.layers.Dense(256, activation='relu', name='hidden'),
      keras.layers.Dense(classes, activation='softmax', name='logits'),
    ]
  )
  model.compile(
    optimizer=keras.optimizers.Adam(rate), loss='categorical_crossentropy'
  )
  return model


@pytest.mark.parametrize(
  ('dtype', 'rate', 'limit'),
  [
    *(('float64', rate, 1e-9) for rate in (0.1, 0.01, 0.001, 0.0001)),
    *(('float32', rate, 1e-5) for rate in (0.001, 0.0001)),
  ],
)
def test_a_head_is_keras_for_twenty_steps(dtype, rate, limit):
  import keras

  rng = np.random.default_rng(0)
  inputs = rng.gamma(1.0, 0.5, (160, 48)).astype(dtype)
  labels = rng.integers(0, 4, 160)
  try:
    with (
      jax.enable_x64(dtype == 'float64'),
      jax.numpy_rank_promotion('allow'),
    ):
      theirs = keras_head(48, 4, rate, dtype)
      start = {
        layer.name: {
          'kernel': np.asarray(layer.kernel),
          'bias': np.asarray(layer.bias),
        }
        for layer in theirs.layers
      }
      head = models.Head(4)
      tx = make_optimizer(False)
      params = jax.tree.map(jnp.asarray, start)
      state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats={},
        opt_state=tx.init(params),
        learning_rate=jnp.asarray(rate, dtype),
        sums=jnp.zeros(3, dtype),
      )
      network = Network(
        head,
        None,
        functools.partial(losses.class_objective, loss='keras_clipped'),
        classification.confusion_matrix,
        4,
      )
      step = jax.jit(make_train_step(network, tx=tx, augment=None))
      data = Dataset(jnp.asarray(inputs), jnp.asarray(labels))
      rows = np.resize(np.arange(160), (20, 32))
      one_hot = np.eye(4, dtype=dtype)[labels]
      for batch in rows:
        theirs.train_on_batch(inputs[batch], one_hot[batch])
        state, _ = step(
          state,
          jax.random.key(0),
          data,
          jnp.asarray(rows),
          jnp.ones((20, 32), dtype),
        )
      for layer in theirs.layers:
        for name in ('kernel', 'bias'):
          ours = np.asarray(state.params[layer.name][name])
          expected = np.asarray(getattr(layer, name))
          assert ours.dtype == expected.dtype == dtype
          assert np.abs(ours - expected).max() < limit
          assert np.abs(ours - start[layer.name][name]).max() > limit
  finally:
    keras.config.set_floatx('float32')
    keras.config.set_dtype_policy('float32')
