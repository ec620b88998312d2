"""Intervals over groups: brute force, and how often they hold the truth."""

import itertools

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
  of_class = np.eye(groups.strata.max() + 1)[groups.strata]
  sizes = groups.sum(np.ones(len(truth)))
  correct = groups.sum(truth == predicted)

  def score(times):
    recalls = (times * correct @ of_class) / (times * sizes @ of_class)
    return {'balanced': recalls.mean(1)}

  return score


def of_one_class(strata):
  """Groups of an image each."""
  holds = np.eye(strata.max() + 1, dtype=bool)[strata]
  return bootstrap.Groups(np.arange(len(strata)), strata, holds)


def test_the_deviation_is_that_of_drawing_groups():
  truth, predicted, group = drawn()
  groups = bootstrap.make_groups(group, truth)
  score = recall_score(groups, truth, predicted)
  spread = bootstrap.spreads(np.random.default_rng(0), groups, score)
  # By brute force: draw groups of all classes, take their images, score.
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
  # Widened from ten groups of a class to nine.
  got = np.sqrt(spread['balanced'].variance.sum() * 9 / 10)
  assert got == pytest.approx(np.std(scores), rel=0.1)
  assert spread['balanced'].needed == 10
  # In pieces, as many groups need, they are the same.
  pieces = bootstrap.spreads(
    np.random.default_rng(0), groups, score, width=1_000_000
  )['balanced']
  assert np.sqrt(pieces.variance.sum() * 9 / 10) == pytest.approx(got, rel=0.1)


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
  strata = np.array([0] * 12 + [1] * 5)
  flat = bootstrap.Spread(np.zeros((2, 3)), np.array([5, 12, 5]))
  groups = of_one_class(strata)
  ends = bootstrap.interval(np.array([1.0, 0.0, 0.5]), flat, groups)
  assert ends[:, 0] == pytest.approx(statistics.wilson_interval(5, 5))
  low, high = statistics.wilson_interval(12, 12)
  assert ends[:, 1] == pytest.approx([1 - high, 1 - low])
  # What never varies is not certain.
  assert np.isnan(ends[:, 2]).all()


def test_a_small_class_leaves_what_it_is_not_in_alone():
  # 60 groups of a class, 40 of another, 2 of a third; all is correct.
  strata = np.repeat(np.arange(3), (60, 40, 2))
  groups = of_one_class(strata)
  confusions = groups.confusions(strata, strata, 3)

  def score(times):
    drawn = np.tensordot(times, confusions, 1)
    recalls = np.diagonal(drawn, axis1=1, axis2=2) / drawn.sum(2)
    others = drawn[:, 1:].sum((1, 2))
    return {
      'accuracy': np.trace(drawn, axis1=1, axis2=2) / drawn.sum((1, 2)),
      'balanced': recalls.mean(1),
      'first': recalls[:, 0],
      # Needs the first class, and any other.
      'first of two': recalls[:, 0] + 0 * others / others,
    }

  _, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0), groups, score
  )
  for name, count in (
    ('accuracy', 102),
    ('balanced', 2),
    ('first', 60),
    ('first of two', 42),
  ):
    assert ends[name] == pytest.approx(statistics.wilson_interval(count, count))


def test_groups_that_bear_on_a_score_may_be_fewer_than_a_class():
  groups = of_one_class(np.repeat([0, 1], (80, 20)))
  sure = np.arange(100) < 3
  _, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0),
    groups,
    lambda times: {'sure': times @ sure / (times @ sure)},
    bearing={'sure': 3},
  )
  assert ends['sure'] == pytest.approx(statistics.wilson_interval(3, 3))


def test_what_depends_on_a_single_group_has_no_interval():
  truth = np.array([0, 0, 0, 1, 1, 1, 1])
  groups = bootstrap.make_groups(np.array([0, 0, 0, 1, 2, 3, 3]), truth)
  predicted = np.array([0, 1, 1, 1, 0, 1, 0])
  correct = groups.sum(predicted == truth)
  sizes = groups.sum(np.ones(7))

  def score(times):
    correct_drawn, count = times * correct, times * sizes
    of_second = groups.strata == 1
    return {
      'second': correct_drawn[:, of_second].sum(1) / count[:, of_second].sum(1),
      'all': correct_drawn.sum(1) / count.sum(1),
      'first': correct_drawn[:, 0] / count[:, 0],
      **recall_score(groups, truth, predicted)(times),
    }

  scores, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0), groups, score
  )
  assert scores['second'] == pytest.approx(0.5)
  assert ends.keys() == {'second'}


@pytest.mark.parametrize('is_correct', [0.8, 1.0])
def test_a_class_that_a_single_mixed_group_holds(is_correct):
  # 24 patients with 20 images of one class; in one of them a few of another.
  rng = np.random.default_rng(0)
  truth = np.concatenate([np.zeros(480, int), np.ones(6, int)])
  group = np.concatenate([np.arange(480) // 20, np.full(6, 7)])
  predicted = np.where(rng.random(486) <= is_correct, truth, 1 - truth)
  groups = bootstrap.make_groups(group, truth)
  assert groups.smallest == 1
  confusions = groups.confusions(truth, predicted, 2)

  def score(times):
    drawn = np.tensordot(times, confusions, 1)
    recalls = np.diagonal(drawn, axis1=1, axis2=2) / drawn.sum(2)
    return {'balanced': recalls.mean(1), 'a': recalls[:, 0], 'b': recalls[:, 1]}

  _, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0), groups, score
  )
  assert 'balanced' not in ends and 'b' not in ends
  if is_correct < 1:
    assert 'a' in ends


def test_what_is_never_negative_has_no_negative_end():
  # One group of twelve is off by one.
  values = np.eye(12)[0]
  groups = bootstrap.make_groups(np.arange(12), np.zeros(12, int))
  _, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0),
    groups,
    lambda times: {'error': times @ values / times.sum(1)},
    from_zero=['error'],
  )
  assert ends['error'][0] == 0 and 0.1 < ends['error'][1] < 0.4


def test_a_mixed_group_that_would_be_alone_joins_the_others():
  # Most of one patient's images are of a class of which others have fewer.
  truth = np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0])
  names = np.arange(12) // 3
  groups = bootstrap.make_groups(names, truth)
  assert groups.majority.tolist() == [0, 0, 1, 0]
  assert groups.strata.tolist() == [0, 0, 0, 0] and groups.smallest == 3
  correct = groups.sum(np.arange(12) % 5 != 0)
  _, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0),
    groups,
    lambda times: {'accuracy': times @ correct / times.sum(1) / 3},
  )
  assert 'accuracy' in ends
  # Whatever the numbers of classes, what may not be drawn takes none in.
  names = np.repeat([0, 1, 2], (2, 3, 3))
  truth = np.array([0, 0, 1, 1, 2, 2, 2, 1])
  for order in itertools.permutations(range(3)):
    own = bootstrap.make_groups(names, np.array(order)[truth]).strata
    assert own[1] == own[2] != own[0]
  # Two patients, each the only one of whose images most are of its class.
  groups = bootstrap.make_groups(
    [0, 0, 0, 1, 1, 1], np.array([0, 0, 1, 1, 1, 0])
  )
  assert groups.strata.tolist() == [0, 0]


def test_classes_predicted_alike_may_be_otherwise():
  # Four groups of 10 images correct, six of another class of which one is not,
  # and two of a third that is never predicted.
  strata = np.repeat([0, 1, 2], (4, 6, 2))
  groups = of_one_class(strata)
  confusions = np.zeros((12, 3, 3))
  confusions[np.arange(12), strata, np.where(strata == 2, 1, strata)] = 10
  confusions[5, 1] = [5, 5, 0]
  correct, wrong = bootstrap.alternative_confusions(confusions, groups)
  low, high = 4 / 5, 1 / 3
  assert correct[0, 0] == pytest.approx([32, 4, 4])
  assert wrong[0, 2] == pytest.approx([0, 20 * (1 - high), 20 * high])
  for own, label in ((correct, 0), (wrong, 2)):
    others = np.arange(3) != label
    np.testing.assert_array_equal(own[0, others], confusions.sum(0)[others])

  def of(counts):
    recalls = np.diagonal(counts, axis1=1, axis2=2) / counts.sum(2)
    return {'balanced': recalls.mean(1), 'second': recalls[:, 1]}

  def ends(alternatives):
    return bootstrap.score_with_intervals(
      np.random.default_rng(0),
      groups,
      lambda times: of(np.tensordot(times, confusions, 1)),
      alternatives=alternatives,
    )

  # What no drawing changes may be otherwise all the same.
  whole = of_one_class(np.repeat([0, 1, 2], 5))
  predicted = np.repeat([0, 1, 1], 5)
  counts = whole.confusions(np.repeat([0, 1, 2], 5), predicted, 3)
  _, steady = bootstrap.score_with_intervals(
    np.random.default_rng(0),
    whole,
    lambda times: of(np.tensordot(times, counts, 1)),
    alternatives=[
      of(own) for own in bootstrap.alternative_confusions(counts, whole)
    ],
  )
  low_end, high_end = steady['balanced']
  assert low_end == pytest.approx(2 / 3 - np.hypot(1 / 18, 1 / 18))
  assert high_end == pytest.approx(2 / 3 + 1 / 18)
  scores, plain = ends([])
  _, wide = ends([of(correct), of(wrong)])
  assert wide['second'] == plain['second']
  middle, sides = scores['balanced'], np.array(plain['balanced'])
  below = np.hypot(middle - sides[0], (1 - low) / 3)
  above = np.hypot(sides[1] - middle, high / 3)
  assert wide['balanced'] == pytest.approx([middle - below, middle + above])


def covered(sizes_of_classes, recall, concentration, sets=1000):
  """Share of simulated sets whose interval holds their balanced accuracy."""
  rng = np.random.default_rng(sizes_of_classes)
  strata = np.repeat(np.arange(len(sizes_of_classes)), sizes_of_classes)
  count, classes = len(strata), len(sizes_of_classes)
  groups = of_one_class(strata)
  hits = []
  for _ in range(sets):
    sizes = rng.integers(5, 41, count)
    shares = rng.beta(
      recall * concentration, (1 - recall) * concentration, count
    )
    correct = rng.binomial(sizes, shares)
    confusions = np.zeros((count, classes, classes))
    confusions[np.arange(count), strata, strata] = correct
    elsewhere = (strata + 1) % classes
    confusions[np.arange(count), strata, elsewhere] = sizes - correct

    def of(drawn):
      recalls = np.diagonal(drawn, axis1=1, axis2=2) / drawn.sum(2)
      return {'balanced': recalls.mean(1)}

    def score(times, confusions=confusions, of=of):
      return of(np.tensordot(times, confusions, 1))

    _, ends = bootstrap.score_with_intervals(
      rng,
      groups,
      score,
      alternatives=[
        of(own) for own in bootstrap.alternative_confusions(confusions, groups)
      ],
    )
    if 'balanced' in ends:
      low, high = ends['balanced']
      hits.append(low <= recall <= high)
  # Few sets have none: where no drawing changes the score.
  assert len(hits) > 0.97 * sets
  return np.mean(hits)


@pytest.mark.parametrize('recall', [0.85, 0.95])
@pytest.mark.parametrize('sizes', [(10, 10), (5, 5, 5, 5), (15, 15, 15, 15)])
def test_intervals_hold_the_truth(sizes, recall):
  assert 0.92 <= covered(sizes, recall, 10) <= 0.99


# Groups that differ much, the harder case.
@pytest.mark.full
def test_few_groups_cover_what_is_said_or_more():
  shares = [
    covered(sizes, recall, 5)
    for sizes in ((2, 3), (2, 18), (10, 100))
    for recall in (0.85, 0.95)
  ]
  assert min(shares) == pytest.approx(bootstrap.COVERAGE, abs=0.03)
  assert np.median(shares) > 0.94
