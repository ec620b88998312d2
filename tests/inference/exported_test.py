"""Models as files: the same answers without this package."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from conftest import drawn

from leukemia_jax import models
from leukemia_jax.errors import InputError
from leukemia_jax.inference import exported
from leukemia_jax.inference.classifier import Classifier
from leukemia_jax.inference.exported import Portable
from leukemia_jax.inference.segmenter import Segmenter
from leukemia_jax.metrics import calibration, outliers

SIZE = 16


def halves(images):
  """Whatever a model could answer."""
  light = images.astype(jnp.float32).mean((1, 2)) / 255
  return light, light > 0.5


PORTABLE = Portable(halves, SIZE, {'light': 'of channels', 'is_light': 'bool'})


def images(count: int, size: int = SIZE) -> np.ndarray:
  rng = np.random.default_rng(count)
  return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
  ('store', 'load'),
  [
    (exported.to_stablehlo, exported.run_stablehlo),
    pytest.param(exported.to_onnx, exported.run_onnx, marks=pytest.mark.full),
  ],
  ids=['stablehlo', 'onnx'],
)
def test_any_number_of_images_is_answered_alike(store, load):
  stored = load(store(PORTABLE))
  for count in (1, 3, 8):
    expected = halves(images(count))
    for own, theirs in zip(stored(images(count)), expected, strict=True):
      np.testing.assert_allclose(own, theirs, atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize('off', [2e-4, np.nan])
@pytest.mark.parametrize('place', [0, 1])
def test_a_file_that_answers_otherwise_is_refused(off, place):
  def twice(images):
    return halves(images)[0], halves(images)[0]

  def other(images):
    outputs = list(twice(images))
    outputs[place] += off
    return tuple(outputs)

  with pytest.raises(InputError, match=r'x\.bin differs from the model by'):
    exported.check(other, Portable(twice, SIZE, {}), 'x.bin')


@pytest.mark.full
def test_smears_are_of_the_asked_size_and_differ():
  smears = exported.smears(40)
  assert smears.shape == (8, 40, 40, 3) and smears.dtype == np.uint8
  assert len(np.unique(smears.reshape(8, -1), axis=0)) == 8


def test_a_classifier_has_its_temperature_and_its_limit_inside():
  rng = np.random.default_rng(0)
  features = rng.normal(2, 1, (60, 3)).astype(np.float32)
  # A channel that never fires.
  features[:, 2] = 0
  labels = np.arange(60) % 2
  detector = outliers.fit(features, labels)

  def step(variables, images):
    light = images.astype(jnp.float32).mean((1, 2)) / 64
    return jax.nn.softmax(variables * light[:, :2]), light

  own = Classifier(
    ('a', 'b'), SIZE, jnp.float32(5), step, step, 0.4, detector, 2.5, 0.9
  )
  got = exported.of_classifier(own).function(images(5))
  probabilities, light = step(own.variables, images(5))
  np.testing.assert_allclose(
    got[0],
    calibration.with_temperature(np.asarray(probabilities), 0.4),
    rtol=1e-5,
  )
  distances = outliers.distances(detector, np.asarray(light))
  np.testing.assert_allclose(got[1], distances / 2.5, rtol=1e-4)


def test_without_a_limit_nothing_is_unlike():
  detector = outliers.Detector(np.zeros((1, 3)), np.eye(3))

  def step(variables, images):
    return jnp.full((len(images), 2), 0.5), jnp.ones((len(images), 3)) * 99

  own = Classifier(
    ('a', 'b'), SIZE, None, step, step, 1.0, detector, np.inf, 0.9
  )
  _, distances = exported.of_classifier(own).function(images(2))
  np.testing.assert_array_equal(distances, [0, 0])


def test_a_segmenter_has_its_threshold_inside():
  def step(variables, images):
    return images.astype(jnp.float32)[..., 0] / 255

  own = Segmenter(SIZE, None, step, 0.3, 0.1)
  probabilities, masks = exported.of_segmenter(own).function(images(2))
  np.testing.assert_array_equal(masks, np.asarray(probabilities) > 0.3)


@pytest.mark.full
@pytest.mark.parametrize('name', models.NAMES)
def test_every_network_is_exported(name):
  fields = {'width': 0.05}
  if name in models.BACKBONES:
    fields |= {'blocks': (1, 1, 1)}
  model = models.create(name, num_classes=3, **fields)
  size = 75
  variables = drawn(model, jnp.zeros((1, size, size, 3)))

  def function(images):
    logits, _ = model.apply(
      variables, images.astype(jnp.float32) / 255, train=False
    )
    return jax.nn.softmax(logits), logits.argmax(-1) > 0

  portable = Portable(function, size, {'probabilities': '', 'is_first': ''})
  forms = [(exported.to_stablehlo, exported.run_stablehlo)]
  # NASNet-Mobile is of the same cells.
  if name != 'nasnet_large':
    forms.append((exported.to_onnx, exported.run_onnx))
  for store, load in forms:
    # The converter's own code promotes ranks.
    with jax.numpy_rank_promotion('allow'):
      content = store(portable)
    stored = load(content)
    assert exported.check(stored, portable, name).largest_difference <= 1e-4
    if (name, store) == ('inception_resnet_v2', exported.to_onnx):
      check_simple(content)


def check_simple(content: bytes) -> None:
  """Convolutions hold their batch norms, in one layout."""
  model = onnx.load_from_string(content)
  assert [own.domain for own in model.opset_import] == ['']
  operators = collections.Counter(node.op_type for node in model.graph.node)
  assert operators['Conv'] == operators['Relu'] > 40
  # At the images, and at the features.
  assert operators['Transpose'] == 2
  assert operators['Mul'] + operators['Add'] <= operators['Conv'] / 4
