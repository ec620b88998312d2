"""Keras' networks with random weights, for our ports to be compared with."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import layers
from keras.src.applications.nasnet import NASNet

# Fields of a NASNet small enough to be built and compiled in seconds.
SMALL_NASNET = {
  'penultimate_filters': 96,
  'stem_filters': 8,
  'blocks': (1, 1, 1),
}
SMALL_UNET = {'width': 0.0625, 'depth': 2}
_MAKERS = {
  'inception_resnet_v2': keras.applications.InceptionResNetV2,
  'nasnet_large': keras.applications.NASNetLarge,
  'nasnet_mobile': keras.applications.NASNetMobile,
}


def undrawn(build):
  """Builds a network without drawing weights, for `randomise` to do.

  Keras on JAX compiles a draw for every shape of a kernel, which takes longer
  than all else that a test does.
  """

  def zeros(_, shape, dtype=None):
    return np.zeros(shape, dtype or keras.config.floatx())

  @functools.wraps(build)
  def built(*args, **fields):
    with mock.patch.object(
      keras.initializers.VarianceScaling, '__call__', zeros
    ):
      return build(*args, **fields)

  return built


@undrawn
def backbone(name: str, size: int | None, *, top: bool = False):
  """One of keras.applications; its top gives logits."""
  return _MAKERS[name](
    include_top=top,
    weights=None,
    input_shape=(size, size, 3),
    **({'classifier_activation': None} if top else {}),
  )


@undrawn
def small_nasnet(
  size: int | tuple[int, int], *, skip_reduction: bool, top: bool = False
):
  """Keras' NASNet with the fields of `SMALL_NASNET`."""
  height, width = (size, size) if isinstance(size, int) else size
  return NASNet(
    (height, width, 3),
    penultimate_filters=SMALL_NASNET['penultimate_filters'],
    num_blocks=1,
    stem_block_filters=SMALL_NASNET['stem_filters'],
    skip_reduction=skip_reduction,
    include_top=top,
    weights=None,
    classes=5,
    classifier_activation=None,
  )


@undrawn
def unet(filters: int = 64, depth: int = 4, *, fpn: bool, size: int = 32):
  """The study's U-Net, from its description."""
  conv = functools.partial(
    layers.Conv2D, padding='same', kernel_initializer='he_normal'
  )

  def double(x, width):
    x = conv(width, 3, activation='relu')(x)
    return conv(width, 3, activation='relu')(x)

  def pyramid(skip, deeper, width):
    x = conv(width, 1, activation='gelu')(skip)
    if deeper is not None:
      y = layers.UpSampling2D(2)(deeper)
      y = conv(width, 1, activation='gelu')(y)
      x = layers.Add()([x, y])
    return conv(width, 3, activation='gelu')(x)

  inputs = x = layers.Input((size, size, 3))
  skips = []
  for level in range(depth):
    x = double(x, filters * 2**level)
    skips.append(x)
    x = layers.MaxPooling2D(2)(x)
  x = double(x, filters * 2**depth)
  deeper = None
  for level in reversed(range(depth)):
    width, skip = filters * 2**level, skips[level]
    if fpn and level:
      skip = deeper = pyramid(skip, deeper, width)
    x = layers.Conv2DTranspose(width, 3, strides=2, padding='same')(x)
    x = layers.Concatenate()([x, skip])
    x = double(x, width)
  # Logits: the sigmoid is part of our losses.
  return keras.Model(inputs, conv(1, 1)(x))


def randomise(model, seed: int = 0) -> None:
  """Fills a network: He-sized kernels, lively statistics."""
  rng = np.random.default_rng(seed)
  for layer in model.layers:
    values = []
    for weight in layer.weights:
      shape = tuple(weight.shape)
      if 'kernel' in weight.name:
        inputs = 2 if weight.name == 'depthwise_kernel' else 3
        # A transposed convolution's kernel counts its outputs first.
        transposed = isinstance(layer, layers.Conv2DTranspose)
        fan_in = np.prod(
          (*shape[:2], shape[3]) if transposed else shape[:inputs]
        )
        values.append(np.sqrt(2.0 / fan_in) * rng.normal(size=shape))
      elif weight.name in ('moving_variance', 'gamma'):
        values.append(rng.uniform(0.5, 2.0, shape))
      else:
        values.append(rng.normal(0, 0.2, shape))
    if values:
      # Such as a float32 holds, whatever the precision of the network.
      layer.set_weights([value.astype(np.float32) for value in values])


def images(size: int, count: int = 2) -> np.ndarray:
  """Network inputs, float32 in [-1, 1]."""
  rng = np.random.default_rng(size)
  return rng.uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def output(model, x: np.ndarray) -> np.ndarray:
  """What Keras' network makes of images."""
  weights = [
    [v.value for v in variables]
    for variables in (model.trainable_variables, model.non_trainable_variables)
  ]
  # Keras broadcasts ranks at will.
  with jax.numpy_rank_promotion('allow'):
    call = jax.jit(lambda *args: model.stateless_call(*args, training=False)[0])
    return np.asarray(call(*weights, x))


def relative(ours, theirs) -> float:
  """Largest difference over the largest value."""
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  assert ours.shape == theirs.shape
  return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def training_step(model, x: np.ndarray):
  """Gradients of the mean square output, and weights after the step.

  Returns:
    Two dicts by (layer name, weight name): gradients, and statistics.
  """

  # Optimised: else the gradients of the largest run for minutes.
  @functools.partial(
    jax.jit, compiler_options={'xla_backend_optimization_level': 3}
  )
  def step(trainable, rest, x):
    def loss(trainable):
      y, after = model.stateless_call(trainable, rest, x, training=True)
      return jnp.square(y).mean(), after

    return jax.grad(loss, has_aux=True)(trainable)

  trainable = [v.value for v in model.trainable_variables]
  rest = [v.value for v in model.non_trainable_variables]
  with jax.numpy_rank_promotion('allow'):
    gradients, after = step(trainable, rest, x)
  names = {
    id(w): (layer.name, w.name) for layer in model.layers for w in layer.weights
  }
  return tuple(
    {
      names[id(v)]: np.asarray(value)
      for v, value in zip(variables, values, strict=True)
    }
    for variables, values in (
      (model.trainable_variables, gradients),
      (model.non_trainable_variables, after),
    )
  )
