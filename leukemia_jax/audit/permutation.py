"""How often chance would score as well: p-values by permuted classes.

Images of a group are alike, so whole groups change classes with each other.
Where some groups have images of several classes, images change classes within
their group too, and the smaller p-value counts twice (Bonferroni): either test
leaves alone what tells groups apart, and misses what the other one sees.
"""

from collections.abc import Callable

import numpy as np
from scipy import special, stats

from leukemia_jax.metrics.bootstrap import Groups

_PERMUTATIONS = 2000
# How often the smallest p-value is as small as is foretold.
_SURE = 0.95

# Maps counts by true and predicted class, shape (classifiers, classes,
# classes), to scores of shape (classifiers,), by the classes that are there.
Score = Callable[[np.ndarray], np.ndarray]


def p_values(
  rng: np.random.Generator,
  truth: np.ndarray,
  predicted: np.ndarray,
  groups: Groups,
  counts: np.ndarray,
  score: Score,
) -> np.ndarray:
  """How often groups or images of permuted classes score as well.

  Args:
    rng: permutes.
    truth: int, shape (n,).
    predicted: int, shape (classifiers, n).
    groups: of the images.
    counts: shape (groups, classifiers, classes, classes), by true and predicted
      class.
    score: of counts.

  Returns:
    float, shape (classifiers,): above 0, at most 1.
  """
  by_groups = _by_groups(rng, groups.majority, counts.sum(2), score)
  if groups.are_pure:
    return by_groups
  num_classes = counts.shape[-1]
  within = _within_groups(
    rng, truth, predicted, groups.of_image, num_classes, score
  )
  return np.minimum(1, 2 * np.minimum(by_groups, within))


def smallest(truth: np.ndarray, groups: Groups) -> float:
  """The p-value of who predicts every class: few groups permute in few ways.

  Args:
    truth: int, shape (n,).
    groups: of the images.

  Returns:
    Above 0, at most 1: one in as many as there are ways, or permutations, with
    what sampling adds in 95 % of all samples.
  """

  def logarithm(counts: np.ndarray) -> float:
    """Of the number of ways to give counts of things to classes."""
    ways = special.gammaln(counts.sum(-1) + 1) - special.gammaln(
      counts + 1
    ).sum(-1)
    return float(np.sum(ways))

  by_groups = logarithm(np.bincount(groups.majority))
  if groups.are_pure:
    ways, tests = by_groups, 1
  else:
    size = len(groups.majority), truth.max() + 1
    counts = np.zeros(size)
    np.add.at(counts, (groups.of_image, truth), 1)
    ways, tests = max(by_groups, logarithm(counts)), 2
  # Of few ways some permutations are the classes as they are.
  as_good = stats.binom.ppf(_SURE, _PERMUTATIONS, np.exp(-ways))
  return min(1.0, tests * float(1 + as_good) / (1 + _PERMUTATIONS))


def _as_good(own: np.ndarray, draw: Callable[[], np.ndarray]) -> np.ndarray:
  """The share of permutations that score as well, the own one among them."""
  as_good = np.zeros(len(own))
  for _ in range(_PERMUTATIONS):
    as_good += draw() >= own - 1e-9
  return (1 + as_good) / (1 + _PERMUTATIONS)


def _by_groups(
  rng: np.random.Generator,
  majority: np.ndarray,
  by_predicted: np.ndarray,
  score: Score,
) -> np.ndarray:
  """Groups change the classes that they count as with each other.

  Args:
    rng: permutes.
    majority: int, shape (groups,): the class of most of a group's images.
    by_predicted: counts, shape (groups, classifiers, classes).
    score: see `p_values`.

  Returns:
    See `p_values`.
  """
  count, classifiers, classes = by_predicted.shape
  of_class = np.eye(classes)[majority].T
  flat = by_predicted.reshape(count, -1)

  def scored(places: np.ndarray) -> np.ndarray:
    sums = of_class[:, places] @ flat
    return score(sums.reshape(classes, classifiers, classes).swapaxes(0, 1))

  return _as_good(
    scored(np.arange(count)), lambda: scored(rng.permutation(count))
  )


def _within_groups(
  rng: np.random.Generator,
  truth: np.ndarray,
  predicted: np.ndarray,
  of_image: np.ndarray,
  num_classes: int,
  score: Score,
) -> np.ndarray:
  """Images change classes within their group; see `p_values`."""
  by_group = np.argsort(of_image, kind='stable')
  labels, places = truth[by_group], of_image[by_group]
  size = len(predicted) * num_classes**2
  first_cells = np.arange(0, size, num_classes**2)[:, None]
  cells = first_cells + predicted[:, by_group]

  def scored(labels: np.ndarray) -> np.ndarray:
    counts = np.bincount((cells + num_classes * labels).ravel(), minlength=size)
    return score(counts.reshape(-1, num_classes, num_classes))

  def draw() -> np.ndarray:
    return scored(labels[np.lexsort((rng.random(len(labels)), places))])

  return _as_good(scored(labels), draw)
