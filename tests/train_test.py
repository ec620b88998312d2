"""The training loop: bits after a stop, order of data, divergence, overfit."""

import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from leukemia_jax import checkpoint, evaluate, journal, metrics, models, train
from leukemia_jax.data.dataset import Dataset

COUNT, CLASSES, SIZE = 50, 3, 8
KEY = jax.random.key(3)


class Tiny(nn.Module):
  """A network with all kinds of state: batch norm, dropout."""

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Conv(6, (3, 3), strides=2, name='backbone')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    features = x.mean((1, 2))
    x = nn.Dropout(0.3, deterministic=not train)(features)
    return nn.Dense(CLASSES)(x), {'features': x}


def settings(**changes) -> ConfigDict:
  values = {
    'batch_size': 16,
    'epochs': 5,
    'learning_rate': 1e-2,
    'plateau_factor': 0.2,
    'plateau_patience': 2,
    'stop_patience': 4,
    'checkpoint_steps': 3,
    'steps_per_call': 1,
  }
  return ConfigDict(values | changes)


def data() -> Dataset:
  """Images whose brightest channel is their class, more or less."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, CLASSES, COUNT).astype(np.int32)
  images = rng.integers(0, 120, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
  images[np.arange(COUNT), :, :, labels] += 60
  return Dataset(jnp.asarray(images), jnp.asarray(labels))


def flip(key, image):
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def parts(freeze=False, rate=1e-2):
  model, tx = Tiny(), train.make_optimizer(freeze)
  state = train.init_state(
    jax.random.key(1), model, tx, shape=(SIZE, SIZE, 3), learning_rate=rate
  )
  step = train.make_train_step(
    apply_fn=model.apply,
    tx=tx,
    augment=flip,
    preprocessing='unit',
    objective=metrics.class_objective,
  )
  eval_step = evaluate.make_eval_step(
    apply_fn=model.apply,
    preprocessing='unit',
    objective=metrics.class_objective,
  )
  return state, step, eval_step


def fit(workdir, freeze=False, altered=lambda step: step, **changes):
  """Trains the tiny network, perhaps by an altered step."""
  given = settings(**changes)
  state, step, eval_step = parts(freeze, given.learning_rate)
  return train.fit(
    state,
    altered(step),
    eval_step,
    data(),
    train_rows=np.arange(40),
    validation_rows=np.arange(40, COUNT),
    num_classes=CLASSES,
    key=KEY,
    settings=given,
    workdir=workdir,
  )


def without_times(history):
  return [{k: v for k, v in line.items() if k != 'seconds'} for line in history]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  return fit(tmp_path_factory.mktemp('whole'))


class Killed(Exception):
  """Stands for a kill at a given moment."""


@pytest.mark.parametrize('calls', [4, 6, 13])
def test_a_stopped_run_goes_on_to_the_same_bits(
  whole, tmp_path, monkeypatch, calls
):
  left = [calls]
  original = train._Steps.__call__

  def cut_off(self, *args):
    left[0] -= 1
    if left[0] < 0:
      raise Killed
    return original(self, *args)

  with monkeypatch.context() as patch:
    patch.setattr(train._Steps, '__call__', cut_off)
    with pytest.raises(Killed):
      fit(tmp_path / 'cut')
  resumed = fit(tmp_path / 'cut')
  assert checkpoint.fingerprint(whole.variables) == checkpoint.fingerprint(
    resumed.variables
  )
  assert without_times(whole.history) == without_times(resumed.history)
  lines = (tmp_path / 'cut/metrics.jsonl').read_text().splitlines()
  assert without_times(map(json.loads, lines)) == without_times(whole.history)


@pytest.mark.parametrize(
  'count', [1, 2, pytest.param(5, marks=pytest.mark.full)]
)
@pytest.mark.parametrize(
  'place', ['checkpoint.save', 'files.write', 'after checkpoint.save']
)
def test_a_stop_between_two_files_changes_nothing(
  whole, tmp_path, monkeypatch, place, count
):
  """Stops before or after one of the writes at the end of an epoch."""
  left = [count]
  module, name = place.removeprefix('after ').split('.')
  target = getattr(journal, module)
  original = getattr(target, name)

  def cut_off(*args):
    left[0] -= 1
    if left[0] == 0 and not place.startswith('after'):
      raise Killed
    original(*args)
    if left[0] == 0:
      raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(target, name, cut_off)
    with pytest.raises(Killed):
      fit(tmp_path)
  resumed = fit(tmp_path)
  assert without_times(whole.history) == without_times(resumed.history)
  assert checkpoint.fingerprint(whole.variables) == checkpoint.fingerprint(
    resumed.variables
  )


def test_a_frozen_run_goes_on_too(tmp_path):
  one = fit(tmp_path / 'one', freeze=True, epochs=4)
  fit(tmp_path / 'two', freeze=True, epochs=2)
  two = fit(tmp_path / 'two', freeze=True, epochs=4)
  assert two.cost.resumed
  assert checkpoint.fingerprint(one.variables) == checkpoint.fingerprint(
    two.variables
  )


def test_a_finished_run_is_not_trained_again(tmp_path):
  one, two = fit(tmp_path), fit(tmp_path)
  assert two.cost.images == 0
  assert checkpoint.fingerprint(one.variables) == checkpoint.fingerprint(
    two.variables
  )


def test_steps_in_one_call_are_steps_in_a_row():
  state, step, _ = parts()
  order = train.epoch_order(KEY, 0, jnp.arange(40), batch_size=16)
  args = (KEY, data(), *order)
  looped, reported = jax.jit(train.repeat_step(step, 3))(state, *args)
  assert reported.loss.shape == reported.accuracy.shape == (3,)
  one = jax.jit(train.repeat_step(step, 1))
  for i in range(3):
    state, single = one(state, *args)
    assert float(reported.loss[i]) == pytest.approx(
      float(single.loss[0]), rel=1e-4
    )
  assert int(looped.step) == int(state.step) == 3
  np.testing.assert_allclose(looped.sums, state.sums, rtol=1e-4)


def test_best_weights_come_back(tmp_path):
  outcome = fit(tmp_path, epochs=12)
  losses = [line['validation_loss'] for line in outcome.history]
  assert outcome.best_epoch == int(np.argmin(losses))
  _, _, eval_step = parts()
  loss, _ = evaluate.run(
    eval_step,
    outcome.variables,
    data(),
    np.arange(40, COUNT),
    batch_size=16,
    num_classes=CLASSES,
  )
  assert loss / 10 == pytest.approx(min(losses), rel=1e-6)


def test_it_learns(tmp_path):
  outcome = fit(tmp_path, epochs=40, stop_patience=40, plateau_patience=40)
  assert outcome.history[-1]['validation_accuracy'] > 0.9


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  with pytest.raises(
    journal.DivergedError, match=r'step \d+ with learning rate'
  ):
    fit(tmp_path, learning_rate=1e30)


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
  def altered(step):
    def broken(state, *args):
      state, reported = step(state, *args)
      factor = jnp.where(state.step == 3, jnp.nan, 1.0)
      params = jax.tree.map(lambda leaf: leaf * factor, state.params)
      return state.replace(params=params), reported

    return broken

  with pytest.raises(journal.DivergedError, match='not finite at step 3'):
    fit(tmp_path, altered=altered, batch_size=8, checkpoint_steps=3)
  manager = checkpoint.open_manager(tmp_path / 'checkpoints/latest')
  assert manager.latest_step() is None
  manager.close()


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
  fit(tmp_path, epochs=2)

  def altered(step):
    def broken(state, *args):
      state, reported = step(state, *args)
      loss = jnp.where(state.step > 7, jnp.nan, reported.loss)
      return state, reported._replace(loss=loss)

    return broken

  with pytest.raises(journal.DivergedError, match='step 8'):
    fit(tmp_path, altered=altered, epochs=4)
  manager = checkpoint.open_manager(tmp_path / 'checkpoints/latest')
  assert manager.latest_step() == 6
  manager.close()


def test_epoch_order_is_a_permutation_of_key_and_epoch():
  rows = jnp.arange(100, 145, dtype=jnp.int32)
  order = functools.partial(train.epoch_order, KEY, rows=rows, batch_size=16)
  one, weights = order(0)
  assert one.shape == weights.shape == (3, 16)
  counted = np.asarray(one)[np.asarray(weights) > 0]
  np.testing.assert_array_equal(np.sort(counted), rows)
  np.testing.assert_array_equal(one, order(0)[0])
  assert (np.asarray(one) != np.asarray(order(1)[0])).any()
  # The last batch is filled up with real images, at no weight.
  assert set(np.asarray(one).ravel()) <= set(np.asarray(rows).tolist())


def test_jit_is_eager():
  state, step, _ = parts()
  rows = jnp.arange(16).reshape(1, 16)
  weights = jnp.ones((1, 16))
  eager, one = step(state, KEY, data(), rows, weights)
  compiled, same = jax.jit(step)(state, KEY, data(), rows, weights)
  assert float(one.loss) == pytest.approx(float(same.loss), rel=1e-5)
  # Adam's first steps are of one size, whichever sign rounding gives a
  # gradient near zero: compare moments, not parameters.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    eager.opt_state,
    compiled.opt_state,
  )


def test_images_at_no_weight_do_not_train():
  """Frozen statistics aside, a filled-up batch equals the smaller batch."""
  model, tx = nn.Dense(CLASSES), train.make_optimizer(False)

  def apply_fn(variables, images, train, mutable=(), rngs=None):
    flat = images.reshape(len(images), -1)
    out = model.apply({'params': variables['params']}, flat), {}
    return (out, {'batch_stats': {}}) if mutable else out

  step = train.make_train_step(
    apply_fn=apply_fn,
    tx=tx,
    augment=None,
    preprocessing='unit',
    objective=metrics.class_objective,
  )
  params = model.init(KEY, jnp.zeros((1, SIZE * SIZE * 3)))['params']
  state = train.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={},
    opt_state=tx.init(params),
    learning_rate=jnp.float32(0.1),
    sums=jnp.zeros(3),
  )
  rows = jnp.arange(8)[None]
  weights = (jnp.arange(8) < 5).astype(jnp.float32)[None]
  filled, one = step(state, KEY, data(), rows, weights)
  small, same = step(state, KEY, data(), rows[:, :5], weights[:, :5])
  assert float(one.loss) == pytest.approx(float(same.loss), rel=1e-6)
  assert float(one.accuracy) == pytest.approx(float(same.accuracy))
  assert np.asarray(filled.sums).tolist() == pytest.approx(
    np.asarray(small.sums).tolist()
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    filled.params,
    small.params,
  )


def test_a_frozen_backbone_is_not_moved():
  state, step, _ = parts(freeze=True)
  rows, weights = jnp.arange(16).reshape(1, 16), jnp.ones((1, 16))
  moved, _ = jax.jit(step)(state, KEY, data(), rows, weights)
  for one, other in zip(
    jax.tree.leaves(moved.params['backbone']),
    jax.tree.leaves(state.params['backbone']),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)
  head = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()),
    moved.params['Dense_0'],
    state.params['Dense_0'],
  )
  assert min(jax.tree.leaves(head)) > 0


def mask_data() -> Dataset:
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
  masks = (images[..., :1] > 128).astype(np.uint8)
  return Dataset(
    jnp.asarray(images), jnp.zeros(16, jnp.int32), jnp.asarray(masks)
  )


@pytest.mark.parametrize('accumulate', [2, 8])
def test_pieces_of_a_batch_make_the_same_step(accumulate):
  model = models.create('unet', num_classes=1, width=0.0625, depth=1)
  tx, dataset = train.make_optimizer(False), mask_data()
  state = train.init_state(
    KEY, model, tx, shape=(SIZE, SIZE, 3), learning_rate=1e-2
  )
  rows = jnp.arange(16).reshape(2, 8)
  # A last batch that is filled up.
  weights = jnp.ones((2, 8)).at[0, 5:].set(0)

  def paired_flip(key, image, mask):
    turned = jax.random.bernoulli(key)
    return tuple(jnp.where(turned, a[:, ::-1], a) for a in (image, mask))

  def after(accumulate):
    step = train.make_train_step(
      apply_fn=model.apply,
      tx=tx,
      augment=paired_flip,
      preprocessing='unit',
      objective=metrics.mask_objective,
      accumulate=accumulate,
    )
    return jax.jit(step)(state, KEY, dataset, rows, weights)

  (whole, one), (cut, other) = after(1), after(accumulate)
  np.testing.assert_allclose(one, other, rtol=1e-5)
  np.testing.assert_allclose(whole.sums, cut.sums, rtol=1e-5)
  # Adam's first step hides a gradient's size: compare its moments.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7),
    whole.opt_state,
    cut.opt_state,
  )


def test_batch_norms_see_one_piece_after_the_other():
  model = models.create(
    'unet', num_classes=1, width=0.0625, depth=1, batch_norm=True
  )
  tx, dataset = train.make_optimizer(False), mask_data()
  state = train.init_state(
    KEY, model, tx, shape=(SIZE, SIZE, 3), learning_rate=1e-2
  )
  step = train.make_train_step(
    apply_fn=model.apply,
    tx=tx,
    augment=None,
    preprocessing='unit',
    objective=metrics.mask_objective,
    accumulate=2,
  )
  rows = jnp.arange(8).reshape(1, 8)
  got, _ = jax.jit(step)(state, KEY, dataset, rows, jnp.ones((1, 8)))

  def loss(params, batch_stats, piece):
    images = dataset.images[piece].astype(jnp.float32) / 255
    (logits, _), updated = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    losses, _ = metrics.mask_objective(logits, dataset.masks[piece])
    return losses.sum() / 8, updated['batch_stats']

  gradient = jax.grad(loss, has_aux=True)
  first, stats = gradient(state.params, state.batch_stats, rows[0, :4])
  second, stats = gradient(state.params, stats, rows[0, 4:])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    got.batch_stats,
    stats,
  )
  jax.tree.map(
    lambda mu, a, b: np.testing.assert_allclose(
      mu, 0.1 * (a + b), rtol=1e-3, atol=1e-7
    ),
    got.opt_state.mu,
    first,
    second,
  )
