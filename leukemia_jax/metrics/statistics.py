"""How sure a share is, and whether two classifiers differ."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats


def wilson_interval(
  successes: int, count: int, confidence: float = 0.95
) -> tuple[float, float]:
  """The interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927).

  Args:
    successes: how many succeeded.
    count: of how many, 1 or more.
    confidence: how often it should hold the true share.

  Returns:
    Its ends, from 0 to 1.
  """
  interval = stats.binomtest(successes, count).proportion_ci(
    confidence, method='wilson'
  )
  return float(interval.low), float(interval.high)


def group_interval(
  rng: np.random.Generator,
  sums: np.ndarray,
  score: Callable[[np.ndarray], np.ndarray],
  *,
  strata: np.ndarray,
  confidence: float = 0.95,
  draws: int = 2000,
) -> tuple[float, float]:
  """The interval of a score over groups, by the percentile bootstrap.

  Groups (patients, runs of files) are drawn with replacement, not images:
  images of one group are alike (Davison and Hinkley, Bootstrap Methods, 1997,
  section 3.8).

  Args:
    rng: draws the groups.
    sums: shape (groups, ...): what is summed up over a group's images.
    strata: int, shape (groups,): as many groups of each are drawn as there are,
      so that no class is missing from a sample.
    score: maps such sums over groups, shape (draws, ...), to scores, (draws,).
    confidence: how often the interval should hold the score of such groups.
    draws: number of samples.

  Returns:
    Its ends; nan for a single group.
  """
  if len(sums) < 2:
    return float('nan'), float('nan')
  drawn = np.zeros((draws, *sums.shape[1:]))
  for stratum in np.unique(strata):
    own = sums[strata == stratum]
    times = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), draws)
    drawn += np.tensordot(times.astype(np.float64), own, 1)
  tail = (1 - confidence) / 2
  low, high = np.nanquantile(score(drawn), (tail, 1 - tail))
  return float(low), float(high)


class Paired(NamedTuple):
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
