"""Models by name: counts, heads, frozen backbones, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import count, drawn, shapes

from leukemia_jax import models


# Keras counts moving means and variances too.
@pytest.mark.parametrize(
  ('name', 'num_classes', 'include_top', 'expected'),
  [
    pytest.param(
      *('inception_resnet_v2', 0, False, 54_336_736), marks=pytest.mark.full
    ),
    ('inception_resnet_v2', 4, False, 54_336_736 + 394_500),
    ('inception_resnet_v2', 1000, True, 55_873_736),
    pytest.param(
      *('nasnet_large', 0, False, 84_916_818), marks=pytest.mark.full
    ),
    ('nasnet_large', 4, False, 84_916_818 + 1_033_476),
    pytest.param(
      *('nasnet_large', 1000, True, 88_949_818), marks=pytest.mark.full
    ),
    pytest.param(
      *('nasnet_mobile', 0, False, 4_269_716), marks=pytest.mark.full
    ),
    ('nasnet_mobile', 1000, True, 5_326_716),
  ],
)
def test_counts_are_keras(name, num_classes, include_top, expected):
  assert count(shapes(name, num_classes, include_top=include_top)) == expected


@pytest.mark.parametrize(
  ('name', 'expected'), [('unet', 34_513_345), ('unet_fpn', 38_120_001)]
)
def test_counts_are_the_studys(name, expected):
  assert count(shapes(name, 1)) == expected


SMALL = {
  'inception_resnet_v2': {'width': 0.1, 'blocks': (1, 1, 1)},
  'nasnet_large': {'width': 0.05, 'blocks': (1, 1, 1)},
  'nasnet_mobile': {'width': 0.1, 'blocks': (1, 2, 1)},
  'unet': {'width': 0.05},
  'unet_fpn': {'width': 0.05, 'depth': 3},
}


# One backbone suffices to be quick.
NAMES = [
  pytest.param(name, marks=pytest.mark.full) if 'nasnet' in name else name
  for name in models.NAMES
]


@pytest.mark.parametrize('name', NAMES)
def test_outputs_and_intermediates(name):
  def of(num_classes):
    model = models.create(name, num_classes=num_classes, **SMALL[name])
    images = jnp.zeros((2, 80, 80, 3))

    def call():
      variables = model.init(jax.random.key(0), images, train=False)
      return model.apply(variables, images, train=False)

    return jax.eval_shape(call)

  logits, named = of(3)
  assert logits.dtype == jnp.float32
  if name in models.UNETS:
    assert logits.shape == (2, 80, 80, 3)
    assert named['bottleneck'].shape[1] == 80 // 2 ** SMALL[name].get(
      'depth', 4
    )
  else:
    assert logits.shape == (2, 3)
  features, again = of(0)
  assert features == named['features'] == again['features']
  assert features.ndim == 4


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_keeps_parameters_and_head_in_float32(name):
  fields = SMALL[name] | {'dtype': jnp.bfloat16}
  model = models.create(name, num_classes=3, **fields)
  images = jnp.ones((1, 80, 80, 3))
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

  def loss(params):
    (logits, _), updated = model.apply(
      {**variables, 'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    return jnp.square(logits).mean(), updated

  grads, updated = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
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


def test_unknown_names_and_fields():
  with pytest.raises(
    ValueError, match=r'resnet.*inception_resnet_v2.*unet_fpn'
  ):
    models.create('resnet', num_classes=2)
  with pytest.raises(ValueError, match='depth'):
    models.create('nasnet_mobile', num_classes=2, depth=2)
  with pytest.raises(ValueError, match='include_top'):
    models.create('unet', num_classes=1, include_top=True)


@pytest.mark.full
@pytest.mark.parametrize(
  'name', ['inception_resnet_v2', 'nasnet_mobile', 'unet']
)
def test_rounding_kernels_once_changes_no_bit(name):
  fields = {'width': 0.05, 'dtype': jnp.bfloat16}
  fields |= {'depth': 1} if name == 'unet' else {'blocks': (1, 1, 1)}
  model = models.create(name, num_classes=2, **fields)
  images = jax.random.uniform(jax.random.key(0), (1, 75, 75, 3))
  variables = drawn(model, images)
  once = models.with_rounded_kernels(model, variables)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(once)} == {
    'float32',
    'bfloat16',
  }
  run = jax.jit(lambda v: model.apply(v, images, train=False)[0])
  np.testing.assert_array_equal(run(once), run(variables))
