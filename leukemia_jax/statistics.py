"""How sure a share is, and whether two classifiers differ."""

from typing import NamedTuple

import numpy as np
from scipy import stats


def wilson_interval(
  right: int, count: int, confidence: float = 0.95
) -> tuple[float, float]:
  """The interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927).

  Args:
    right: how many were right.
    count: of how many, 1 or more.
    confidence: how often it should hold the true share.

  Returns:
    Its ends, from 0 to 1.
  """
  interval = stats.binomtest(right, count).proportion_ci(
    confidence, method='wilson'
  )
  return float(interval.low), float(interval.high)


class Paired(NamedTuple):
  """Two classifiers on the same images.

  Attributes:
    images: how many both called.
    first_alone: how many the first alone called rightly.
    second_alone: likewise.
    p_value: of McNemar's exact test, two-sided: how often chance alone makes
      them differ so much.
  """

  images: int
  first_alone: int
  second_alone: int
  p_value: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> Paired:
  """Compares two classifiers by the images that one alone called rightly.

  Args:
    first: bool, shape (n,), whether each image was called rightly.
    second: likewise, of the same images.

  Returns:
    The counts and the p-value (McNemar, Psychometrika 12, 1947; exact, by the
    binomial distribution).
  """
  one, other = int((first & ~second).sum()), int((second & ~first).sum())
  p_value = 1.0
  if one + other:
    p_value = float(stats.binomtest(one, one + other).pvalue)
  return Paired(len(first), one, other, p_value)
