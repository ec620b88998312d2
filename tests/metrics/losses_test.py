"""Losses against their formulas and Keras' own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax.metrics import classification, losses


def some_logits(shape=(5, 6, 7, 1)):
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, shape).astype(np.float32)
  masks = rng.integers(0, 2, shape).astype(np.uint8)
  masks[0], masks[1] = 0, 1
  return logits, masks


def test_mask_losses_are_their_formulas():
  logits, masks = some_logits()
  p = 1 / (1 + np.exp(-logits.astype(np.float64)))
  axes = (1, 2, 3)
  of_truth = np.where(masks, p, 1 - p)
  bce = -np.log(of_truth).mean(axes)
  dice = 1 - (2 * (p * masks).sum(axes) + 1) / (
    p.sum(axes) + masks.sum(axes) + 1
  )
  weight = np.where(masks, 0.25, 0.75)
  focal = (-weight * (1 - of_truth) ** 2 * np.log(of_truth)).mean(axes)
  expected = {'bce': bce, 'dice': dice, 'bce+dice': bce + dice, 'focal': focal}
  assert losses.MASK_LOSSES.keys() == expected.keys()
  for name, value in expected.items():
    each, accuracies = losses.mask_objective(logits, masks, loss=name)
    np.testing.assert_allclose(each, value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
      accuracies, ((logits > 0) == masks).mean(axes), rtol=1e-6
    )


def test_a_collapsed_softmax_scores_what_the_study_printed():
  labels = jnp.repeat(jnp.arange(4), 25)
  logits = jnp.zeros((100, 4)).at[:, 2].set(1000.0)
  each, _ = losses.class_objective(logits, labels, loss='keras_clipped')
  assert float(each.mean()) == pytest.approx(12.0886, abs=5e-5)
  confusion = classification.confusion_matrix(logits, labels, jnp.ones(100))
  got = classification.scores(confusion, float(each.sum()), tuple('abcd'), 'a')
  assert (got.precision, got.balanced_accuracy, got.macro_f1) == (
    0.0625,
    0.25,
    0.1,
  )

  def total(logits, loss):
    return losses.class_objective(logits, labels, loss=loss)[0].sum()

  assert not jax.grad(total)(logits, 'keras_clipped').any()
  stable = jax.grad(total)(logits, 'cross_entropy')
  assert (jnp.abs(stable).sum(1) > 0)[labels != 2].all()


def test_clipped_loss_is_keras():
  import keras

  rng = np.random.default_rng(0)
  logits = (rng.normal(size=(64, 4)) * 12).astype(np.float32)
  labels = rng.integers(0, 4, 64)
  theirs = keras.losses.CategoricalCrossentropy(reduction=None)(
    np.eye(4, dtype=np.float32)[labels], jax.nn.softmax(logits)
  )
  ours = losses.clipped_cross_entropy(jnp.asarray(logits), labels)
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  assert (np.asarray(ours) > 16).any()
