"""What classifiers say together, and how they prepare what they look at."""

import jax
import numpy as np
import pytest
from PIL import Image

from leukemia_jax.data import decode
from leukemia_jax.errors import InputError
from leukemia_jax.inference import classifier, scale
from leukemia_jax.inference.classifier import Classifier
from leukemia_jax.inference.inputs import Image as Input
from leukemia_jax.metrics.outliers import Detector
from leukemia_jax.transforms.colour import Removal

NAMES = ('a', 'b', 'c')


def made(**fields):
  detector = Detector(np.zeros((1, 2)), np.eye(2))
  own = Classifier(NAMES, 8, None, None, None, 1.0, detector, 2.0, 0.2)
  return own._replace(**fields)


PROBABILITIES = np.float32([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [1, 0, 0]])
FEATURES = np.float32([[0, 1.9], [0, 2.1], [3, 4]])


def test_one_classifier():
  got = classifier.answer([made()], [(PROBABILITIES, FEATURES)])
  np.testing.assert_allclose(got.probabilities, PROBABILITIES, atol=1e-6)
  plain = PROBABILITIES.astype(float)
  entropy = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in plain]
  np.testing.assert_allclose(got.entropy, entropy, atol=1e-6)
  assert got.unlike.tolist() == [False, True, True]
  assert got.uncertain.tolist() == [True, False, False]


def test_a_temperature_makes_it_less_sure():
  hot = classifier.answer([made(temperature=3.0)], [(PROBABILITIES, FEATURES)])
  assert (hot.entropy[:2] > 0.5).all()
  logits = np.log(PROBABILITIES[0].astype(float)) / 3
  expected = np.exp(logits) / np.exp(logits).sum()
  np.testing.assert_allclose(hot.probabilities[0], expected, rtol=1e-5)


def test_several_are_averaged():
  other = PROBABILITIES[::-1]
  both = [(PROBABILITIES, FEATURES), (other, np.zeros((3, 2)))]
  got = classifier.answer([made(), made(farthest=1.0)], both)
  np.testing.assert_allclose(
    got.probabilities, (PROBABILITIES + other) / 2, atol=1e-6
  )
  assert got.unlike.tolist() == [False, False, True]
  apart = [made(), made(class_names=('a', 'c', 'b'))]
  with pytest.raises(InputError, match='second knows the classes a, c, b'):
    classifier.check_alike(apart, ['first', 'second'])


def test_without_enough_validation_images_nothing_is_unlike():
  got = classifier.answer(
    [made(farthest=np.inf, least=0.0)], [(PROBABILITIES, FEATURES)]
  )
  assert not got.unlike.any() and got.uncertain.all()


@pytest.mark.parametrize('size', [50, 112])
def test_small_scales_are_mirrored_around(smear, size):
  image = Image.fromarray(smear)
  for factor in (0.1, 0.34, 0.5, 1, 1.5):
    pixels = decode.to_scale(image, size, factor)
    inner = round(size * factor)
    assert pixels.shape == (max(size, inner),) * 2 + (3,)
    at = max(0, size - inner) // 2
    np.testing.assert_array_equal(
      pixels[at : at + inner, at : at + inner], decode.to_size(image, inner)
    )
  # No colour that isn't in the image.
  mirrored = decode.to_scale(image, size, 0.5).reshape(-1, 3)
  known = {tuple(p) for p in decode.to_size(image, size // 2).reshape(-1, 3)}
  assert {tuple(p) for p in mirrored} <= known


def test_scale_is_measured_of_what_can_be_read(smear, tmp_path):
  def saved(pixels, name):
    Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    return Input(name, (tmp_path / f'{name}.png').read_bytes)

  def fail():
    raise OSError('gone')

  from leukemia_jax.metrics import magnification

  removal = Removal(hide_corners=True, neutral_background=True)
  squares = [decode.to_size(Image.fromarray(smear), 96)]
  spectrum = magnification.mean_spectrum(squares).tolist()
  reference = scale.Reference(spectrum, 96, removal, decode.DEFAULT)
  images = [saved(smear, 'a'), Input('b', fail), saved(smear[::-1], 'c')]
  got = scale.measure(images, reference)
  assert got == scale.Measured(1.0, 2, True)
  middle = saved(smear[56:168, 56:168], 'd')
  got = scale.measure([middle], reference)
  assert 0.4 <= got.scale <= 0.6 and got.is_known
  noise = np.asarray(
    jax.random.randint(jax.random.key(0), (96, 96, 3), 0, 256), np.uint8
  )
  got = scale.measure([saved(noise, 'e')], reference)
  assert got == scale.Measured(1.0, 1, False)
  got = scale.measure([Input('b', fail)], reference)
  assert got == scale.Measured(1.0, 0, False)
