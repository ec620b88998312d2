"""All five models against Keras', through files that Keras writes."""

import pathlib

import jax
import jax.numpy as jnp
import keras
import keras_reference as reference
import numpy as np
import pytest
from keras.src.backend.common import dtypes
from keras_reference import SMALL_NASNET, SMALL_UNET, relative

from leukemia_jax import models
from leukemia_jax.pretrained import keras_layers, keras_weights

FORMATS = ('.h5', '.weights.h5', '.keras')
full = pytest.mark.full


def save(model, path: pathlib.Path) -> pathlib.Path:
  if path.name.endswith('.weights.h5'):
    model.save_weights(path)
  else:
    model.save(path)
  return path


def build(name: str, size: int, top: bool, small: bool):
  """Keras' model with random weights, and the fields of ours."""
  keras.backend.clear_session()
  fields = {}
  if name in models.UNETS:
    theirs = reference.unet(
      *((4, 2) if small else ()), fpn=name == 'unet_fpn', size=size
    )
    fields = SMALL_UNET if small else {}
  elif small:
    theirs = reference.small_nasnet(
      size, skip_reduction=name == 'nasnet_large', top=top
    )
    fields = SMALL_NASNET
  else:
    theirs = reference.backbone(name, size, top=top)
  reference.randomise(theirs)
  return theirs, fields


def port(name: str, variables, fields):
  """Our model of imported variables."""
  if name in models.UNETS:
    return models.create(name, num_classes=1, **fields)
  logits = variables['params'].get('logits')
  return models.create(
    name,
    num_classes=0 if logits is None else len(logits['bias']),
    include_top=True,
    **fields,
  )


def outputs(model, variables, images):
  apply = jax.jit(model.apply, static_argnames='train')
  return apply(variables, images, train=False)[0]


SMALL = [
  pytest.param('nasnet_large', 48, True, True, marks=full),
  pytest.param('nasnet_mobile', 47, False, True, marks=full),
  ('unet', 32, True, True),
  pytest.param('unet_fpn', 32, True, True, marks=full),
]
# Sizes odd and even, each network with and without top.
PUBLISHED = [
  ('inception_resnet_v2', 75, False, False),
  ('inception_resnet_v2', 224, True, False),
  ('nasnet_mobile', 32, False, False),
  ('nasnet_mobile', 331, True, False),
  ('nasnet_large', 97, True, False),
  ('nasnet_large', 224, False, False),
  ('unet', 224, True, False),
  ('unet_fpn', 224, True, False),
]


@pytest.mark.parametrize(
  ('name', 'size', 'top', 'small'),
  [*SMALL, *(pytest.param(*case, marks=full) for case in PUBLISHED)],
)
def test_output_is_keras(tmp_path, name, size, top, small):
  theirs, fields = build(name, size, top, small)
  images = reference.images(size)
  expected = reference.output(theirs, images)
  imported = [
    keras_weights.load_weights(
      save(theirs, tmp_path / f'weights{suffix}'), name, **fields
    )
    # Of large files one is enough.
    for suffix in (FORMATS if small else FORMATS[:1])
  ]
  for other in imported[1:]:
    jax.tree.map(np.testing.assert_array_equal, imported[0], other)
  model = port(name, imported[0], fields)
  assert relative(outputs(model, imported[0], images), expected) <= 1e-4


@full
def test_an_image_that_is_no_square_is_keras(tmp_path):
  keras.backend.clear_session()
  theirs = reference.small_nasnet((33, 46), skip_reduction=True)
  reference.randomise(theirs)
  path = save(theirs, tmp_path / 'w.weights.h5')
  variables = keras_weights.load_weights(path, 'nasnet_large', **SMALL_NASNET)
  model = port('nasnet_large', variables, SMALL_NASNET)
  images = np.random.default_rng(0).uniform(-1, 1, (2, 33, 46, 3))
  images = images.astype(np.float32)
  output = outputs(model, variables, images)
  assert relative(output, reference.output(theirs, images)) <= 1e-4


# Rounding turns a few ReLUs on or off, and batch norm makes that grow layer by
# layer: at InceptionResNetV2's stem Keras' own float32 gradients are 12 % of
# the largest off its float64 ones, ours 10 %; at NASNet-Mobile's (64 px) Keras'
# are 1.6 % off on some processors. So the deep ones need float64.
PRECISIONS = {'float32': 1e-3, 'float64': 1e-9}


@pytest.fixture
def precision(request, monkeypatch):
  """Lets Keras and JAX compute in the given precision."""
  # Keras on JAX computes batch norm in float32 else.
  monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, 'float64', 'float64')
  before = keras.config.floatx()
  keras.config.set_floatx(request.param)
  with jax.enable_x64(request.param == 'float64'):
    yield request.param
  keras.config.set_floatx(before)


@pytest.mark.parametrize(
  ('name', 'size', 'small', 'precision'),
  [
    ('unet', 16, True, 'float32'),
    *(
      pytest.param(*case, marks=full)
      for case in (
        ('unet', 32, False, 'float32'),
        ('unet_fpn', 16, True, 'float32'),
        ('unet_fpn', 32, False, 'float32'),
        ('nasnet_large', 33, True, 'float64'),
        ('inception_resnet_v2', 75, False, 'float64'),
      )
    ),
  ],
  indirect=['precision'],
)
def test_training_step_is_keras(tmp_path, name, size, small, precision):
  theirs, fields = build(name, size, False, small)
  images = reference.images(size, count=4).astype(precision)
  path = save(theirs, tmp_path / 'w.weights.h5')
  variables = jax.tree.map(
    lambda value: value.astype(precision),
    keras_weights.load_weights(path, name, **fields),
  )
  gradients, statistics = reference.training_step(theirs, images)
  model = port(name, variables, fields | {'dtype': jnp.dtype(precision)})

  # Arguments, not constants: XLA would work half of it out while compiling.
  @jax.jit
  def step(variables, images):
    def loss(params):
      (output, _), updated = model.apply(
        variables | {'params': params},
        images,
        train=True,
        mutable=['batch_stats'],
      )
      return jnp.square(output).mean(), updated

    return jax.grad(loss, has_aux=True)(variables['params'])

  got, updated = step(variables, images)
  ours = {'params': got, 'batch_stats': updated.get('batch_stats', {})}
  limit = PRECISIONS[precision]
  largest = max(np.abs(g).max() for g in gradients.values())
  for layer in keras_layers.of_model(model, variables['params']):
    for role, at in layer.weights:
      value = ours
      for part in at:
        value = value[part]
      assert value.dtype == precision
      if at[0] == 'batch_stats':
        assert relative(value, statistics[layer.name, role]) <= limit, at
      else:
        difference = np.abs(value - gradients[layer.name, role]).max()
        assert difference <= limit * largest, at


@pytest.mark.parametrize(
  ('name', 'suffix'),
  [
    pytest.param('nasnet_mobile', '.h5', marks=full),
    pytest.param('nasnet_mobile', '.weights.h5', marks=full),
    ('unet_fpn', '.h5'),
    ('unet_fpn', '.weights.h5'),
  ],
)
def test_keras_loads_what_is_exported(tmp_path, name, suffix):
  theirs, fields = build(name, 32, top=True, small=True)
  variables = keras_weights.load_weights(
    save(theirs, tmp_path / 'w.weights.h5'), name, **fields
  )
  path = tmp_path / f'out{suffix}'
  before = theirs.get_weights()
  keras_weights.export_weights(variables, path, name, **fields)
  reference.randomise(theirs, seed=1)
  theirs.load_weights(path)
  jax.tree.map(np.testing.assert_array_equal, theirs.get_weights(), before)


def test_names_that_a_long_session_gave(tmp_path):
  # Published files were saved after other models: their counts start anywhere.
  build('unet', 16, True, small=True)
  theirs = reference.unet(4, 2, fpn=False, size=16)
  assert theirs.layers[1].name != 'conv2d'
  variables = keras_weights.load_weights(
    save(theirs, tmp_path / 'w.h5'), 'unet', **SMALL_UNET
  )
  kernel = theirs.layers[1].get_weights()[0]
  np.testing.assert_array_equal(
    variables['params']['down_0_conv_1']['kernel'], kernel
  )
