"""Folds together: scores of each, of all, and the interval over groups."""

import numpy as np
import pytest
from sklearn import metrics

from leukemia_jax.evaluation import cross_validation
from leukemia_jax.metrics import statistics

NAMES = ('a', 'b', 'c')


def drawn(count=400, groups=30):
  rng = np.random.default_rng(0)
  group = rng.integers(0, groups, count)
  truth = group % 3
  # Groups differ in how often they are predicted correctly.
  correct = rng.random(count) < np.linspace(0.4, 1, groups)[group]
  predicted = np.where(correct, truth, (truth + 1) % 3)
  rows = [
    {'true_class': NAMES[t], 'predicted_class': NAMES[p]}
    for t, p in zip(truth, predicted, strict=True)
  ]
  return rows, truth, predicted, group, rng.integers(0, 4, count)


def summarised(rows, folds, groups):
  return cross_validation.summarise(
    np.random.default_rng(0),
    cross_validation.classes(rows, NAMES),
    folds=folds,
    groups=[str(group) for group in groups],
    group='patient',
  )


def test_scores_of_folds_are_scikit_learns():
  rows, truth, predicted, group, folds = drawn()
  record = summarised(rows, folds, group)
  expected = [
    metrics.balanced_accuracy_score(truth[folds == i], predicted[folds == i])
    for i in range(4)
  ]
  assert record.scores['balanced_accuracy'] == pytest.approx(expected)
  assert record.mean['balanced_accuracy'] == pytest.approx(np.mean(expected))
  spread = record.standard_deviation['balanced_accuracy']
  assert spread == pytest.approx(np.std(expected, ddof=1))
  assert record.pooled['macro_f1'] == pytest.approx(
    metrics.f1_score(truth, predicted, average='macro')
  )
  assert record.pooled['accuracy'] == pytest.approx((truth == predicted).mean())
  assert (record.folds, record.groups, record.group) == (4, 30, 'patient')


def test_the_interval_is_that_of_drawing_groups():
  rows, truth, predicted, group, folds = drawn()
  record = summarised(rows, folds, group)
  # By brute force: draw groups of each class, take their images, score.
  rng = np.random.default_rng(1)
  scores = []
  for _ in range(1000):
    chosen = np.concatenate(
      [rng.choice(np.arange(c, 30, 3), 10) for c in range(3)]
    )
    taken = np.concatenate([np.flatnonzero(group == g) for g in chosen])
    scores.append(
      metrics.balanced_accuracy_score(truth[taken], predicted[taken])
    )
  low, high = record.interval_95['balanced_accuracy']
  assert low == pytest.approx(np.quantile(scores, 0.025), abs=0.015)
  assert high == pytest.approx(np.quantile(scores, 0.975), abs=0.015)
  # Of images instead of groups it would be far too narrow.
  images = summarised(rows, folds, np.arange(len(rows)))
  alone = images.interval_95['balanced_accuracy']
  assert high - low > 1.3 * (alone[1] - alone[0])


def test_masks():
  rows = [{'dice': str(d)} for d in (0.5, 1.0, 0.0, 0.9)]
  record = cross_validation.summarise(
    np.random.default_rng(0),
    cross_validation.masks(rows),
    folds=np.array([0, 0, 1, 1]),
    groups=['p', 'p', 'q', 'r'],
    group='patient',
  )
  assert record.scores['mean_dice'] == pytest.approx([0.75, 0.45])
  assert record.pooled['mean_dice'] == pytest.approx(0.6)
  low, high = record.interval_95['mean_dice']
  assert 0 <= low < 0.6 < high <= 0.9


def test_one_group_has_no_interval():
  low, high = statistics.group_interval(
    np.random.default_rng(0),
    np.ones((1, 2)),
    lambda s: s[:, 0],
    strata=np.zeros(1, int),
  )
  assert np.isnan(low) and np.isnan(high)
