"""Thresholds by rate: their promise in simulations, and their edges."""

import math

import numpy as np
import pytest

from leukemia_jax.metrics import conformal


@pytest.mark.parametrize('count', [19, 40, 200])
@pytest.mark.parametrize('level', [0.8, 0.95])
def test_new_scores_exceed_the_quantile_at_the_rate(count, level):
  rng = np.random.default_rng(0)
  trials = 4000
  held = rng.exponential(size=(trials, count))
  new = rng.exponential(size=trials)
  limits = np.array([conformal.upper_quantile(own, level) for own in held])
  below = (new <= limits).mean()
  error = 4 * math.sqrt(level * (1 - level) / trials)
  assert level - error <= below <= level + 1 / (count + 1) + error


def test_too_few_scores_say_nothing():
  assert conformal.upper_quantile(np.zeros(18), 0.95) == math.inf
  assert conformal.upper_quantile(np.arange(19.0), 0.95) == 18
  assert conformal.upper_quantile(np.zeros(0), 0.5) == math.inf
  # Then every class belongs to every set.
  least = conformal.least_probability(np.eye(3), np.arange(3), 0.95)
  assert least == 0
  assert conformal.sets(np.eye(3), least).all()


@pytest.mark.parametrize('rarest', [0.15, 0.16, 0.17, 0.2])
def test_equal_probabilities_belong_together(rarest):
  said = np.tile([0.8 - rarest, 0.2, rarest], (60, 1))
  labels = np.arange(60) % 3
  least = conformal.least_probability(said, labels, 0.95)
  assert conformal.sets(said, least).all()


@pytest.mark.parametrize('coverage', [0.7, 0.9, 0.95])
def test_sets_hold_the_true_class_at_the_rate(coverage):
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(40_000, 4)) * 2
  probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  labels = (probabilities.cumsum(1) < rng.random((40_000, 1))).sum(1)
  known, new = slice(None, 20_000), slice(20_000, None)
  least = conformal.least_probability(
    probabilities[known], labels[known], coverage
  )
  sets = conformal.sets(probabilities[new], least)
  held = sets[np.arange(20_000), labels[new]].mean()
  # The most probable class is added where no class reaches the threshold.
  assert coverage - 0.01 < held
  assert sets.any(1).all()
  if coverage > 0.8:
    assert held < coverage + 0.01
  smaller = conformal.least_probability(
    probabilities[known], labels[known], coverage - 0.2
  )
  assert conformal.sets(probabilities[new], smaller).sum() < sets.sum()


def test_the_most_probable_class_is_in_every_set():
  sets = conformal.sets(np.array([[0.4, 0.35, 0.25], [0.1, 0.2, 0.7]]), 0.9)
  assert sets.tolist() == [[True, False, False], [False, False, True]]
