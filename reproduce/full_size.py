"""Classifiers of the published sizes at work, of random weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import devices, models
from leukemia_jax.inference.classifier import Classifier
from leukemia_jax.metrics.outliers import Detector
from leukemia_jax.transforms.preprocess import preprocess

SIZE = 224


def classifier(name: str, dtype: str = 'float32') -> Classifier:
  """A network of four classes at 224 px.

  Args:
    name: as `config.model.name`.
    dtype: of its computation; the weights are the same.
  """
  model = models.create(name, num_classes=4, dtype=dtype)
  assert isinstance(model, models.Classifier)
  empty = jnp.zeros((1, SIZE, SIZE, 3))
  variables = jax.jit(
    lambda: model.init(jax.random.key(0), empty, train=False)
  )()
  variables = models.with_rounded_kernels(model, variables)

  @jax.jit
  def step(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features = models.apply_with_features(
      model, variables, preprocess(images, 'unit')
    )
    return jax.nn.softmax(logits), features

  _, features = jax.eval_shape(
    step, variables, jnp.zeros((1, SIZE, SIZE, 3), 'u1')
  )
  channels = features.shape[1]
  detector = Detector(np.zeros((4, channels)), np.eye(channels))
  names = ('a', 'b', 'c', 'd')
  return Classifier(
    *(names, SIZE, variables, step, step, 1.0, detector, 1.0, 0.5),
    cpu_batch=devices.cpu_batch(dtype),
  )
