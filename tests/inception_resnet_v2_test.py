"""InceptionResNetV2 against Keras' own, with random weights and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax import models
from leukemia_jax.models.inception_resnet_v2 import InceptionResNetV2


def count(tree) -> int:
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def shapes(**fields):
  model = models.create('inception_resnet_v2', num_classes=4, **fields)
  return jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False
    )
  )


def test_counts_are_keras():
  variables = shapes()
  backbone = variables['params']['backbone']
  # Keras counts moving means and variances too.
  assert count(backbone) + count(variables['batch_stats']) == 54_336_736
  assert count(variables['params']) - count(backbone) == 394_500


def test_width_and_blocks_make_it_small():
  small = shapes(width=0.25, blocks=(1, 1, 1))
  assert count(small['params']) < 1_000_000


def random_weights(rng, layers) -> None:
  """Fills Keras layers: He-sized kernels, lively statistics."""
  for layer in layers:
    values = []
    for weight in layer.weights:
      shape = tuple(weight.shape)
      if weight.name == 'kernel':
        scale = np.sqrt(2.0 / np.prod(shape[:-1]))
        values.append(scale * rng.normal(size=shape))
      elif weight.name == 'moving_variance':
        values.append(rng.uniform(0.5, 2.0, shape))
      else:
        values.append(rng.normal(0, 0.2, shape))
    layer.set_weights(values)


def from_keras(model, variables):
  """Keras weights in the order that its layers are made, as our variables.

  Both sides make their layers in the same order, so the n-th convolution and
  the n-th batch norm of one are those of the other.
  """
  layers = [layer for layer in model.layers if layer.weights]
  # Keras lists layers by depth; the order of making is in their names.
  convs, norms, outs = [], [], []
  for layer in layers:
    number = layer.name.rpartition('_')[2]
    number = int(number) if number.isdigit() else 0
    if layer.name.startswith('conv2d'):
      convs.append((number, layer))
    elif layer.name.startswith('batch_normalization'):
      norms.append((number, layer))
    else:
      outs.append(layer)
  convs = [layer for _, layer in sorted(convs, key=lambda pair: pair[0])]
  norms = [layer for _, layer in sorted(norms, key=lambda pair: pair[0])]
  named = {layer.name: layer for layer in outs}
  params, stats = {}, {}
  for name, value in variables['params'].items():
    if 'norm' in value:
      last = name == 'conv_7b'
      conv = named['conv_7b'] if last else convs.pop(0)
      norm = named['conv_7b_bn'] if last else norms.pop(0)
      beta, mean, variance = norm.get_weights()
      params[name] = {
        'conv': {'kernel': conv.get_weights()[0]},
        'norm': {'bias': beta},
      }
      stats[name] = {'norm': {'mean': mean, 'var': variance}}
    else:
      kernel, bias = named[name.replace('_out', '_conv')].get_weights()
      params[name] = {'kernel': kernel, 'bias': bias}
  assert not convs and not norms
  expected = jax.tree.map(jnp.shape, dict(variables))
  ours = {'params': params, 'batch_stats': stats}
  assert jax.tree.map(jnp.shape, ours) == expected
  return ours


@pytest.fixture(scope='module')
def pair():
  """Keras' network with random weights, ours, and our variables of it."""
  import keras

  keras.backend.clear_session()
  theirs = keras.applications.InceptionResNetV2(
    include_top=False, weights=None, input_shape=(None, None, 3)
  )
  random_weights(np.random.default_rng(0), theirs.layers)
  ours = InceptionResNetV2()
  # Made eagerly: a traced init would sort the names.
  variables = jax.eval_shape(
    lambda: ours.init(jax.random.key(0), jnp.zeros((1, 75, 75, 3)), False)
  )
  return theirs, ours, from_keras(theirs, in_order(ours, variables))


def in_order(model, variables):
  """Variables with their modules in the order of making."""
  made = []

  def note(next_call, args, kwargs, context):
    path = context.module.path
    if len(path) == 1 and path[0] not in made:
      made.append(path[0])
    return next_call(*args, **kwargs)

  import flax.linen as nn

  with nn.intercept_methods(note):
    jax.eval_shape(
      lambda v: model.apply(v, jnp.zeros((1, 75, 75, 3)), False), variables
    )
  return {
    kind: {name: tree[name] for name in made if name in tree}
    for kind, tree in variables.items()
  }


def relative(ours, theirs) -> float:
  return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(
  'size',
  [75, *(pytest.param(s, marks=pytest.mark.full) for s in (97, 224))],
)
def test_features_are_keras(pair, size):
  theirs, ours, variables = pair
  images = np.random.default_rng(size).uniform(-1, 1, (2, size, size, 3))
  images = images.astype(np.float32)
  expected = np.asarray(theirs(images, training=False))
  got = np.asarray(ours.apply(variables, images, False))
  assert got.shape == expected.shape
  assert relative(got, expected) <= 1e-4


@pytest.mark.full
def test_training_statistics_are_keras(pair):
  theirs, ours, variables = pair
  images = np.random.default_rng(5).uniform(-1, 1, (4, 75, 75, 3))
  images = images.astype(np.float32)
  _, updated = ours.apply(variables, images, True, mutable=['batch_stats'])
  before = theirs.get_weights()
  theirs(images, training=True)
  layer = theirs.get_layer('conv_7b_bn')
  _, mean, variance = layer.get_weights()
  theirs.set_weights(before)
  got = updated['batch_stats']['conv_7b']['norm']
  assert relative(np.asarray(got['mean']), mean) <= 1e-3
  assert relative(np.asarray(got['var']), variance) <= 1e-3


def drawn(model, images):
  """Variables of the right shapes, without compiling an init."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype),
    shapes,
  )


def test_bfloat16_keeps_parameters_and_head_in_float32():
  model = models.create(
    'inception_resnet_v2',
    num_classes=3,
    width=0.1,
    blocks=(1, 1, 1),
    dtype=jnp.bfloat16,
  )
  images = jnp.ones((1, 75, 75, 3))
  variables = drawn(model, images)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    jnp.dtype('float32')
  }
  logits, intermediates = jax.eval_shape(
    lambda: model.apply(variables, images, train=False)
  )
  assert logits.dtype == jnp.float32
  assert intermediates['features'].dtype == jnp.bfloat16


def test_a_frozen_backbone_keeps_its_statistics():
  model = models.create(
    'inception_resnet_v2',
    num_classes=3,
    freeze_backbone=True,
    width=0.1,
    blocks=(1, 1, 1),
  )
  images = jax.random.uniform(jax.random.key(1), (2, 75, 75, 3))
  variables = drawn(model, images)

  @jax.jit
  def loss(params):
    (logits, _), updated = model.apply(
      {**variables, 'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    return jnp.square(logits).mean(), updated

  grads, updated = jax.grad(loss, has_aux=True)(variables['params'])
  assert all(
    (np.asarray(g) == 0).all() for g in jax.tree.leaves(grads['backbone'])
  )
  assert any(
    (np.asarray(g) != 0).any() for g in jax.tree.leaves(grads['logits'])
  )
  for one, other in zip(
    jax.tree.leaves(updated['batch_stats']),
    jax.tree.leaves(variables['batch_stats']),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)


def test_too_small_an_image_and_unknown_name():
  with pytest.raises(ValueError, match='75 px or more'):
    InceptionResNetV2().init(
      jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False
    )
  with pytest.raises(ValueError, match=r'resnet.*inception_resnet_v2'):
    models.create('resnet', num_classes=2)
