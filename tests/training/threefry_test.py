"""Draws of unrolled keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax.training import threefry


@pytest.mark.parametrize('shape', [(), (0,), (7,), (3, 5), (32, 33, 4)])
def test_draws_are_jax_own(shape):
  key = jax.random.key(7)
  same = threefry.unrolled(key)
  for mine, jax_own in zip(
    (same, *jax.random.split(same, 3), jax.random.fold_in(same, 2**31)),
    (key, *jax.random.split(key, 3), jax.random.fold_in(key, 2**31)),
    strict=True,
  ):
    for dtype in (jnp.uint32, jnp.uint8):
      np.testing.assert_array_equal(
        jax.random.bits(mine, shape, dtype),
        jax.random.bits(jax_own, shape, dtype),
      )
    np.testing.assert_array_equal(
      jax.random.bernoulli(mine, 0.3, shape),
      jax.random.bernoulli(jax_own, 0.3, shape),
    )


def test_vmap_and_jit_draw_the_same():
  keys = jax.random.split(jax.random.key(1), 4)

  @jax.jit
  @jax.vmap
  def draw(key):
    return jax.random.normal(threefry.unrolled(key), (5, 3))

  expected = [jax.random.normal(key, (5, 3)) for key in keys]
  np.testing.assert_array_equal(draw(keys), np.stack(expected))


def test_other_keys_are_left_alone():
  key = jax.random.key(0, impl='rbg')
  assert threefry.unrolled(key) is key
