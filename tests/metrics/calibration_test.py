"""Calibration by its definitions, by scikit-learn, and by a known answer."""

import dataclasses

import numpy as np
import pytest
from scipy import special
from sklearn import metrics
from sklearn.calibration import calibration_curve

from leukemia_jax.metrics import calibration


def drawn(count=4000, temperature=1.0):
  """Labels drawn from probabilities, and those `temperature` times too sure."""
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (count, 3))
  probabilities = special.softmax(logits, 1)
  truth = (rng.random((count, 1)) > probabilities.cumsum(1)).sum(1)
  return special.softmax(logits * temperature, 1), truth


def scores(probabilities, truth):
  totals = calibration.sums(probabilities, truth).sum(0)
  return {n: v[0] for n, v in calibration.of_sums(totals[None]).items()}


def test_scores_by_their_definitions():
  probabilities, truth = drawn(500)
  got = scores(probabilities, truth)
  assert {*got, 'error_by_chance'} == {
    field.name for field in dataclasses.fields(calibration.CalibrationScores)
  }
  assert got['loss'] == pytest.approx(metrics.log_loss(truth, probabilities))
  assert got['brier'] == pytest.approx(
    ((probabilities - np.eye(3)[truth]) ** 2).sum(1).mean()
  )
  confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
  error = 0.0
  for low in np.arange(calibration.BINS) / calibration.BINS:
    chosen = (confidence >= low) & (confidence < low + 1 / calibration.BINS)
    if chosen.any():
      gap = confidence[chosen].mean() - correct[chosen].mean()
      error += chosen.mean() * abs(gap)
  assert got['error'] == pytest.approx(error)
  sure = confidence >= 0.9
  assert got['confident'] == pytest.approx(sure.mean())
  assert got['confident_accuracy'] == pytest.approx(correct[sure].mean())


def test_right_probabilities_stay_below_chance_as_often_as_is_said():
  probabilities, _ = drawn(200)
  limit = calibration.error_by_chance(np.random.default_rng(1), probabilities)
  rng, below = np.random.default_rng(2), []
  for _ in range(500):
    truth = (rng.random((200, 1)) > probabilities.cumsum(1)).sum(1)
    below.append(scores(probabilities, truth)['error'] <= limit)
  assert 0.92 < np.mean(below) < 0.98
  sure, truth = drawn(200, temperature=3)
  limit = calibration.error_by_chance(np.random.default_rng(1), sure)
  assert scores(sure, truth)['error'] > 1.5 * limit


def test_reliability_is_scikit_learns():
  probabilities, truth = drawn(500)
  diagram = calibration.reliability(probabilities, truth)
  confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
  accuracy, mean = calibration_curve(
    correct, confidence, n_bins=calibration.BINS
  )
  used = diagram.images > 0
  assert diagram.accuracy[used] == pytest.approx(accuracy)
  assert diagram.confidence[used] == pytest.approx(mean)
  assert diagram.images.sum() == 500


@pytest.mark.parametrize('too_sure', [0.5, 1.0, 3.0])
def test_the_temperature_is_that_of_the_drawing(too_sure):
  probabilities, truth = drawn(temperature=too_sure)
  temperature = calibration.fit_temperature(probabilities, truth)
  assert temperature == pytest.approx(too_sure, rel=0.06)
  mended = calibration.with_temperature(probabilities, temperature)
  assert scores(mended, truth)['error'] < 0.025
  if too_sure > 1:
    assert scores(probabilities, truth)['error'] > 0.1


def test_images_that_are_all_correct_do_not_make_it_sure():
  probabilities = np.array([[0.7, 0.3], [0.4, 0.6]])
  temperature = calibration.fit_temperature(probabilities, np.array([0, 1]))
  assert 0.5 < temperature < 1


def test_certain_probabilities_have_a_temperature():
  probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
  temperature = calibration.fit_temperature(probabilities, np.array([0, 1, 1]))
  mended = calibration.with_temperature(probabilities, temperature)
  assert np.isfinite(mended).all()
  assert mended.sum(1) == pytest.approx([1, 1, 1])
