"""The best shortcut of a run: a planted cast, and nothing planted."""

import jax.numpy as jnp
import numpy as np

from leukemia_jax.audit import properties, shortcuts


def parts(count):
  order = np.random.default_rng(1).permutation(count)
  return np.split(order, [count // 2, 3 * count // 4])


def test_a_planted_cast_is_the_best_shortcut():
  rng = np.random.default_rng(0)
  images = rng.integers(60, 200, (80, 40, 40, 3))
  labels = np.arange(80) % 2
  images[..., 0] += 30 * labels[:, None, None]
  train, validation, test = parts(80)
  best = shortcuts.best_shortcut(
    *(jnp.asarray(images, jnp.uint8), labels, train, validation, test)
  )
  assert best.name in {own.name for own in properties.OF_PIXELS}
  assert best.labels.tolist() == labels[test].tolist()


def test_nothing_planted():
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(60, 200, (80, 40, 40, 3)), jnp.uint8)
  labels = np.arange(80) % 2
  train, validation, test = parts(80)
  best = shortcuts.best_shortcut(images, labels, train, validation, test)
  assert 0.2 < (best.labels == labels[test]).mean() < 0.8
