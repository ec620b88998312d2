"""Adam, plateau and stopping rules against Keras' own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from leukemia_jax import optimizer


@pytest.mark.parametrize('rate', [0.1, 1e-4])
def test_adam_is_keras(rate):
  import keras

  rng = np.random.default_rng(0)
  # From zero: far from it, float32 parameters round the steps away.
  start = np.zeros((5, 4), np.float32)
  grads = rng.normal(size=(20, 5, 4)).astype(np.float32)
  # Gradients near epsilon, where its place matters.
  grads[:, 0] *= 1e-7
  theirs = keras.Variable(start)
  keras_adam = keras.optimizers.Adam(rate)
  ours, adam = jnp.asarray(start), optimizer.scale_by_keras_adam()
  state = adam.init(ours)
  for grad in grads:
    keras_adam.apply([grad], [theirs])
    updates, state = adam.update(jnp.asarray(grad), state)
    ours = ours - rate * updates
  moved = np.abs(np.asarray(theirs) - start).max()
  assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= 1e-5 * moved


def test_adam_is_not_optax_near_epsilon():
  grad = jnp.full((1,), 1e-7)
  adam = optimizer.scale_by_keras_adam()
  ours, _ = adam.update(grad, adam.init(grad))
  plain = optax.scale_by_adam(eps=1e-7)
  theirs, _ = plain.update(grad, plain.init(grad))
  assert abs(float(ours[0] - theirs[0])) > 0.4


class Stub:
  """The little of a Keras model that its callbacks touch."""

  def __init__(self, keras, rate):
    self.optimizer = keras.optimizers.SGD(rate)
    self.stop_training = False
    self.weights = 0

  def get_weights(self):
    return self.weights

  def set_weights(self, weights):
    self.weights = weights


@pytest.mark.parametrize('seed', range(12))
def test_rules_are_keras(seed):
  import keras

  rng = np.random.default_rng(seed)
  losses = 1 + rng.normal(0, 0.3, 60) * np.exp(-np.arange(60) / 15)
  losses -= 0.00003 * np.arange(60)  # improvements below min_delta
  if seed == 3:
    losses[4] = np.nan
  model = Stub(keras, 0.1)
  plateau = keras.callbacks.ReduceLROnPlateau(factor=0.2, patience=3)
  stopping = keras.callbacks.EarlyStopping(
    patience=8, restore_best_weights=True
  )
  for callback in (plateau, stopping):
    callback.set_model(model)
    callback.on_train_begin()
  progress, rate = optimizer.Progress(), 0.1
  for epoch, loss in enumerate(losses):
    model.weights = epoch
    for callback in (plateau, stopping):
      callback.on_epoch_end(epoch, {'val_loss': loss})
    progress, decision = optimizer.after_epoch(
      progress, epoch, float(loss), plateau_patience=3, stop_patience=8
    )
    rate *= 0.2 if decision.lower_rate else 1
    theirs = float(model.optimizer.learning_rate)
    assert rate == pytest.approx(theirs, rel=1e-5)
    assert decision.stop == model.stop_training
    if decision.stop:
      break
  stopping.on_train_end()
  assert progress.best_epoch == model.weights


def test_jit_is_eager():
  grad = {'a': jnp.array([1.0, -2.0]), 'b': jnp.array([[3e-7]])}
  adam = optimizer.scale_by_keras_adam()
  eager, _ = adam.update(grad, adam.init(grad))
  compiled, _ = jax.jit(adam.update)(grad, adam.init(grad))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), eager, compiled
  )
