"""U-Net at sizes that it must pad; keras_weights_test.py has Keras'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn, shapes

from leukemia_jax import models


@pytest.mark.parametrize('name', models.UNETS)
def test_sizes_that_are_not_divisible_are_padded_and_cropped(name):
  model = models.create(name, num_classes=2, width=0.05, depth=2)
  images = jax.random.uniform(jax.random.key(0), (2, 13, 18, 3))
  variables = drawn(model, images)
  logits, named = model.apply(variables, images, train=False)
  assert logits.shape == (2, 13, 18, 2)
  assert named['features'].shape[1:3] == (13, 18)
  by_hand = np.pad(images, ((0, 0), (0, 3), (0, 2), (0, 0)), mode='edge')
  padded, _ = model.apply(variables, jnp.asarray(by_hand), train=False)
  np.testing.assert_array_equal(logits, padded[:, :13, :18])


def test_depth_of_none_is_refused_and_one_works():
  with pytest.raises(ValueError, match='once or more'):
    models.create('unet', num_classes=1, depth=0).init(
      jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False
    )
  variables = shapes('unet_fpn', num_classes=1, size=7, width=0.05, depth=1)
  assert set(variables) == {'params'}
  assert not any('pyramid' in name for name in variables['params'])


def step(model, variables, images):
  def loss(params):
    (logits, _), updated = model.apply(
      variables | {'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    return (logits**2).mean(), updated

  return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])


@pytest.mark.full
@pytest.mark.parametrize('batch_norm', [False, True])
def test_remat_changes_memory_alone(batch_norm):
  fields = {'width': 0.125, 'depth': 2, 'batch_norm': batch_norm}
  plain = models.create('unet_fpn', num_classes=1, **fields)
  sparing = models.create('unet_fpn', num_classes=1, remat=True, **fields)
  images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
  variables = drawn(plain, images)
  assert ('batch_stats' in variables) == batch_norm
  same_names = [
    jax.eval_shape(lambda m=m: m.init(jax.random.key(1), images, train=False))
    for m in (plain, sparing)
  ]
  assert same_names[0] == same_names[1]
  got, expected = (step(m, variables, images) for m in (sparing, plain))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    got,
    expected,
  )


def moments(x):
  x = np.asarray(x, np.float64)
  return x.mean((0, 1, 2)), x.var((0, 1, 2))


def close(got, expected):
  np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_batch_norm_normalises_by_the_batch_and_keeps_count():
  model = models.create(
    'unet', num_classes=1, width=0.125, depth=1, batch_norm=True, momentum=0.5
  )
  images = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))
  variables = drawn(model, images)
  _, updated = jax.jit(
    lambda variables: model.apply(
      variables,
      images,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      capture_intermediates=True,
    )
  )(variables)
  assert len(variables['batch_stats']) == 6
  maps, variables, updated = jax.tree.map(
    np.asarray, (updated['intermediates'], variables, updated)
  )
  for name, before in variables['batch_stats'].items():
    (x,) = maps[name.replace('norm', 'conv')]['__call__']
    (normalised,) = maps[name]['__call__']
    own, mean, variance = variables['params'][name], *moments(x)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * own['scale']
    close(normalised, expected + own['bias'])
    after = updated['batch_stats'][name]
    close(after['mean'], 0.5 * before['mean'] + 0.5 * mean)
    close(after['var'], 0.5 * before['var'] + 0.5 * variance)
