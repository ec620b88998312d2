"""Probes reach what properties tell, and no more."""

import itertools

import conftest
import jax
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from leukemia_jax.audit import permutation, probes
from leukemia_jax.data import grouping
from leukemia_jax.errors import InputError
from leukemia_jax.metrics import bootstrap, statistics


def grouped(count: int = 240, size: int = 6):
  """Labels in groups: each group is of one class, as patients are."""
  groups = np.arange(count) // size
  return groups % 3, groups


def folds_of(labels, groups, **changes) -> probes.Folds:
  catalogue = conftest.catalogue(labels, groups=[f'p{g}' for g in groups])
  return probes.make_folds(
    jax.random.key(0), catalogue, conftest.protocol(**changes)
  )


def test_a_property_that_tells_and_one_that_does_not():
  labels, groups = grouped()
  rng = np.random.default_rng(0)
  of_group = rng.normal(size=(groups.max() + 1, 2))[groups]
  properties = {
    'shortcut': labels[:, None] + 0.3 * rng.normal(size=(len(labels), 1)),
    # What tells patients apart, and nothing of their class.
    'patient': of_group + 0.01 * rng.normal(size=of_group.shape),
    'noise': rng.normal(size=(len(labels), 4)),
  }
  folds = folds_of(labels, groups)
  scores = probes.score_probes(properties, labels, 3, folds, seed=0)
  assert scores['shortcut'].balanced_accuracy > 0.85
  assert scores['shortcut'].p_value < 0.01
  for name in ('patient', 'noise'):
    low, high = scores[name].interval
    assert low < 1 / 3 < high and scores[name].p_value > 0.05
  again = probes.score_probes(properties, labels, 3, folds, seed=0)
  assert again == scores


def test_folds_keep_groups_together_and_cover_everything():
  labels, groups = grouped()
  folds = folds_of(labels, groups)
  assert len(folds.test) == 5 and folds.group == 'patient'
  assert sorted(np.concatenate(folds.test)) == list(range(len(labels)))
  for train, test in zip(folds.train, folds.test, strict=True):
    assert not set(groups[train]) & set(groups[test])
    assert len(train) + len(test) == len(labels)


def test_fewer_folds_where_groups_are_few():
  labels, groups = grouped(72, 8)
  assert len(folds_of(labels, groups).test) == 3
  assert len(folds_of([0] * 4 + [1] * 4, [0, 0, 1, 1, 2, 2, 3, 3]).test) == 2
  with pytest.raises(
    InputError, match="in two groups or more.*'class 0', 'class 1'$"
  ):
    folds_of([0, 0, 1, 1], [0, 0, 1, 1])


def test_an_embargo_that_leaves_nothing_is_refused():
  catalogue = conftest.catalogue(np.repeat([0, 1], 20))
  protocol = conftest.protocol(grouping='contiguous', folds=4, embargo=20)
  with pytest.raises(InputError, match='fold 0 leaves nothing.*embargo=20'):
    probes.make_folds(jax.random.key(0), catalogue, protocol)


def test_folds_of_a_run_are_its_own():
  labels = np.repeat([0, 1], 40)
  catalogue = conftest.catalogue(labels)
  protocol = conftest.protocol(grouping='contiguous', folds=4, embargo=3)
  folds = probes.make_folds(jax.random.key(0), catalogue, protocol)
  assert len(folds.test) == 4
  # What chooses between the models keeps runs of files together too.
  assert len(set(folds.groups.tolist())) == 2
  for train, test in zip(folds.train, folds.test, strict=True):
    apart = np.abs(train[:, None] - test)
    assert apart[labels[train][:, None] == labels[test]].min() > 3


def brute_force(features, labels, gap):
  """Nearest neighbours outside of a window of files, one by one."""
  values = (features - features.mean(0)) / features.std(0)
  orders = [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
  predicted = []
  for i, label in enumerate(labels):
    place = int(np.flatnonzero(orders[label] == i)[0])
    usable = []
    for members in orders:
      share = len(members) / len(orders[label])
      first = max(0, round((place - gap) * share))
      last = max(first + 1, round((place + gap + 1) * share))
      usable += [j for k, j in enumerate(members) if not first <= k < last]
    distances = [((values[i] - values[j]) ** 2).sum() for j in usable]
    nearest = [usable[k] for k in np.argsort(distances)[:3]]
    predicted.append(np.bincount(labels[nearest], minlength=2).argmax())
  return balanced_accuracy_score(labels, predicted)


def test_distance_curve_is_brute_force_and_falls_where_neighbours_are_alike():
  labels = np.repeat([0, 1], (60, 48))
  rng = np.random.default_rng(1)
  # Files drift: each is as its neighbours, and tells nothing of its class.
  drift = np.cumsum(rng.normal(size=(len(labels), 2)), 0)
  features = drift + 0.1 * rng.normal(size=drift.shape)
  catalogue = conftest.catalogue(labels)
  points = probes.distance_curve(
    features,
    labels,
    grouping.in_file_order(catalogue),
    grouping.runs(catalogue, 6),
    seed=0,
  )
  assert [point.gap for point in points] == [0, 1, 2, 5, 10]
  for point in points:
    expected = brute_force(features, labels, point.gap)
    assert point.balanced_accuracy == pytest.approx(expected)
  assert points[0].balanced_accuracy > points[-1].balanced_accuracy


def test_join_keeps_what_each_property_tells():
  rng = np.random.default_rng(0)
  constant = np.zeros((50, 3), np.float32)
  small, wide = rng.normal(size=(50, 2)), rng.normal(size=(50, 40))
  joined = probes.join([constant, small, wide])
  assert joined.shape == (50, 2 + 6)
  # Principal components of all columns are the columns, turned.
  scaled = (small - small.mean(0)) / small.std(0)
  np.testing.assert_allclose(
    np.linalg.norm(joined[:, :2], axis=1), np.linalg.norm(scaled, axis=1)
  )


def test_the_curve_is_flat_where_neighbours_are_not_alike():
  labels = np.repeat([0, 1], (300, 1500))
  features = np.random.default_rng(0).normal(size=(len(labels), 2))
  features[labels == 1] += 1
  catalogue = conftest.catalogue(labels)
  points = probes.distance_curve(
    features,
    labels,
    grouping.in_file_order(catalogue),
    np.arange(len(labels)),
    seed=0,
  )
  assert points[-1].gap == 50
  scores = [point.balanced_accuracy for point in points]
  assert max(scores) - min(scores) < 0.02


def test_p_values_where_patients_have_images_of_several_classes():
  rng = np.random.default_rng(0)
  groups = np.repeat(np.arange(30), 10)
  # No patient has more images of the second class.
  truth = np.tile(np.arange(10) > 6, 30).astype(int)
  tells = np.where(rng.random(300) < 0.8, truth, 1 - truth)
  # What tells patients apart tells nothing of the class.
  of_patients = rng.integers(0, 2, (3, 30))[:, groups]
  noise = rng.integers(0, 2, (3, 300))
  predicted = np.stack([tells, *of_patients, *noise])
  values = [
    p for *_, p in probes._over_groups(truth, predicted, groups, 2, seed=0)
  ]
  assert values[0] == pytest.approx(2 / 2001)
  assert min(values[1:]) > 0.05


def test_p_values_where_few_patients_have_images_of_several_classes():
  groups = np.repeat(np.arange(42), 10)
  truth = np.where(groups < 22, 0, 2)
  # Two of them have images of a third class, which no patient has most of.
  truth[:3], truth[10:13] = 1, 1
  tells = np.where(truth == 2, 2, 0)
  ((*_, p_value),) = probes._over_groups(truth, tells[None], groups, 3, seed=0)
  assert p_value == pytest.approx(2 / 2001)


@pytest.mark.full
def test_p_values_of_nothing_are_even():
  """Properties of patients that say nothing of the class, in small sets."""
  below, sets = 0, 60
  for seed in range(sets):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(10), 6)
    truth = groups % 2
    # One prediction a patient, whatever its class.
    predicted = rng.integers(0, 2, (4, 10))[:, groups]
    values = [
      p for *_, p in probes._over_groups(truth, predicted, groups, 2, seed)
    ]
    below += min(statistics.holm(values)) < 0.05
  assert below <= 0.1 * sets


@pytest.mark.parametrize(
  ('patients', 'tells'), [((3, 3), False), ((4, 4), False), ((8, 8), True)]
)
def test_few_patients_tell_nothing(patients, tells):
  by_patient = np.repeat([0, 1], patients)
  labels, groups = np.repeat(by_patient, 6), np.arange(sum(patients)).repeat(6)
  folds = folds_of(labels, groups)
  told = {'class': labels[:, None] + 0.0}
  score = probes.score_probes(told, labels, 2, folds, seed=0)['class']
  assert score.balanced_accuracy == 1
  # What is foretold is what comes out, for one of 13 properties.
  assert (13 * score.p_value < 0.05) == tells
  assert probes.can_tell(labels, folds, 13, 0.05) == tells


def test_the_smallest_p_value_is_brute_force():
  rng = np.random.default_rng(0)
  for patients in ([0, 0, 1], [0, 0, 1, 1, 2], [0, 1]):
    labels = np.repeat(patients, 2)
    groups = bootstrap.make_groups(np.arange(len(patients)).repeat(2), labels)
    ways = len(set(itertools.permutations(patients)))
    got = permutation.smallest(labels, groups)
    assert 1 / ways < got < 1 / ways + 0.02
    # What foretells every class has that p-value, or a smaller one.
    as_small = []
    for seed in range(40):
      told = permutation.p_values(
        np.random.default_rng(seed),
        labels,
        labels[None],
        groups,
        groups.confusions(labels, labels, 3)[:, None],
        lambda counts: np.trace(counts, axis1=-2, axis2=-1),
      )
      as_small.append(told[0] <= got)
    assert np.mean(as_small) >= 0.85
  # Images of one patient change classes with each other.
  labels = np.array([0, 0, 1, 1, 0, 1])
  groups = bootstrap.make_groups(np.array([0, 0, 0, 0, 1, 1]), labels)
  got = permutation.smallest(labels, groups)
  assert 2 / (6 * 2) < got < 2 / (6 * 2) + 0.03
  many = rng.integers(0, 2, 400)
  groups = bootstrap.make_groups(np.arange(400), many)
  assert permutation.smallest(many, groups) == pytest.approx(1 / 2001)
