"""Folds together: each image once, by the model that never saw it."""

import dataclasses
import statistics

import jax
import numpy as np
import pytest
from sklearn import metrics

from leukemia_jax.evaluation import assessment, cross_validation
from leukemia_jax.evaluation.assessment import IntervalGroups
from leukemia_jax.metrics import bootstrap, calibration, segmentation
from leukemia_jax.reporting import mask_page
from leukemia_jax.workdir import result
from reproduce import stored as results

NAMES = ('Benign', 'Early', 'Pre', 'Pro')


def fold(temperature):
  """A run's result with a temperature."""
  stored = results.read('synthetic') | {
    'calibration': {
      'raw': {'error': 0.1, 'brier': 0.2, 'loss': 0.3, 'confident': 0.4},
      'temperature': temperature,
    }
  }
  stored['calibration']['raw']['confident_accuracy'] = 0.5
  return result.from_json(stored, result.Result, '')


def over(count):
  groups = bootstrap.make_groups(np.arange(count) // 4, np.arange(count) % 2)
  return IntervalGroups(groups, 'patient', jax.random.key(0))


def test_classes():
  rng = np.random.default_rng(0)
  truth = rng.integers(0, 4, 80)
  probabilities = rng.dirichlet(np.ones(4), 80)
  probabilities[np.arange(80), truth] += 1
  probabilities /= 2
  predicted = probabilities.argmax(1)
  folds = rng.integers(0, 2, 80)
  rows = [
    {
      'part': f'fold_{folds[i]}',
      'true_class': NAMES[truth[i]],
      'predicted_class': NAMES[predicted[i]],
      'loss': str(-np.log(probabilities[i, truth[i]])),
    }
    | {f'p_{name}': str(probabilities[i, j]) for j, name in enumerate(NAMES)}
    for i in range(80)
  ]
  temperatures = np.array([0.5, 2.0])
  runs = [fold(value) for value in temperatures]
  better = dataclasses.replace(runs[0].test, accuracy=0.5)
  runs[0] = dataclasses.replace(runs[0], test=better)
  scores, assessed, shortcut = cross_validation.classes(
    rows, runs, over(80), 'Benign'
  )
  assert scores.balanced_accuracy == pytest.approx(
    metrics.balanced_accuracy_score(truth, predicted)
  )
  assert scores.loss == pytest.approx(metrics.log_loss(truth, probabilities))
  # Each fold's images have the temperature of its own model.
  mended = calibration.with_temperature(
    probabilities, temperatures[folds][:, None]
  )
  assert assessed.calibration.scaled.loss == pytest.approx(
    metrics.log_loss(truth, mended)
  )
  assert assessed.calibration.temperature is None
  joined = cross_validation.join(runs, scores, assessed, shortcut)
  own = [run.test.accuracy for run in runs]
  assert joined.cross_validation.scores['accuracy'] == own
  assert own[0] != own[1]
  for kind, value in (
    ('mean', statistics.mean(own)),
    ('standard_deviation', statistics.stdev(own)),
  ):
    got = getattr(joined.cross_validation, kind)['accuracy']
    assert got == pytest.approx(value)
  assert joined.test == scores
  assert joined.intervals == assessed.intervals
  # Nothing is left of the first fold alone.
  assert joined.limits is None and joined.data.spectrum is None


def test_masks():
  rng = np.random.default_rng(0)
  truth = rng.random((8, 9, 9)) < 0.5
  predicted = truth ^ (rng.random(truth.shape) < 0.1)
  counted = segmentation.counts(truth, predicted)
  names = 'true_positives false_positives false_negatives true_negatives'
  rows = [
    dict(zip(names.split(), map(str, own), strict=True)) for own in counted
  ]
  scores, assessed, _ = cross_validation.masks(rows, [], over(8), '')
  assert scores.dice == pytest.approx(
    metrics.f1_score(truth.ravel(), predicted.ravel())
  )
  assert scores == segmentation.pooled(counted)
  low, high = assessed.intervals.ends['test.dice']
  assert low < scores.dice < high


def test_masks_have_the_mean_of_the_folds_colour_rules(segmenter):
  first = result.read(segmenter)
  rule = first.baselines.colour_rule
  other = dataclasses.replace(rule, images=5, dice=rule.dice / 3)
  second = dataclasses.replace(
    first, baselines=dataclasses.replace(first.baselines, colour_rule=other)
  )
  assessed = assessment.Assessment(over(8).record({}))
  joined = cross_validation.join([first, second], first.test, assessed, None)
  got = joined.baselines.colour_rule
  assert got.images == rule.images + 5
  assert got.dice == pytest.approx(2 / 3 * rule.dice)
  assert got.mean_iou == pytest.approx(rule.mean_iou)
  assert joined.baselines.background.dice == first.baselines.background.dice
  said = mask_page.verdict(joined)[1]
  assert f'reaches {got.dice:.3f} on average over the folds' in said
