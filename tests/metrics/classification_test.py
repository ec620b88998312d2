"""Classification scores against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from leukemia_jax.metrics import classification

NAMES = ('Benign', 'Early', 'Pre', 'Pro')


def table(truth, predicted, classes=4):
  return sklearn_metrics.confusion_matrix(
    truth, predicted, labels=range(classes)
  )


@pytest.mark.parametrize('seed', range(6))
def test_scores_are_scikit_learns(seed):
  rng = np.random.default_rng(seed)
  truth = rng.integers(0, 4, 50)
  # Seed 0: one class is never predicted; seed 1: only one is.
  predicted = rng.integers(0, {0: 3, 1: 1}.get(seed, 4), 50)
  got = classification.scores(table(truth, predicted), 12.5, NAMES, 'Benign')
  report = sklearn_metrics.classification_report(
    truth, predicted, labels=range(4), output_dict=True, zero_division=0
  )
  macro = report['macro avg']
  assert got.accuracy == pytest.approx((truth == predicted).mean())
  assert got.loss == pytest.approx(0.25)
  for ours, of_class, theirs in (
    ('precision', 'precision', 'precision'),
    ('balanced_accuracy', 'recall', 'recall'),
    ('macro_f1', 'f1', 'f1-score'),
  ):
    assert getattr(got, ours) == pytest.approx(macro[theirs])
    for i, name in enumerate(NAMES):
      assert getattr(got.by_class[name], of_class) == pytest.approx(
        report[str(i)][theirs]
      )
  recalls = [report[str(i)]['recall'] for i in range(4)]
  assert got.worst_class_recall == pytest.approx(min(recalls))
  malignant, predicted_malignant = truth > 0, predicted > 0
  assert got.sensitivity == pytest.approx(
    sklearn_metrics.recall_score(malignant, predicted_malignant)
  )
  assert got.specificity == pytest.approx(
    sklearn_metrics.recall_score(~malignant, ~predicted_malignant)
  )


def test_a_class_without_images_is_left_out_of_the_means():
  truth, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
  got = classification.scores(table(truth, predicted), 0.0, NAMES, 'Benign')
  assert got.balanced_accuracy == pytest.approx(0.75)
  assert got.worst_class_recall == pytest.approx(0.5)
  assert got.by_class['Pro'].images == 0


def test_without_a_benign_class_and_without_images():
  got = classification.scores(table([0, 1], [0, 1]), 0.0, NAMES, 'Healthy')
  assert got.sensitivity is None
  assert got.specificity is None
  got = classification.scores(np.zeros((4, 4)), 0.0, NAMES, 'Benign')
  assert got.accuracy is None
  assert got.sensitivity is None
