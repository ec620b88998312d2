"""The training step: order of data, weights of samples, pieces of a batch."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, KEY, NETWORK, SIZE, data, parts

from leukemia_jax import models
from leukemia_jax.build import Network
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.metrics import losses, segmentation
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import TrainState, init_state
from leukemia_jax.training.step import (
  compiler_options,
  epoch_order,
  make_train_step,
  repeat_step,
)


def test_steps_in_one_call_are_steps_in_a_row():
  state, step, _ = parts()
  order = epoch_order(KEY, 0, jnp.arange(40), batch_size=16)
  args = (KEY, data(), *order)
  looped, reported = jax.jit(repeat_step(step, 3))(state, *args)
  assert reported.loss.shape == reported.accuracy.shape == (3,)
  one = jax.jit(repeat_step(step, 1))
  for i in range(3):
    state, single = one(state, *args)
    assert float(reported.loss[i]) == pytest.approx(
      float(single.loss[0]), rel=1e-4
    )
  assert int(looped.step) == int(state.step) == 3
  np.testing.assert_allclose(looped.sums, state.sums, rtol=1e-4)


def test_epoch_order_is_a_permutation_of_key_and_epoch():
  rows = jnp.arange(100, 145, dtype=jnp.int32)
  order = functools.partial(epoch_order, KEY, indices=rows, batch_size=16)
  one, weights = order(0)
  assert one.shape == weights.shape == (3, 16)
  counted = np.asarray(one)[np.asarray(weights) > 0]
  np.testing.assert_array_equal(np.sort(counted), rows)
  np.testing.assert_array_equal(one, order(0)[0])
  assert (np.asarray(one) != np.asarray(order(1)[0])).any()
  # The last batch is filled up with real images, at no weight.
  assert set(np.asarray(one).ravel()) <= set(np.asarray(rows).tolist())


@pytest.mark.full
def test_jit_is_eager():
  state, step, _ = parts()
  rows = jnp.arange(16).reshape(1, 16)
  weights = jnp.ones((1, 16))
  eager, one = step(state, KEY, data(), rows, weights)
  compiled, same = jax.jit(step)(state, KEY, data(), rows, weights)
  assert float(one.loss) == pytest.approx(float(same.loss), rel=1e-5)
  # Adam's first steps are of one size, whichever sign rounding gives a
  # gradient near zero: compare moments, not parameters.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    eager.opt_state,
    compiled.opt_state,
  )


def test_images_at_no_weight_do_not_train():
  """Frozen statistics aside, a filled-up batch equals the smaller batch."""
  model, tx = nn.Dense(CLASSES), make_optimizer(False)

  def apply_fn(variables, images, train, mutable=(), rngs=None):
    flat = images.reshape(len(images), -1)
    out = model.apply({'params': variables['params']}, flat), {}
    return (out, {'batch_stats': {}}) if mutable else out

  network = NETWORK._replace(model=types.SimpleNamespace(apply=apply_fn))
  step = jax.jit(make_train_step(network, tx=tx, augment=None))
  params = model.init(KEY, jnp.zeros((1, SIZE * SIZE * 3)))['params']
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats={},
    opt_state=tx.init(params),
    learning_rate=jnp.float32(0.1),
    sums=jnp.zeros(3),
  )
  rows = jnp.arange(8)[None]
  weights = (jnp.arange(8) < 5).astype(jnp.float32)[None]
  filled, one = step(state, KEY, data(), rows, weights)
  small, same = step(state, KEY, data(), rows[:, :5], weights[:, :5])
  assert float(one.loss) == pytest.approx(float(same.loss), rel=1e-6)
  assert float(one.accuracy) == pytest.approx(float(same.accuracy))
  assert np.asarray(filled.sums).tolist() == pytest.approx(
    np.asarray(small.sums).tolist()
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
    filled.params,
    small.params,
  )


def test_a_frozen_backbone_is_not_moved():
  state, step, _ = parts(freeze=True)
  rows, weights = jnp.arange(16).reshape(1, 16), jnp.ones((1, 16))
  moved, _ = jax.jit(step)(state, KEY, data(), rows, weights)
  for one, other in zip(
    jax.tree.leaves(moved.params['backbone']),
    jax.tree.leaves(state.params['backbone']),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)
  head = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()),
    moved.params['Dense_0'],
    state.params['Dense_0'],
  )
  assert min(jax.tree.leaves(head)) > 0


def unet(width=0.0625, depth=1, **fields) -> Network:
  model = models.create(
    'unet', num_classes=1, width=width, depth=depth, **fields
  )
  return Network(
    model, 'unit', losses.mask_objective, segmentation.pixel_confusion, 2
  )


def mask_data() -> Dataset:
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
  masks = (images[..., :1] > 128).astype(np.uint8)
  return Dataset(
    jnp.asarray(images), jnp.zeros(16, jnp.int32), jnp.asarray(masks)
  )


@pytest.mark.full
@pytest.mark.parametrize(
  'accumulate', [2, pytest.param(8, marks=pytest.mark.full)]
)
def test_pieces_of_a_batch_make_the_same_step(accumulate):
  network = unet()
  model = network.model
  tx, dataset = make_optimizer(False), mask_data()
  state = init_state(KEY, model, tx, shape=(SIZE, SIZE, 3), learning_rate=1e-2)
  rows = jnp.arange(16).reshape(2, 8)
  # A last batch that is filled up.
  weights = jnp.ones((2, 8)).at[0, 5:].set(0)

  def paired_flip(key, image, mask):
    turned = jax.random.bernoulli(key)
    return tuple(jnp.where(turned, a[:, ::-1], a) for a in (image, mask))

  def after(accumulate):
    step = make_train_step(
      network, tx=tx, augment=paired_flip, accumulate=accumulate
    )
    return jax.jit(step)(state, KEY, dataset, rows, weights)

  (whole, one), (cut, other) = after(1), after(accumulate)
  np.testing.assert_allclose(one, other, rtol=1e-5)
  np.testing.assert_allclose(whole.sums, cut.sums, rtol=1e-5)
  # Adam's first step hides a gradient's size: compare its moments.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7),
    whole.opt_state,
    cut.opt_state,
  )


@pytest.mark.full
def test_pieces_and_rematerialisation_take_less_memory():
  images = np.zeros((32, 64, 64, 3), np.uint8)
  masks = jnp.zeros((32, 64, 64, 1), jnp.uint8)
  dataset = Dataset(jnp.asarray(images), jnp.zeros(32, jnp.int32), masks)
  rows, weights = jnp.arange(32)[None], jnp.ones((1, 32))

  def temporary(pieces=1, remat=False):
    network, tx = unet(depth=2, width=0.25, remat=remat), make_optimizer(False)
    state = init_state(
      KEY, network.model, tx, shape=(64, 64, 3), learning_rate=1e-2
    )
    step = make_train_step(network, tx=tx, augment=None, accumulate=pieces)
    compiled = (
      jax.jit(step, compiler_options=compiler_options('unet', pieces))
      .lower(state, KEY, dataset, rows, weights)
      .compile()
    )
    return compiled.memory_analysis().temp_size_in_bytes

  whole = temporary()
  assert temporary(pieces=4) < 0.4 * whole
  assert temporary(pieces=16) < 0.2 * whole
  assert temporary(remat=True) < 0.8 * whole


@pytest.mark.full
def test_batch_norms_see_one_piece_after_the_other():
  network = unet(batch_norm=True)
  model = network.model
  tx, dataset = make_optimizer(False), mask_data()
  state = init_state(KEY, model, tx, shape=(SIZE, SIZE, 3), learning_rate=1e-2)
  step = make_train_step(network, tx=tx, augment=None, accumulate=2)
  rows = jnp.arange(8).reshape(1, 8)
  got, _ = jax.jit(step)(state, KEY, dataset, rows, jnp.ones((1, 8)))

  def loss(params, batch_stats, piece):
    images = dataset.images[piece].astype(jnp.float32) / 255
    (logits, _), updated = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    each, _ = losses.mask_objective(logits, dataset.masks[piece])
    return each.sum() / 8, updated['batch_stats']

  gradient = jax.jit(jax.grad(loss, has_aux=True))
  first, stats = gradient(state.params, state.batch_stats, rows[0, ::2])
  second, stats = gradient(state.params, stats, rows[0, 1::2])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    got.batch_stats,
    stats,
  )
  jax.tree.map(
    lambda mu, a, b: np.testing.assert_allclose(
      mu, 0.1 * (a + b), rtol=1e-3, atol=1e-7
    ),
    got.opt_state.mu,
    first,
    second,
  )
