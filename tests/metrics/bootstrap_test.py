"""Intervals over groups: brute force, and how often they hold the truth."""

import numpy as np
import pytest
from sklearn import metrics

from leukemia_jax.metrics import bootstrap, statistics


def drawn(count=400, number=30):
  rng = np.random.default_rng(0)
  group = rng.integers(0, number, count)
  truth = group % 3
  # Groups differ in how often they are predicted correctly.
  correct = rng.random(count) < np.linspace(0.4, 1, number)[group]
  return truth, np.where(correct, truth, (truth + 1) % 3), group


def recall_score(groups, truth, predicted):
  of_class = np.eye(3)[groups.strata]
  sizes = groups.sum(np.ones(len(truth)))
  correct = groups.sum(truth == predicted)

  def score(times):
    recalls = (times * correct @ of_class) / (times * sizes @ of_class)
    return {'balanced': recalls.mean(1)}

  return score


def test_samples_are_those_of_drawing_groups():
  truth, predicted, group = drawn()
  groups = bootstrap.make_groups(group, truth)
  score = recall_score(groups, truth, predicted)
  samples = bootstrap.sample(np.random.default_rng(0), groups.strata, score)
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
  got = samples['balanced']
  assert got.mean() == pytest.approx(np.mean(scores), abs=0.005)
  assert got.std() == pytest.approx(np.std(scores), rel=0.1)
  # In pieces, as many groups need, they are the same.
  pieces = bootstrap.sample(
    np.random.default_rng(0), groups.strata, score, width=1_000_000
  )['balanced']
  assert len(pieces) == bootstrap.DRAWS
  assert pieces.std() == pytest.approx(got.std(), rel=0.1)


def test_groups_widen_the_interval():
  truth, predicted, group = drawn()
  widths = []
  for names in (group, np.arange(len(truth))):
    groups = bootstrap.make_groups(names, truth)
    scores, ends = bootstrap.score_with_intervals(
      np.random.default_rng(0), groups, recall_score(groups, truth, predicted)
    )
    low, high = ends['balanced']
    assert scores['balanced'] == pytest.approx(
      metrics.balanced_accuracy_score(truth, predicted)
    )
    assert 0 < low < scores['balanced'] < high < 1
    widths.append(high - low)
  assert widths[0] > 1.3 * widths[1]


def test_perfect_and_hopeless_scores_have_wilsons_interval():
  strata = np.zeros(12, int)
  ends = bootstrap.interval(np.array([1.0, 0.0]), np.ones((9, 2)), strata)
  low, high = statistics.wilson_interval(12, 12)
  assert ends[:, 0] == pytest.approx([low, high])
  assert ends[:, 1] == pytest.approx([1 - high, 1 - low])


def test_a_class_of_one_group_has_no_interval():
  groups = bootstrap.make_groups(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]))
  scores, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0),
    groups,
    lambda times: {'groups': times.sum(1) / 3},
  )
  assert scores == {'groups': 1.0}
  assert ends == {}


def covered(count, num_classes, recall, concentration, sets=1000):
  """Share of simulated sets whose interval holds their balanced accuracy."""
  rng = np.random.default_rng([count, num_classes])
  strata = np.arange(count) % num_classes
  of_class = np.eye(num_classes)[strata]
  hits = 0
  for _ in range(sets):
    sizes = rng.integers(5, 41, count)
    shares = rng.beta(
      recall * concentration, (1 - recall) * concentration, count
    )
    correct = rng.binomial(sizes, shares)

    def score(times, sizes=sizes, correct=correct):
      recalls = (times * correct @ of_class) / (times * sizes @ of_class)
      return {'balanced': recalls.mean(1)}

    samples = bootstrap.sample(rng, strata, score, draws=300)['balanced']
    estimate = score(np.ones((1, count)))['balanced'][0]
    low, high = bootstrap.interval(estimate, samples, strata)
    hits += low <= recall <= high
  return hits / sets


@pytest.mark.parametrize('recall', [0.85, 0.95])
@pytest.mark.parametrize(('count', 'num_classes'), [(20, 2), (20, 4), (50, 4)])
def test_intervals_hold_the_truth(count, num_classes, recall):
  share = covered(count, num_classes, recall, 10)
  assert 0.92 <= share <= 0.98
  assert bootstrap.coverage(count) is None


@pytest.mark.parametrize('count', [5, 10])
def test_few_groups_cover_what_is_said(count):
  # Groups that differ much, the harder case.
  shares = [
    covered(count, num_classes, recall, 5)
    for num_classes in (2, 4)
    for recall in (0.85, 0.95)
    if count >= 2 * num_classes or num_classes == 2
  ]
  assert min(shares) == pytest.approx(bootstrap.coverage(count), abs=0.02)
