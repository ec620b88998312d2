"""The scale of a network's inputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax.transforms.preprocess import preprocess


def test_scales():
  image = jnp.array([0, 51, 255], jnp.uint8)
  np.testing.assert_allclose(preprocess(image, 'unit'), [0, 0.2, 1])
  expected = [-1, -0.6, 1]
  np.testing.assert_allclose(preprocess(image, 'backbone'), expected, rtol=1e-6)
  features = jnp.array([0.5, -2.0])
  assert preprocess(features, None) is features


def test_an_unknown_scale_is_refused():
  with pytest.raises(ValueError, match='no input scale'):
    preprocess(jnp.zeros(3, jnp.uint8), 'imagenet')
