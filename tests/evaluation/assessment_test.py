"""What a test part says: every score has an interval, and is its own score."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import special
from sklearn import metrics

from leukemia_jax.evaluation import assessment
from leukemia_jax.evaluation.assessment import IntervalGroups, Outcomes
from leukemia_jax.metrics import bootstrap, classification, segmentation
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.workdir import result

NAMES = ('Benign', 'Early', 'Pre')


def drawn(count=300, num_groups=30):
  rng = np.random.default_rng(0)
  group = rng.integers(0, num_groups, count)
  truth = group % 3
  logits = rng.normal(0, 1, (count, 3)) + 2 * np.eye(3)[truth]
  logits += rng.normal(0, 1, (num_groups, 3))[group]
  probabilities = special.softmax(logits, 1).astype(np.float32)
  losses = -np.log(probabilities[np.arange(count), truth])
  groups = bootstrap.make_groups(group, truth)
  over = IntervalGroups(groups, 'patient', jax.random.key(0))
  predicted = probabilities.argmax(1)
  return Outcomes(truth, predicted, probabilities, losses, 1.5, 40), over


def test_every_score_of_classes_has_an_interval_that_holds_it():
  outcomes, over = drawn()
  rng, count = np.random.default_rng(3), len(outcomes.truth)
  flags = rng.random((3, count)) < np.array([0.1, 0.9, 0.2])[:, None]
  limits = assessment.LimitOutcomes(Rates(0.05, 0.95), *flags)
  outcomes = outcomes._replace(limits=limits)
  got = assessment.of_classes(outcomes, over, NAMES, 'Benign')
  truth, predicted = outcomes.truth, outcomes.predicted
  scores = classification.scores(
    metrics.confusion_matrix(truth, predicted),
    outcomes.losses.sum(),
    NAMES,
    'Benign',
  )
  record = {
    'test': dataclasses.asdict(scores),
    'ranking': dataclasses.asdict(got.ranking),
    'calibration': dataclasses.asdict(got.calibration),
    'limits': dataclasses.asdict(got.limits),
  }
  assert record['limits'].pop('rates') == dataclasses.asdict(limits.rates)
  assert list(record['limits'].values()) == pytest.approx(flags.mean(1))
  flat, ends = {}, got.intervals.ends

  def walk(content, prefix):
    for name, value in content.items():
      if isinstance(value, dict):
        walk(value, f'{prefix}{name}.')
      elif isinstance(value, float):
        flat[prefix + name] = value

  walk(record, '')
  assert flat.pop('calibration.temperature') == 1.5
  # Where no sample differs, nothing is known.
  assert set(ends) <= set(flat)
  # The lowest of several, and what is never below zero, mislead.
  without = {'test.worst_class_recall', 'calibration.scaled.confident_accuracy'}
  for kind in ('raw', 'scaled'):
    without |= {f'calibration.{kind}.{e}' for e in ('error', 'error_by_chance')}
  assert without - {'calibration.scaled.confident_accuracy'} <= (
    set(flat) - set(ends)
  )
  assert set(flat) - set(ends) <= without
  assert len(flat) > 30
  for name, (low, high) in ends.items():
    assert low <= flat[name] <= high, name
    # Scores that can't leave 0..1 don't.
    if 'loss' not in name and 'brier' not in name:
      assert low >= 0 and high <= 1, name
  assert (got.intervals.groups, got.intervals.group) == (30, 'patient')
  assert flat['ranking.by_class.Pre.roc_auc'] == pytest.approx(
    metrics.roc_auc_score(truth == 2, outcomes.probabilities[:, 2])
  )
  assert flat['ranking.malignant.average_precision'] == pytest.approx(
    metrics.average_precision_score(
      truth != 0, 1 - outcomes.probabilities[:, 0].astype(float)
    )
  )
  assert flat['calibration.raw.loss'] == pytest.approx(scores.loss, rel=1e-5)
  # As they are stored and read again.
  for own in got:
    stored = result.to_json(own)
    assert result.from_json(stored, type(own), '') == own


def test_without_benign_class_temperature_or_confidence():
  outcomes, over = drawn()
  flat = np.full_like(outcomes.probabilities, 1 / 3)
  outcomes = outcomes._replace(probabilities=flat, temperature=None)
  got = assessment.of_classes(outcomes, over, NAMES, '')
  assert got.ranking.malignant is None
  assert got.calibration.scaled is None
  assert got.calibration.raw.confident_accuracy is None
  assert got.ranking.by_class['Early'].roc_auc == pytest.approx(0.5)


def test_names_with_dots():
  outcomes, over = drawn()
  got = assessment.of_classes(outcomes, over, ('a', 'a.b', '|'), '|')
  assert set(got.ranking.by_class) == {'a', 'a.b', '|'}
  assert 'ranking.by_class.a.b.roc_auc' in got.intervals.ends


def test_a_class_that_the_test_part_lacks():
  outcomes, over = drawn()
  kept = outcomes.truth < 2
  outcomes = Outcomes(
    *(outcomes.truth[kept], outcomes.predicted[kept]),
    *(outcomes.probabilities[kept], outcomes.losses[kept], 1.5, 40),
  )
  groups = bootstrap.make_groups(over.groups.of_image[kept], outcomes.truth)
  got = assessment.of_classes(
    outcomes, over._replace(groups=groups), NAMES, 'Benign'
  )
  assert set(got.ranking.by_class) == {'Benign', 'Early'}
  assert 'test.balanced_accuracy' in got.intervals.ends
  assert 'test.by_class.Early.recall' in got.intervals.ends
  assert 'test.by_class.Pre.recall' not in got.intervals.ends


def test_scores_over_classes_need_each_of_them():
  # A class of one group, as good as the mean of the others: without it the mean
  # is the same, and so is the least.
  truth = np.repeat([0, 1, 2], 40)
  group = np.concatenate([np.zeros(40, int), 1 + np.arange(80) // 10])
  rights = (6, 8, 6, 8, 8, 10, 8, 10)
  is_right = np.concatenate(
    [np.arange(40) < 32, *(np.arange(10) < count for count in rights)]
  )
  predicted = np.where(is_right, truth, (truth + 1) % 3)
  probabilities = np.eye(3)[predicted]
  groups = bootstrap.make_groups(group, truth)
  over = IntervalGroups(groups, 'patient', jax.random.key(0))
  got = assessment.of_classes(
    Outcomes(truth, predicted, probabilities, 1.0 - is_right), over, NAMES, ''
  )
  ends = got.intervals.ends
  for name in ('balanced_accuracy', 'worst_class_recall', 'macro_f1'):
    assert f'test.{name}' not in ends
  assert 'test.by_class.Benign.recall' not in ends


def test_masks():
  rng = np.random.default_rng(0)
  truth = rng.random((24, 20, 20)) < 0.4
  predicted = truth ^ (rng.random(truth.shape) < 0.1)
  truth[3] = False  # No distance between these.
  counted = segmentation.counts(truth, predicted)
  images = [
    segmentation.image_scores(*pair, smallest=2)
    for pair in zip(truth, predicted, strict=True)
  ]
  groups = bootstrap.make_groups(np.arange(24) // 2, np.arange(24) // 2 % 2)
  over = IntervalGroups(groups, 'patient', jax.random.key(0))
  ends = assessment.of_masks(counted, images, over).intervals.ends
  summary = dataclasses.asdict(segmentation.summary(counted, images))
  scores = {
    f'test.{name}': value
    for name, value in summary.items()
    if isinstance(value, float)
  }
  # Distances of one pixel in every image do not vary.
  assert set(scores) - set(ends) == {'test.hausdorff_95'}
  for name in scores.keys() & ends.keys():
    assert ends[name][0] <= scores[name] <= ends[name][1], name
