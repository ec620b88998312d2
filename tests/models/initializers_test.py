"""Initialisers beside those of JAX."""

import jax
import numpy as np
import pytest

from leukemia_jax.models import initializers

PAIRS = [
  (initializers.GLOROT_UNIFORM, jax.nn.initializers.glorot_uniform()),
  (initializers.HE_NORMAL, jax.nn.initializers.he_normal()),
]


@pytest.mark.parametrize('pair', PAIRS, ids=['glorot_uniform', 'he_normal'])
@pytest.mark.parametrize(
  'shape', [(1, 1, 1, 1), (3, 3, 8, 1), (3, 2, 5, 7), (4, 4, 8, 8)]
)
@pytest.mark.parametrize('level', [0, 2])
def test_bits_are_those_of_jax(pair, shape, level):
  key, options = jax.random.key(3), {'xla_backend_optimization_level': level}
  ours, theirs = (
    jax.jit(own, static_argnums=1, compiler_options=options)(key, shape)
    for own in pair
  )
  assert ours.dtype == np.float32
  np.testing.assert_array_equal(ours, theirs)


def test_draws_are_the_same_bits_however_compiled():
  key = jax.random.key(0)
  plain, optimised = (
    jax.jit(
      lambda key: initializers.uniform(key, 4096),
      compiler_options={'xla_backend_optimization_level': level},
    )(key)
    for level in (0, 3)
  )
  np.testing.assert_array_equal(plain, optimised)
