"""Scores against scikit-learn, and the evaluation loop against a plain sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from leukemia_jax import evaluate, metrics
from leukemia_jax.data.dataset import Dataset

NAMES = ('Benign', 'Early', 'Pre', 'Pro')


def table(truth, called, classes=4):
  return sklearn_metrics.confusion_matrix(truth, called, labels=range(classes))


@pytest.mark.parametrize('seed', range(6))
def test_scores_are_scikit_learns(seed):
  rng = np.random.default_rng(seed)
  truth = rng.integers(0, 4, 50)
  # Seed 0: one class is never called; seed 1: all are called one class.
  called = rng.integers(0, {0: 3, 1: 1}.get(seed, 4), 50)
  got = metrics.scores(table(truth, called), 12.5, NAMES, 'Benign')
  report = sklearn_metrics.classification_report(
    truth, called, labels=range(4), output_dict=True, zero_division=0
  )
  macro = report['macro avg']
  assert got['accuracy'] == pytest.approx((truth == called).mean())
  assert got['loss'] == pytest.approx(0.25)
  for ours, theirs in (
    ('precision', 'precision'),
    ('recall', 'recall'),
    ('f1', 'f1-score'),
  ):
    assert got[ours] == pytest.approx(macro[theirs])
    for i, name in enumerate(NAMES):
      assert got['by_class'][name][ours] == pytest.approx(
        report[str(i)][theirs]
      )
  recalls = [report[str(i)]['recall'] for i in range(4)]
  assert got['worst_class_recall'] == pytest.approx(min(recalls))
  malignant, named = truth > 0, called > 0
  assert got['sensitivity'] == pytest.approx(
    sklearn_metrics.recall_score(malignant, named)
  )
  assert got['specificity'] == pytest.approx(
    sklearn_metrics.recall_score(~malignant, ~named)
  )


def test_a_class_without_images_is_left_out_of_the_means():
  truth, called = np.array([0, 0, 1]), np.array([0, 1, 1])
  got = metrics.scores(table(truth, called), 0.0, NAMES, 'Benign')
  assert got['recall'] == pytest.approx(0.75)
  assert got['worst_class_recall'] == pytest.approx(0.5)
  assert got['by_class']['Pro']['images'] == 0


def test_without_a_benign_class_and_without_images():
  got = metrics.scores(table([0, 1], [0, 1]), 0.0, NAMES, 'Healthy')
  assert got['sensitivity'] is None
  assert got['specificity'] is None
  got = metrics.scores(np.zeros((4, 4)), 0.0, NAMES, 'Benign')
  assert got['accuracy'] is None
  assert got['sensitivity'] is None


@pytest.mark.parametrize('rows', [1, 7, 8, 9, 21])
def test_evaluation_counts_every_image_once(rows):
  rng = np.random.default_rng(rows)
  images = rng.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
  labels = rng.integers(0, 4, 30).astype(np.int32)
  weights = rng.normal(size=(48, 4)).astype(np.float32)

  def apply_fn(variables, images, train):
    assert not train
    return images.reshape(len(images), -1) @ variables, {}

  chosen = rng.permutation(30)[:rows]
  step = evaluate.make_eval_step(
    apply_fn=apply_fn,
    preprocessing='backbone',
    objective=metrics.class_objective,
  )
  data = Dataset(jnp.asarray(images), jnp.asarray(labels))
  loss, confusion = evaluate.run(
    step, jnp.asarray(weights), data, chosen, batch_size=8, num_classes=4
  )
  scaled = images[chosen].reshape(rows, -1).astype(np.float64) / 127.5 - 1
  logits = scaled @ weights
  expected = sklearn_metrics.log_loss(
    labels[chosen],
    np.asarray(jax.nn.softmax(logits, -1)),
    labels=range(4),
    normalize=False,
  )
  assert loss == pytest.approx(expected, rel=1e-3)
  np.testing.assert_array_equal(
    confusion, table(labels[chosen], logits.argmax(-1))
  )


def test_preprocessing():
  image = jnp.array([0, 51, 255], jnp.uint8)
  np.testing.assert_allclose(evaluate.preprocess(image, 'unit'), [0, 0.2, 1])
  np.testing.assert_allclose(
    evaluate.preprocess(image, 'backbone'), [-1, -0.6, 1], rtol=1e-6
  )


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
  right = np.where(masks, p, 1 - p)
  bce = -np.log(right).mean(axes)
  dice = 1 - (2 * (p * masks).sum(axes) + 1) / (
    p.sum(axes) + masks.sum(axes) + 1
  )
  weight = np.where(masks, 0.25, 0.75)
  focal = (-weight * (1 - right) ** 2 * np.log(right)).mean(axes)
  expected = {'bce': bce, 'dice': dice, 'bce+dice': bce + dice, 'focal': focal}
  assert metrics.MASK_LOSSES.keys() == expected.keys()
  for name, value in expected.items():
    losses, accuracies = metrics.mask_objective(logits, masks, loss=name)
    np.testing.assert_allclose(losses, value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
      accuracies, ((logits > 0) == masks).mean(axes), rtol=1e-6
    )


def test_pixel_confusion_is_scikit_learns():
  logits, masks = some_logits()
  weights = np.array([1, 1, 0, 1, 0], np.float32)
  got = metrics.pixel_confusion(logits, masks, weights)
  chosen = weights > 0
  counts = table(masks[chosen].ravel(), logits[chosen].ravel() > 0, 2)
  np.testing.assert_allclose(got, counts / masks[0].size, rtol=1e-5)
  dice = sklearn_metrics.f1_score(
    masks[chosen].ravel(), logits[chosen].ravel() > 0
  )
  assert metrics.dice(got) == pytest.approx(dice, rel=1e-5)
  assert metrics.dice(np.array([[3.0, 0.0], [0.0, 0.0]])) == 1.0


def test_evaluation_of_masks_counts_every_image_once():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)
  masks = rng.integers(0, 2, (7, 6, 6, 1), dtype=np.uint8)
  data = Dataset(
    jnp.asarray(images), jnp.zeros(7, jnp.int32), jnp.asarray(masks)
  )

  def apply(variables, images, train):
    return (images[..., :1] - 0.5) * variables, {}

  step = evaluate.make_eval_step(
    apply_fn=apply, preprocessing='unit', objective=metrics.mask_objective
  )
  rows = np.array([0, 2, 3, 5, 6])
  loss, confusion = evaluate.run(
    step, 3.0, data, rows, batch_size=3, num_classes=2
  )
  logits = (images[rows, ..., :1].astype(np.float32) / 255 - 0.5) * 3
  losses, accuracies = metrics.mask_objective(logits, masks[rows])
  assert loss == pytest.approx(float(losses.sum()), rel=1e-5)
  assert confusion.sum() == pytest.approx(5)
  assert np.trace(confusion) == pytest.approx(float(accuracies.sum()), rel=1e-5)
  step = evaluate.make_probability_step(apply_fn=apply, preprocessing='unit')
  batches = list(evaluate.probabilities(step, 3.0, data, rows, batch_size=3))
  assert [len(batch) for batch in batches] == [3, 2]
  np.testing.assert_allclose(
    np.concatenate(batches), 1 / (1 + np.exp(-logits[..., 0])), rtol=1e-5
  )
