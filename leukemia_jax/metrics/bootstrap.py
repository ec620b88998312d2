"""How sure scores are that come from groups of images, not from images.

Groups (patients, runs of files) are drawn, not images: images of one group are
alike (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Self

import numpy as np
from scipy import special, stats

from leukemia_jax.metrics import statistics

DRAWS = 1000
CONFIDENCE = 0.95
# Share of 95 % intervals that hold the truth, by number of groups, in simulated
# sets of two and four classes with recalls of .85 and .95; the lowest.
ENOUGH_GROUPS = 20
COVERAGE = {5: 0.94, 10: 0.91}
# Numbers held at once.
_CHUNK = 4_000_000


class Groups(NamedTuple):
  """Which images belong together.

  Attributes:
    of_image: int, shape (images,): each image's group.
    strata: int, shape (groups,): the class of most of a group's images. As many
      groups of each are drawn as there are, so that no sample lacks a class.
  """

  of_image: np.ndarray
  strata: np.ndarray

  def of_one_stratum(self) -> Self:
    """The same groups, whose classes don't matter."""
    return self._replace(strata=np.zeros_like(self.strata))

  def sum(self, values: np.ndarray) -> np.ndarray:
    """Sums over each group's images.

    Args:
      values: shape (images, ...).

    Returns:
      float64, shape (groups, ...).
    """
    sums = np.zeros((len(self.strata), *values.shape[1:]))
    np.add.at(sums, self.of_image, values)
    return sums


def make_groups(names: np.ndarray, labels: np.ndarray) -> Groups:
  """Numbers groups.

  Args:
    names: shape (images,): of each image's group.
    labels: int, shape (images,), from 0: each image's class.

  Returns:
    The groups.
  """
  _, index = np.unique(names, return_inverse=True)
  counts = np.zeros((index.max() + 1, labels.max() + 1))
  np.add.at(counts, (index, labels), 1)
  return Groups(index, counts.argmax(1))


# Maps how often each group counts, shape (samples, groups), to scores by name,
# each of shape (samples, ...).
Score = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def sample(
  rng: np.random.Generator,
  strata: np.ndarray,
  score: Score,
  *,
  draws: int = DRAWS,
  width: int = 1,
) -> dict[str, np.ndarray]:
  """The scores of samples of groups, drawn with replacement.

  Args:
    rng: draws the groups.
    strata: see `Groups`.
    score: of samples.
    draws: number of samples.
    width: how many numbers `score` holds at once for one sample.

  Returns:
    Scores by name, shape (draws, ...).
  """
  members = [np.flatnonzero(strata == value) for value in np.unique(strata)]
  parts = []
  left = draws
  while left:
    count = min(left, max(1, _CHUNK // max(width, len(strata))))
    left -= count
    times = np.zeros((count, len(strata)))
    for own in members:
      times[:, own] = rng.multinomial(
        len(own), np.full(len(own), 1 / len(own)), count
      )
    parts.append(score(times))
  return {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }


def interval(
  estimate: np.ndarray,
  samples: np.ndarray,
  strata: np.ndarray,
  *,
  is_share: bool = True,
  confidence: float = CONFIDENCE,
) -> np.ndarray:
  """The interval of a score: its bootstrap deviation, by Student's t.

  The deviation is widened for few groups (Hesterberg, The American Statistician
  69, 2015), and that of a share is taken on the logit scale, where it is
  nearly symmetric (Brown, Cai and DasGupta, Statistical Science 16, 2001).

  Args:
    estimate: shape (...): of all groups.
    samples: shape (draws, ...), from `sample`; nan counts as `estimate`.
    strata: see `Groups`.
    is_share: whether the score is one from 0 to 1.
    confidence: how often the interval should hold the score of such groups.

  Returns:
    float, shape (2, ...): its ends; nan where a stratum has a single group. A
    share of 0 or 1 has Wilson's, of as many successes as there are groups.
  """
  estimate = np.asarray(estimate, float)
  count = len(strata)
  freedom = count - len(np.unique(strata))
  if np.bincount(strata)[np.unique(strata)].min() < 2:
    return np.full((2, *estimate.shape), np.nan)
  samples = np.where(np.isnan(samples), estimate, samples)
  deviation = samples.std(0) * np.sqrt(count / freedom)
  half = stats.t.ppf((1 + confidence) / 2, freedom) * deviation
  sides = np.array([-1.0, 1.0]).reshape(2, *[1] * estimate.ndim)
  if not is_share:
    return estimate + sides * half
  inner = np.clip(estimate, 1e-9, 1 - 1e-9)
  ends = special.expit(
    special.logit(inner) + sides * half / (inner * (1 - inner))
  )
  low, high = statistics.wilson_interval(count, count, confidence)
  ends = np.where(estimate >= 1 - 1e-9, [[low], [high]], ends.reshape(2, -1))
  ends = np.where(estimate <= 1e-9, [[1 - high], [1 - low]], ends)
  return ends.reshape(2, *estimate.shape)


def score_with_intervals(
  rng: np.random.Generator,
  groups: Groups,
  score: Score,
  *,
  not_shares: Collection[str] = (),
) -> tuple[dict[str, float], dict[str, list[float]]]:
  """Each score with its interval.

  Args:
    rng: draws the samples.
    groups: of the images.
    score: of samples, one number each.
    not_shares: names of the scores that don't go from 0 to 1.

  Returns:
    Scores by name, and the ends of their intervals, without those that have
    none.
  """
  estimates = score(np.ones((1, len(groups.strata))))
  samples = sample(rng, groups.strata, score, width=len(groups.of_image))
  ends = {
    name: interval(
      estimates[name][0],
      values,
      groups.strata,
      is_share=name not in not_shares,
    )
    for name, values in samples.items()
  }
  scores = {name: float(values[0]) for name, values in estimates.items()}
  known = {name: own for name, own in ends.items() if np.isfinite(own).all()}
  return scores, {name: own.tolist() for name, own in known.items()}


def coverage(groups: int) -> float | None:
  """How often an interval over few groups holds the truth; None if enough."""
  if groups >= ENOUGH_GROUPS:
    return None
  return COVERAGE[max((n for n in COVERAGE if n <= groups), default=5)]
