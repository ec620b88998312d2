"""How sure a share is, and whether two classifiers differ."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
  """The 95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927).

  Args:
    successes: how many succeeded.
    count: of how many, 1 or more.

  Returns:
    Its ends, from 0 to 1.
  """
  interval = stats.binomtest(successes, count).proportion_ci(method='wilson')
  return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
  """p-values corrected for their number (Holm, Scand. J. Stat. 6, 1979).

  Args:
    p_values: of several tests.

  Returns:
    In the same order: what is below a level is so in none of the tests by
    chance more often than that.
  """
  values = np.asarray(p_values, float)
  ascending = np.argsort(values)
  factors = len(values) - np.arange(len(values))
  corrected = np.empty(len(values))
  corrected[ascending] = np.maximum.accumulate(values[ascending] * factors)
  return np.minimum(corrected, 1).tolist()


@dataclasses.dataclass(frozen=True)
class Paired:
  """Two classifiers on the same images.

  Attributes:
    images: number of images.
    first_only: how many only the first predicted correctly.
    second_only: how many only the second predicted correctly.
    p_value: of McNemar's exact test, two-sided: how often two equal classifiers
      differ so much.
  """

  images: int
  first_only: int
  second_only: int
  p_value: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> Paired:
  """Compares two classifiers by the images that only one predicted correctly.

  Args:
    first: bool, shape (n,), whether each prediction is correct.
    second: likewise, of the same images.

  Returns:
    The counts and the p-value (McNemar, Psychometrika 12, 1947; exact, by the
    binomial distribution).
  """
  first_only = int((first & ~second).sum())
  second_only = int((second & ~first).sum())
  p_value = 1.0
  if discordant := first_only + second_only:
    p_value = float(stats.binomtest(first_only, discordant).pvalue)
  return Paired(len(first), first_only, second_only, p_value)
