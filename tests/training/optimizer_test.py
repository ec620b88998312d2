"""Adam, plateau and stopping rules against Keras' own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from leukemia_jax.training import optimizer


@pytest.mark.parametrize('rate', [0.1, 1e-4])
def test_adam_is_keras(rate):
  import keras

  rng = np.random.default_rng(0)
  # From zero: far from it, float32 parameters round the steps away.
  start = np.zeros((5, 4), np.float32)
  grads = rng.normal(size=(20, 5, 4)).astype(np.float32)
  # Gradients near epsilon, where its place matters.
  grads[:, 0] *= 1e-7
  theirs = keras.Variable(start)
  keras_adam = keras.optimizers.Adam(rate)
  ours, adam = jnp.asarray(start), optimizer.scale_by_keras_adam()
  state = adam.init(ours)
  for grad in grads:
    keras_adam.apply([grad], [theirs])
    updates, state = adam.update(jnp.asarray(grad), state)
    ours = ours - rate * updates
  moved = np.abs(np.asarray(theirs) - start).max()
  assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= 1e-5 * moved


def test_adam_is_not_optax_near_epsilon():
  grad = jnp.full((1,), 1e-7)
  adam = optimizer.scale_by_keras_adam()
  ours, _ = adam.update(grad, adam.init(grad))
  plain = optax.scale_by_adam(eps=1e-7)
  theirs, _ = plain.update(grad, plain.init(grad))
  assert abs(float(ours[0] - theirs[0])) > 0.4


def test_jit_is_eager():
  grad = {'a': jnp.array([1.0, -2.0]), 'b': jnp.array([[3e-7]])}
  adam = optimizer.scale_by_keras_adam()
  eager, _ = adam.update(grad, adam.init(grad))
  compiled, _ = jax.jit(adam.update)(grad, adam.init(grad))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), eager, compiled
  )
