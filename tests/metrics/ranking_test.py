"""Areas under curves against scikit-learn, one weighting at a time."""

import numpy as np
import pytest
from sklearn import metrics

from leukemia_jax.metrics import ranking


@pytest.mark.parametrize('digits', [1, 8])
def test_areas_are_scikit_learns(digits):
  rng = np.random.default_rng(0)
  truth = rng.random(200) < 0.3
  # Few digits give many ties.
  scores = np.round(rng.random(200) + 0.4 * truth, digits)
  weight = rng.integers(0, 4, (5, 200)).astype(float)
  got = ranking.rank(truth, scores, weight)
  for i, own in enumerate(weight):
    assert got['roc_auc'][i] == pytest.approx(
      metrics.roc_auc_score(truth, scores, sample_weight=own)
    )
    assert got['average_precision'][i] == pytest.approx(
      metrics.average_precision_score(truth, scores, sample_weight=own)
    )
    fall_out, recall, _ = metrics.roc_curve(
      truth, scores, sample_weight=own, drop_intermediate=False
    )
    expected = recall[fall_out <= 1 - ranking.SPECIFICITY].max()
    assert got['sensitivity'][i] == pytest.approx(expected)


def test_a_sample_of_one_class_has_no_area():
  truth = np.array([True, False, True])
  got = ranking.rank(truth, np.arange(3.0), np.array([[1.0, 0, 2], [1, 1, 1]]))
  assert np.isnan(got['roc_auc'][0])
  assert got['roc_auc'][1] == pytest.approx(0.5)
