"""Two models on the same images against scikit-learn and brute force."""

import numpy as np
import pytest
from sklearn import metrics

from leukemia_jax.evaluation import comparison
from leukemia_jax.metrics import bootstrap, segmentation

NAMES = ('a', 'b', 'c')


def rows(truth, probabilities):
  return [
    {
      'true_class': NAMES[t],
      'predicted_class': NAMES[own.argmax()],
      'loss': '0',
    }
    | {f'p_{name}': str(p) for name, p in zip(NAMES, own, strict=True)}
    for t, own in zip(truth, probabilities, strict=True)
  ]


def drawn(count=300, num_groups=30):
  rng = np.random.default_rng(0)
  group = rng.integers(0, num_groups, count)
  truth = group % 3
  shared = rng.normal(0, 1, (count, 3)) + 1.5 * np.eye(3)[truth]
  both = [shared + rng.normal(0, spread, (count, 3)) for spread in (0.3, 0.9)]
  return truth, both, bootstrap.make_groups(group, truth), group


def test_classes():
  truth, both, groups, group = drawn()
  scores, paired = comparison.compare_classes(
    *(rows(truth, own) for own in both),
    *(NAMES, groups, np.random.default_rng(0)),
  )
  predicted = [own.argmax(1) for own in both]
  expected = [metrics.balanced_accuracy_score(truth, p) for p in predicted]
  got = scores['balanced_accuracy']
  assert [got.first, got.second] == pytest.approx(expected)
  assert got.difference == pytest.approx(expected[0] - expected[1])
  correct = [p == truth for p in predicted]
  assert paired.first_only == (correct[0] & ~correct[1]).sum()
  assert paired.second_only == (correct[1] & ~correct[0]).sum()
  # By brute force: the same groups are drawn for both.
  rng = np.random.default_rng(1)
  differences = []
  for _ in range(600):
    chosen = np.concatenate(
      [rng.choice(np.arange(c, 30, 3), 10) for c in range(3)]
    )
    taken = np.concatenate([np.flatnonzero(group == g) for g in chosen])
    first, second = (
      metrics.balanced_accuracy_score(truth[taken], p[taken]) for p in predicted
    )
    differences.append(first - second)
  low, high = got.interval_95
  # Wider than by this deviation alone: there are few groups.
  assert 3.92 < (high - low) / np.std(differences) < 5
  assert (low + high) / 2 == pytest.approx(got.difference)
  swapped, _ = comparison.compare_classes(
    *(rows(truth, own) for own in reversed(both)),
    *(NAMES, groups, np.random.default_rng(0)),
  )
  assert swapped['balanced_accuracy'].interval_95 == pytest.approx(
    [-high, -low]
  )


def test_shares_differ_by_one_at_most():
  # Two groups of one class, one of which only the first predicts correctly.
  truth = np.array([0, 0, 1, 1])
  groups = bootstrap.make_groups(np.arange(4), truth)
  both = np.eye(3)[truth], np.eye(3)[[1, 0, 1, 1]]
  scores, _ = comparison.compare_classes(
    *(rows(truth, own) for own in both),
    *(NAMES, groups, np.random.default_rng(0)),
  )
  low, high = scores['balanced_accuracy'].interval_95
  assert -1 <= low < 0.25 < high == 1


def test_a_class_that_one_predicts_without_a_mistake_may_have_some():
  # Five groups of ten images beside twenty; only the second makes mistakes in
  # the first class.
  truth = np.repeat([0, 1], (50, 200))
  groups = bootstrap.make_groups(np.arange(250) // 10, truth)
  mistaken = np.zeros(250, bool)
  mistaken[[0, 10, 11, 20, 21, 22, 30, 31, 40, 41]] = True
  mistaken_by_both = (np.arange(250) % 17 == 0) & (truth == 1)
  labels = [
    np.where(own, 1 - truth, truth)
    for own in (mistaken_by_both, mistaken | mistaken_by_both)
  ]
  got = comparison.compare_labels(
    truth, labels, 2, groups, np.random.default_rng(0)
  )['balanced_accuracy']
  assert got.difference == pytest.approx(0.1)
  # By one more group the first might have a recall of 5 in 6.
  low, high = 0.1 - got.interval_95[0], got.interval_95[1] - 0.1
  assert 0.02 < high < 0.06
  assert low == pytest.approx(np.hypot(high, 1 / 12))


def test_probabilities_that_rounding_made_alike():
  truth, _, groups, _ = drawn()
  tied = rows(truth, np.full((len(truth), 3), 0.333333))
  told = [row | {'predicted_class': row['true_class']} for row in tied]
  scores, paired = comparison.compare_classes(
    told, tied, NAMES, groups, np.random.default_rng(0)
  )
  assert scores['accuracy'].first == 1
  assert scores['accuracy'].second == pytest.approx((truth == 0).mean())
  assert paired.first_only == (truth != 0).sum()


def test_masks():
  rng = np.random.default_rng(0)
  truth = rng.random((12, 9, 9)) < 0.5
  both = [truth ^ (rng.random(truth.shape) < noise) for noise in (0.1, 0.3)]
  names = 'true_positives false_positives false_negatives true_negatives'
  columns = names.split()
  counted = [
    [
      dict(zip(columns, map(str, own), strict=True))
      for own in segmentation.counts(truth, predicted)
    ]
    for predicted in both
  ]
  groups = bootstrap.make_groups(np.arange(12) // 2, np.zeros(12, int))
  scores = comparison.compare_masks(*counted, groups, np.random.default_rng(0))
  for own, expected in zip(
    (scores['dice'].first, scores['dice'].second), both, strict=True
  ):
    assert own == pytest.approx(
      metrics.f1_score(truth.ravel(), expected.ravel())
    )
  low, high = scores['mean_dice'].interval_95
  assert 0 < low < scores['mean_dice'].difference < high
