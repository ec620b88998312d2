"""Intervals and paired tests against formulas and enumeration."""

import itertools
import math

import numpy as np
import pytest

from leukemia_jax.metrics import statistics


@pytest.mark.parametrize(('right', 'count'), [(0, 10), (587, 600), (600, 600)])
def test_wilson_by_its_formula(right, count):
  z, share = 1.959963984540054, right / count
  middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
  half = z / (1 + z**2 / count)
  half *= math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
  low, high = statistics.wilson_interval(right, count)
  assert low == pytest.approx(middle - half, abs=1e-12)
  assert high == pytest.approx(middle + half, abs=1e-12)


@pytest.mark.parametrize(('one', 'other'), [(0, 0), (5, 1), (3, 3), (0, 8)])
def test_mcnemar_by_enumeration(one, other):
  first = np.array([1] * one + [0] * other + [1] * 4 + [0] * 2, bool)
  second = np.array([0] * one + [1] * other + [1] * 4 + [0] * 2, bool)
  got = statistics.mcnemar(first, second)
  assert (got.images, got.first_only, got.second_only) == (
    one + other + 6,
    one,
    other,
  )
  # All ways in which the images that tell them apart could have fallen.
  differing = one + other
  falls = [sum(f) for f in itertools.product((0, 1), repeat=differing)]
  extreme = abs(one - differing / 2)
  expected = np.mean([abs(f - differing / 2) >= extreme for f in falls])
  assert got.p_value == pytest.approx(expected)


def test_holm():
  # Holm's steps: the smallest by the number of all, the next by one less, ...
  assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx(
    [0.06, 0.03, 0.06]
  )
  assert statistics.holm([0.5, 0.6]) == [1.0, 1.0]
  rng = np.random.default_rng(0)
  for count in (1, 2, 7):
    values = rng.uniform(0, 0.3, count)
    # By brute force: the least level at which the steps reach a test.
    ascending = np.sort(values)
    factors = np.arange(count, 0, -1)
    expected = [
      min(
        1,
        max(f * v for f, v in zip(factors, ascending, strict=True) if v <= own),
      )
      for own in values
    ]
    assert statistics.holm(values) == pytest.approx(expected)
