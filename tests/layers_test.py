"""Fast forms of layers against the plain ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax.models import layers


@pytest.mark.parametrize('shape', [(2, 9, 9, 4), (1, 12, 7, 3), (1, 3, 4, 1)])
def test_max_pool(shape):
  x = jax.random.normal(jax.random.key(0), shape)
  plain = nn.max_pool(x, (3, 3), (2, 2), 'VALID')
  np.testing.assert_array_equal(layers.max_pool_3x3_2(x), plain)

  def total(pool, x):
    return jnp.square(pool(x)).sum()

  fast = jax.grad(lambda x: total(layers.max_pool_3x3_2, x))(x)
  slow = jax.grad(
    lambda x: total(lambda x: nn.max_pool(x, (3, 3), (2, 2), 'VALID'), x)
  )(x)
  np.testing.assert_allclose(fast, slow, rtol=1e-6)


@pytest.mark.parametrize('use_bias', [True, False])
def test_pointwise_convolution(use_bias):
  x = jax.random.normal(jax.random.key(0), (2, 5, 6, 7))
  fast = layers.conv(4, (1, 1), use_bias=use_bias)
  variables = fast.init(jax.random.key(1), x)
  plain = nn.Conv(4, (1, 1), use_bias=use_bias)
  np.testing.assert_allclose(
    fast.apply(variables, x), plain.apply(variables, x), rtol=1e-5, atol=1e-6
  )


def test_average_pool_does_not_count_padding():
  x = jnp.ones((1, 5, 5, 1))
  np.testing.assert_allclose(layers.average_pool_3x3(x), x, rtol=1e-6)
