"""The evaluation loop against a plain sum."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from leukemia_jax import sharding
from leukemia_jax.build import Network
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.evaluation import eval_step
from leukemia_jax.metrics import classification, losses, segmentation


def network(apply, preprocessing, objective, confusion) -> Network:
  model = types.SimpleNamespace(apply=apply)
  return Network(model, preprocessing, objective, confusion, 4)


@pytest.mark.parametrize('count', [1, 7, 8, 9, 21])
def test_evaluation_counts_every_image_once(count):
  rng = np.random.default_rng(count)
  images = rng.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
  labels = rng.integers(0, 4, 30).astype(np.int32)
  kernel = rng.normal(size=(48, 4)).astype(np.float32)

  def apply_fn(variables, images, train):
    assert not train
    return images.reshape(len(images), -1) @ variables, {}

  chosen = rng.permutation(30)[:count]
  step = eval_step.make_eval_step(
    network(
      apply_fn,
      'backbone',
      losses.class_objective,
      classification.confusion_matrix,
    )
  )
  data = Dataset(jnp.asarray(images), jnp.asarray(labels))
  loss, confusion = eval_step.run(
    step,
    jnp.asarray(kernel),
    data,
    chosen,
    batch_size=8,
    num_classes=4,
    mesh=sharding.make_mesh(1, 8),
  )
  scaled = images[chosen].reshape(count, -1).astype(np.float64) / 127.5 - 1
  logits = scaled @ kernel
  expected = sklearn_metrics.log_loss(
    labels[chosen],
    np.asarray(jax.nn.softmax(logits, -1)),
    labels=range(4),
    normalize=False,
  )
  assert loss == pytest.approx(expected, rel=1e-3)
  np.testing.assert_array_equal(
    confusion,
    sklearn_metrics.confusion_matrix(
      labels[chosen], logits.argmax(-1), labels=range(4)
    ),
  )


def test_evaluation_of_masks_counts_every_image_once():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)
  masks = rng.integers(0, 2, (7, 6, 6, 1), dtype=np.uint8)
  data = Dataset(
    jnp.asarray(images), jnp.zeros(7, jnp.int32), jnp.asarray(masks)
  )

  def apply(variables, images, train):
    return (images[..., :1] - 0.5) * variables, {}

  segmenter = network(
    apply, 'unit', losses.mask_objective, segmentation.pixel_confusion
  )
  step = eval_step.make_eval_step(segmenter)
  indices = np.array([0, 2, 3, 5, 6])
  loss, confusion = eval_step.run(
    step,
    3.0,
    data,
    indices,
    batch_size=3,
    num_classes=2,
    mesh=sharding.make_mesh(1, 3),
  )
  logits = (images[indices, ..., :1].astype(np.float32) / 255 - 0.5) * 3
  each, accuracies = losses.mask_objective(logits, masks[indices])
  assert loss == pytest.approx(float(each.sum()), rel=1e-5)
  assert confusion.sum() == pytest.approx(5)
  assert np.trace(confusion) == pytest.approx(float(accuracies.sum()), rel=1e-5)
  step = eval_step.make_probability_step(segmenter)
  batches = list(
    eval_step.probabilities(step, 3.0, data, indices, batch_size=3)
  )
  truth, probabilities = zip(*batches, strict=True)
  assert [len(batch) for batch in probabilities] == [3, 2]
  np.testing.assert_array_equal(
    np.concatenate(truth), masks[indices, ..., 0] > 0
  )
  np.testing.assert_allclose(
    np.concatenate(probabilities),
    1 / (1 + np.exp(-logits[..., 0])),
    rtol=1e-5,
  )
