"""Explanations: what must add up, what must be at the ends, where heat lies."""

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from leukemia_jax import models
from leukemia_jax.inference import explain
from leukemia_jax.models.layers import FIRST_STAGE, FIRST_STAGE_STRIDE

SIZE = 16


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  pixels = np.full((3, SIZE, SIZE, 3), 240, np.uint8)
  for i in range(3):
    pixels[i, 4 : 8 + i, 5:9] = rng.integers(0, 120, 3)
  return jnp.asarray(pixels)


LABELS = jnp.array([0, 1, 1])
_MIXING = np.random.default_rng(1).normal(size=(SIZE, SIZE, 3, 2)) / 4000


def linear(values):
  return jnp.einsum('bhwc,hwck->bk', values, _MIXING.astype(np.float32))


def curved(values):
  return jnp.tanh(linear(values)) + linear(jnp.square(values) / 255)


def empty_like(images):
  from leukemia_jax.transforms import colour

  light = jax.vmap(colour.background_colour)(images)
  return jnp.broadcast_to(light[:, None, None], images.shape)


def own(values):
  return np.asarray(jnp.take_along_axis(values, LABELS[:, None], 1)[:, 0])


def test_integrated_gradients_of_a_linear_function_are_exact(images):
  got = explain.integrated_gradients(linear, images, LABELS, steps=1)
  difference = images.astype(jnp.float32) - empty_like(images)
  weight = np.moveaxis(_MIXING, -1, 0)[np.asarray(LABELS)]
  np.testing.assert_allclose(got, difference * weight, rtol=1e-4, atol=1e-6)


def test_integrated_gradients_add_up_to_the_difference(images):
  got = explain.integrated_gradients(curved, images, LABELS, steps=64)
  added = own(curved(images.astype(jnp.float32))) - own(
    curved(empty_like(images))
  )
  np.testing.assert_allclose(got.sum((1, 2, 3)), added, atol=1e-3)


@pytest.mark.parametrize('insert', [False, True])
def test_curves_lead_from_the_image_to_nothing(images, insert):
  heat = jax.random.uniform(jax.random.key(0), images.shape[:3])
  got = explain.curve(curved, images, LABELS, heat, steps=5, insert=insert)
  assert got.shape == (3, 6)
  whole = own(jax.nn.softmax(curved(images.astype(jnp.float32))))
  nothing = own(jax.nn.softmax(curved(empty_like(images))))
  ends = (nothing, whole) if insert else (whole, nothing)
  np.testing.assert_allclose(got[:, 0], ends[0], rtol=1e-5)
  np.testing.assert_allclose(got[:, -1], ends[1], rtol=1e-5)


def test_the_hottest_pixels_go_first(images):
  heat = np.zeros(images.shape[:3])
  heat[:, 4:8, 5:9] = 1  # a sixteenth of the pixels
  got = explain.curve(curved, images[:1], LABELS[:1], heat[:1], steps=16)
  values = np.array(images[:1], np.float32)
  values[:, 4:8, 5:9] = empty_like(images)[:1, 4:8, 5:9]
  expected = jax.nn.softmax(curved(values))[0, 0]
  assert float(got[0, 1]) == pytest.approx(float(expected), rel=1e-5)


def test_concentration_by_hand():
  heat = jnp.array([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
  mask = jnp.array([[[True, False], [False, False]]] * 2)
  assert explain.concentration(heat, mask).tolist() == [2.0, 1.0]


@pytest.mark.full
@pytest.mark.parametrize('name', models.BACKBONES)
def test_backbones_have_a_first_stage(name):
  model = models.create(name, num_classes=3, width=0.1, blocks=(1, 1, 1))
  images = jnp.zeros((2, 96, 96, 3))
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  assert set(variables) == {'params', 'batch_stats'}
  logits, features = jax.eval_shape(
    lambda v: models.apply_with_features(model, v, images), variables
  )
  assert logits.shape == (2, 3) and features.ndim == 2
  heat = jax.eval_shape(
    lambda v: explain.hires_cam(
      model, v, images, jnp.array([0, 1]), preprocessing='unit'
    ),
    variables,
  )
  assert heat.shape == (2, 96, 96)


@pytest.mark.full
@pytest.mark.parametrize('side', [224, 230])
@pytest.mark.parametrize('name', ['inception_resnet_v2', 'nasnet_mobile'])
def test_a_pixel_of_the_first_stage_looks_where_it_is_said(name, side):
  model = models.create(
    name, num_classes=0, width=0.1, blocks=(1, 1, 1)
  ).backbone
  # Different pixels, so that maxima have no ties.
  images = jax.random.uniform(jax.random.key(0), (2, side, side, 3))
  # Positive kernels, so that nothing cancels out, and symmetric ones.
  variables = jax.tree.map(
    lambda v: (v + v[::-1, ::-1]) / 2 if v.ndim == 4 else v,
    conftest.drawn(model, images),
  )
  first = model.first_centre(side)
  place = round(((side - 1) / 2 - first) / FIRST_STAGE_STRIDE)

  def middle(x):
    _, taps = model.apply(variables, x, train=False, mutable=['intermediates'])
    (features,) = taps['intermediates'][FIRST_STAGE]
    return features[:, place, place].sum()

  weight = np.abs(jax.grad(middle)(images)).sum((0, 2, 3))
  centre = (weight * np.arange(side)).sum() / weight.sum()
  assert centre == pytest.approx(first + FIRST_STAGE_STRIDE * place, abs=0.3)


@pytest.mark.full
def test_heat_is_the_gradient_at_the_first_stage():
  model = models.create(
    'inception_resnet_v2', num_classes=3, blocks=(1, 1, 1), width=0.05
  )
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.integers(0, 256, (2, 96, 96, 3), dtype=np.uint8))
  variables = model.init(
    jax.random.key(0), jnp.zeros((1, 96, 96, 3)), train=False
  )
  labels = jnp.array([2, 0])
  look = jax.jit(
    lambda *args: explain.hires_cam(model, *args, preprocessing='unit')
  )
  heat = look(variables, images, labels)
  assert heat.shape == (2, 96, 96) and heat.dtype == jnp.float32
  assert float(heat.max()) == pytest.approx(1, abs=1e-6)
  # It is a function of each image alone.
  turned = look(variables, images[::-1], labels[::-1])
  np.testing.assert_allclose(turned[::-1], heat, atol=1e-4)
  # A shift of the stage's features moves the logit as the gradient says.
  scaled = images[:1] / 255
  (logits, _), taps = model.apply(
    variables, scaled, train=False, mutable=['intermediates']
  )
  (features,) = taps['intermediates']['backbone'][FIRST_STAGE]

  @jax.jit
  def shifted(shift):
    tap = {'backbone': {FIRST_STAGE: shift}}
    return model.apply(
      {**variables, 'perturbations': tap}, scaled, train=False
    )[0][0, 2]

  zero = jnp.zeros_like(features)
  gradient = jax.grad(shifted)(zero)
  # The map is their product, where the stage's pixels look.
  stage = jax.nn.relu((gradient * features).sum(-1))[0]
  centre = model.backbone.first_centre(96)
  places = centre + FIRST_STAGE_STRIDE * np.arange(stage.shape[0])
  expected = scipy.ndimage.map_coordinates(
    stage,
    np.meshgrid(
      *[(np.arange(96) - places[0]) / FIRST_STAGE_STRIDE] * 2, indexing='ij'
    ),
    order=1,
    mode='nearest',
  )
  inside = slice(int(places[0]) + 1, int(places[-1]))
  np.testing.assert_allclose(
    heat[0][inside, inside] / heat[0][inside, inside].max(),
    expected[inside, inside] / expected[inside, inside].max(),
    atol=1e-4,
  )
  assert float(shifted(zero)) == pytest.approx(float(logits[0, 2]), rel=1e-5)
  direction = jnp.asarray(rng.normal(size=features.shape), jnp.float32)
  slope = jnp.vdot(gradient, direction)
  # Small, for the kinks of ReLUs.
  step = 1e-4
  numeric = (shifted(step * direction) - shifted(-step * direction)) / 2 / step
  assert float(slope) == pytest.approx(float(numeric), rel=0.1, abs=5e-3)


def test_overlays_are_grey_where_it_is_cold():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
  heat = np.zeros((20, 30))
  heat[5:9, 5:9] = 1
  drawn_over = explain.overlay(image, heat).astype(int)
  assert drawn_over.shape == image.shape
  spread = np.ptp(drawn_over, -1)
  assert spread[heat == 0].max() <= 3 < spread[heat == 1].min()
