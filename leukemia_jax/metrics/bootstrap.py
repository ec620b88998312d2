"""How sure scores are that come from groups of images, not from images.

Groups (patients, runs of files) are drawn, not images: images of one group are
alike (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy import special, stats

from leukemia_jax.metrics import statistics

DRAWS = 400
CONFIDENCE = 0.95
# Lowest share of 95 % intervals that hold the truth in simulated sets of fewer
# groups of the smallest class, which differ much.
ENOUGH_GROUPS = 20
COVERAGE = 0.88
# Differences below it are rounding.
_ZERO = 1e-9
# Numbers held at once.
_CHUNK = 4_000_000


class Groups(NamedTuple):
  """Which images belong together.

  Attributes:
    of_image: int, shape (images,): each image's group.
    majority: int, shape (groups,): the class of most of a group's images.
    holds: bool, shape (groups, classes): which classes a group has images of.
  """

  of_image: np.ndarray
  majority: np.ndarray
  holds: np.ndarray

  @property
  def strata(self) -> np.ndarray:
    """The stratum that each group is drawn from: int, (groups,).

    Groups of one majority are a stratum, from which as many are drawn as there
    are. One alone can't be drawn: where others hold its class too it joins the
    stratum of most groups.
    """
    sizes = np.bincount(self.majority)
    is_single = sizes[self.majority] == 1
    joins = is_single & ~self.are_alone
    # Not a group whose class nobody else holds: it may not be drawn either.
    drawn = np.bincount(self.majority[~is_single | joins], minlength=len(sizes))
    return np.where(joins, drawn.argmax(), self.majority)

  @property
  def smallest(self) -> int:
    """Number of groups of the stratum, or with the class, that has fewest."""
    by_class = self.holds.sum(0)
    by_stratum = np.unique(self.strata, return_counts=True)[1]
    return int(min(by_stratum.min(), by_class[by_class > 0].min()))

  @property
  def are_pure(self) -> bool:
    """Whether each group is of one class."""
    return bool((self.holds.sum(1) == 1).all())

  @property
  def are_alone(self) -> np.ndarray:
    """Which groups are the only ones with some class: bool, (groups,)."""
    return (self.holds & (self.holds.sum(0) == 1)).any(1)

  def of_one_stratum(self) -> Self:
    """The same groups, whose classes don't matter."""
    return self._replace(
      majority=np.zeros_like(self.majority),
      holds=np.ones((len(self.majority), 1), bool),
    )

  def confusions(
    self, truth: np.ndarray, predicted: np.ndarray, num_classes: int
  ) -> np.ndarray:
    """Each group's counts by true and predicted class.

    Args:
      truth: int, shape (images,).
      predicted: likewise.
      num_classes: number of classes.

    Returns:
      float64, shape (groups, classes, classes).
    """
    counts = np.zeros((len(self.majority), num_classes, num_classes))
    np.add.at(counts, (self.of_image, truth, predicted), 1)
    return counts

  def sum(self, values: np.ndarray) -> np.ndarray:
    """Sums over each group's images.

    Args:
      values: shape (images, ...).

    Returns:
      float64, shape (groups, ...).
    """
    sums = np.zeros((len(self.majority), *values.shape[1:]))
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
  return Groups(index, counts.argmax(1), counts > 0)


# Maps how often each group counts, shape (samples, groups), to scores by name,
# each of shape (samples, ...).
Score = Callable[[np.ndarray], Mapping[str, np.ndarray]]


class Spread(NamedTuple):
  """What drawing the groups of one stratum after the other does to a score.

  Attributes:
    variance: shape (strata, ...): by drawing that stratum's groups alone; nan
      if the score depends on the only group of a stratum, or with a class.
    needed: int, shape (...): number of groups of the smallest class without
      which there is no score; of all where there is one without any.
  """

  variance: np.ndarray
  needed: np.ndarray


def spreads(
  rng: np.random.Generator,
  groups: Groups,
  score: Score,
  *,
  draws: int = DRAWS,
  width: int = 1,
) -> dict[str, Spread]:
  """Draws the groups of each stratum with replacement, the others as they are.

  Args:
    rng: draws the groups.
    groups: that are drawn.
    score: of samples.
    draws: number of samples, of each stratum.
    width: how many numbers `score` holds at once for one sample.

  Returns:
    The spread of each score, by name.
  """
  strata = groups.strata
  size = max(1, _CHUNK // max(width, len(strata)))
  estimates = score(np.ones((1, len(strata))))
  variances: dict[str, list[np.ndarray]] = {name: [] for name in estimates}
  for own in (np.flatnonzero(strata == value) for value in np.unique(strata)):
    parts, without = [], []
    if len(own) > 1:
      for first in range(0, draws, size):
        times = np.ones((min(size, draws - first), len(strata)))
        shares = np.full(len(own), 1 / len(own))
        times[:, own] = rng.multinomial(len(own), shares, len(times))
        with np.errstate(invalid='ignore', divide='ignore'):
          parts.append(score(times))
    # Nobody knows what another group in the place of an only one would be like.
    for group in own if len(own) == 1 else own[groups.are_alone[own]]:
      times = np.ones((1, len(strata)))
      times[:, group] = 0
      with np.errstate(invalid='ignore', divide='ignore'):
        without.append(score(times))
    for name, estimate in estimates.items():
      variance = np.zeros_like(estimate[0], float)
      if parts:
        samples = np.concatenate([part[name] for part in parts])
        variance = _variance(samples) * len(own) / (len(own) - 1)
      for others in without:
        left = others[name][0]
        # Without the only one of a stratum it is another, or none; without one
        # that has images of several classes none.
        depends = np.isnan(left)
        if len(own) == 1:
          depends = ~(np.abs(left - estimate[0]) <= _ZERO)
        variance = np.where(depends, np.nan, variance)
      variances[name].append(variance)
  needed = _needed(groups, score, estimates)
  return {
    name: Spread(np.stack(variances[name]), needed[name]) for name in estimates
  }


def _needed(
  groups: Groups, score: Score, estimates: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """See `Spread`: what is nan without a class, or without all others."""
  count = len(groups.strata)
  needed = {
    name: np.full(own.shape[1:], count) for name, own in estimates.items()
  }
  for held in groups.holds.T:
    for missing in (held, ~held):
      if not missing.any() or missing.all():
        continue
      with np.errstate(invalid='ignore', divide='ignore'):
        left = score(np.where(missing, 0.0, 1.0)[None])
      for name, own in needed.items():
        fewer = np.minimum(own, missing.sum())
        needed[name] = np.where(np.isnan(left[name][0]), fewer, own)
  return needed


def _variance(samples: np.ndarray) -> np.ndarray:
  """Variance of the samples that have a score."""
  known = ~np.isnan(samples)
  count = known.sum(0)
  with np.errstate(invalid='ignore', divide='ignore'):
    mean = np.where(known, samples, 0).sum(0) / count
    squared = np.where(known, samples - mean, 0) ** 2
    # Too few samples that have a score tell nothing.
    enough = count * 2 > len(samples)
    return np.where(enough, squared.sum(0) / count, np.nan)


def interval(
  estimate: np.ndarray,
  spread: Spread,
  groups: Groups,
  *,
  is_share: bool = True,
) -> np.ndarray:
  """The interval of a score: its bootstrap deviation, by Student's t.

  Each stratum's variance is widened for its number of groups, and the degrees
  of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946). The deviation of
  a share is taken on the logit scale, where it is nearly symmetric (Brown, Cai
  and DasGupta, Statistical Science 16, 2001).

  Args:
    estimate: shape (...): of all groups.
    spread: from `spreads`.
    groups: that were drawn.
    is_share: whether the score is one from 0 to 1.

  Returns:
    float, shape (2, ...): its ends; nan where they are unknown: the score
    depends on the only group of a stratum, or with a class, or does not vary
    although it is neither 0 nor 1. A share of 0 or 1 has Wilson's, of as many
    successes as groups are needed for it.
  """
  estimate = np.asarray(estimate, float)
  sizes = np.unique(groups.strata, return_counts=True)[1]
  total = spread.variance.sum(0)
  freedoms = np.maximum(sizes - 1, 1).reshape(-1, *[1] * estimate.ndim)
  with np.errstate(invalid='ignore', divide='ignore'):
    freedom = total**2 / (spread.variance**2 / freedoms).sum(0)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(total)
  half = np.where(total > _ZERO**2, half, np.nan)
  sides = np.array([-1.0, 1.0]).reshape(2, *[1] * estimate.ndim)
  if not is_share:
    return estimate + sides * half
  inner = np.clip(estimate, 1e-9, 1 - 1e-9)
  ends = special.expit(
    special.logit(inner) + sides * half / (inner * (1 - inner))
  )
  wilson = np.array(
    [statistics.wilson_interval(n, n) for n in np.ravel(spread.needed).tolist()]
  )
  wilson = wilson.T.reshape(2, *estimate.shape)
  is_known = ~np.isnan(total)
  ends = np.where((estimate >= 1 - 1e-9) & is_known, wilson, ends)
  return np.where((estimate <= 1e-9) & is_known, 1 - wilson[::-1], ends)


def score_with_intervals(
  rng: np.random.Generator,
  groups: Groups,
  score: Score,
  *,
  not_shares: Collection[str] = (),
  from_zero: Collection[str] = (),
  bearing: Mapping[str, int] | None = None,
  alternatives: Sequence[Mapping[str, np.ndarray]] = (),
) -> tuple[dict[str, float], dict[str, list[float]]]:
  """Each score with its interval.

  Args:
    rng: draws the samples.
    groups: of the images.
    score: of samples, one number each.
    not_shares: names of the scores that don't go from 0 to 1.
    from_zero: of those that go from 0 up, not to 1.
    bearing: number of groups that bear on a score, by its name, where these are
      not those of a class.
    alternatives: the scores, shape (1,) each, or some of them, of what can't be
      drawn and may be as well; see `alternative_confusions`.

  Returns:
    Scores by name, and the ends of their intervals, without those that have
    none.
  """
  estimates = score(np.ones((1, len(groups.strata))))
  ends = {}
  for name, spread in spreads(
    rng, groups, score, width=len(groups.of_image)
  ).items():
    if bearing and name in bearing:
      # Where none does there is no score.
      fewer = np.minimum(spread.needed, max(1, bearing[name]))
      spread = spread._replace(needed=fewer)
    is_share = name not in not_shares and name not in from_zero
    estimate = estimates[name][0]
    own = interval(estimate, spread, groups, is_share=is_share)
    # Wilson's interval, of a share of 0 or 1, is wide enough.
    if not is_share or _ZERO < estimate < 1 - _ZERO:
      others = [values[name][0] for values in alternatives if name in values]
      is_steady = spread.variance.sum() <= _ZERO**2
      if is_steady and np.ptp([estimate, *others]) > _ZERO:
        own = np.full(2, estimate)
      own = _widen(own, estimate, others)
    if is_share:
      own = np.clip(own, 0, 1)
    ends[name] = np.maximum(own, 0) if name in from_zero else own
  scores = {name: float(values[0]) for name, values in estimates.items()}
  known = {name: own for name, own in ends.items() if np.isfinite(own).all()}
  return scores, {name: own.tolist() for name, own in known.items()}


def _widen(
  ends: np.ndarray, estimate: float, alternatives: Sequence[float]
) -> np.ndarray:
  """The interval of a score with what can't be drawn and may be as well."""
  away = np.nan_to_num(np.array(alternatives) - estimate)
  # The deviations of independent parts of a sum, each on its own side.
  low = np.hypot(estimate - ends[0], np.linalg.norm(np.minimum(away, 0)))
  high = np.hypot(ends[1] - estimate, np.linalg.norm(np.maximum(away, 0)))
  return np.array([estimate - low, estimate + high])


def alternative_confusions(
  confusions: np.ndarray, groups: Groups
) -> list[np.ndarray]:
  """What classes may be like of which all images are predicted alike.

  However their groups are drawn, these have a recall of 1, or of 0: of five
  groups nobody would say so. Each such class has, in its turn, the recall that
  one more group predicted otherwise would give, n / (n + 1) of n groups (the
  limit of Wilson's interval of one standard deviation); what it loses is spread
  evenly over the other classes. How far a score moves is that class' part of
  its interval (Zou and Donner, Statistics in Medicine 27, 2008: the limits of a
  sum from those of its parts). Twice as far, as a normal deviation's 95 % are,
  makes intervals wider, and in simulated sets no surer.

  Args:
    confusions: shape (groups, classes, classes).
    groups: that they are of.

  Returns:
    Of each such class: all groups' counts, shape (1, classes, classes).
  """
  total, changed = confusions.sum(0), []
  for label, own in enumerate(total):
    count, correct = own.sum(), own[label]
    if not count or 0 < correct < count or len(own) < 2:
      continue
    number = int((confusions[:, label].sum(1) > 0).sum())
    recall = (number if correct else 1) / (number + 1)
    shares = np.ones(len(own)) if correct else own.copy()
    shares[label] = 0
    moved = total.copy()
    moved[label] = shares / shares.sum() * (1 - recall) * count
    moved[label, label] = recall * count
    changed.append(moved[None])
  return changed
