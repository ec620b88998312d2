"""The plateau and stopping rules against Keras' callbacks."""

import numpy as np
import pytest

from leukemia_jax.training.plateau_and_stopping import (
  Progress,
  Rules,
  after_epoch,
)

RULES = Rules(plateau_factor=0.2, plateau_patience=3, stop_patience=8)


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
  early = keras.callbacks.EarlyStopping(patience=8, restore_best_weights=True)
  for callback in (plateau, early):
    callback.set_model(model)
    callback.on_train_begin()
  progress, rate = Progress(), 0.1
  for epoch, loss in enumerate(losses):
    model.weights = epoch
    for callback in (plateau, early):
      callback.on_epoch_end(epoch, {'val_loss': loss})
    progress, decision = after_epoch(progress, epoch, float(loss), RULES)
    rate *= decision.rate_factor
    theirs = float(model.optimizer.learning_rate)
    assert rate == pytest.approx(theirs, rel=1e-5)
    assert decision.stop == model.stop_training
    if decision.stop:
      break
  early.on_train_end()
  assert progress.best_epoch == model.weights


def test_a_cosine_is_optax_s_whatever_the_losses():
  import optax

  epochs, rate = 7, 0.1
  schedule = optax.cosine_decay_schedule(rate, epochs)
  rules = RULES._replace(cosine_epochs=epochs)
  progress = Progress()
  for epoch in range(epochs):
    assert rate == pytest.approx(float(schedule(epoch)), rel=1e-5)
    progress, decision = after_epoch(progress, epoch, 1.0, rules)
    rate *= decision.rate_factor
  assert rate == pytest.approx(0, abs=1e-12)
  assert after_epoch(progress, epochs, 1.0, rules)[1].rate_factor == 0
