"""Calibrated batch norms: whose mean they are, and what they are for."""

import jax
import numpy as np
import pytest

from leukemia_jax import models
from leukemia_jax.study import calibration, features

FIELDS = {'width': 0.05, 'blocks': (1, 1, 1)}
SIZE = 75


def images(count: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def model():
  return models.create('inception_resnet_v2', num_classes=0, **FIELDS)


@pytest.fixture(scope='module')
def variables(model):
  draw = jax.jit(
    lambda key: model.init(key, images(1) / 255.0, train=False),
    compiler_options={'xla_backend_optimization_level': 0},
  )
  return draw(jax.random.key(0))


@pytest.mark.full
def test_calibrated_statistics_are_the_mean_of_the_batches(variables):
  still = models.create(
    'inception_resnet_v2', num_classes=0, **FIELDS, momentum=0.0
  )
  pixels = images(12)
  got = calibration.calibrate(
    still, lambda: variables, pixels, preprocessing='unit', batch_size=4
  )
  # By hand, of the first layer: a convolution, then the batch norm.
  kernel = variables['params']['backbone']['stem_0']['conv']['kernel']
  first = jax.lax.conv_general_dilated(
    pixels / np.float32(255),
    kernel,
    (2, 2),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  batches = np.asarray(first).reshape(3, -1, first.shape[-1])
  norm = got['batch_stats']['backbone']['stem_0']['norm']
  np.testing.assert_allclose(norm['mean'], batches.mean((0, 1)), rtol=1e-3)
  np.testing.assert_allclose(norm['var'], batches.var(1).mean(0), rtol=1e-3)
  assert got['params'] is variables['params']


@pytest.mark.full
def test_calibrated_features_tell_images_apart(model, variables):
  rng = np.random.default_rng(0)
  # Smears of two looks, not noise: noise is alike after pooling.
  ground = rng.integers(80, 255, (16, 1, 1, 3))
  pixels = np.broadcast_to(ground, (16, SIZE, SIZE, 3)).astype(np.uint8).copy()
  pixels[:8, 20:50, 20:50] = (90, 60, 160)
  still = models.create(
    'inception_resnet_v2', num_classes=0, **FIELDS, momentum=0.0
  )
  got = calibration.calibrate(
    still, lambda: variables, pixels, preprocessing='unit', batch_size=8
  )
  step = features.make_step(apply_fn=model.apply, preprocessing='unit')

  def spread(variables):
    out = np.asarray(step(variables, pixels))
    return (out.std(0) / (np.abs(out).mean(0) + 1e-12)).mean()

  assert spread(got) > 3 * spread(variables)
