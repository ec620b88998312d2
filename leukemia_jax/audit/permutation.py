"""How often chance would score as well: p-values by permuted classes.

Images of a group are alike, so whole groups change classes with each other.
Where some class is in no group the most frequent one, groups of one class are
rare, and images change classes within their group instead. Either leaves alone
what a classifier that tells nothing knows (Good, Permutation, Parametric and
Bootstrap Tests, 2005).
"""

from collections.abc import Callable

import numpy as np

from leukemia_jax.metrics.bootstrap import Groups

_PERMUTATIONS = 2000

# Maps counts by true and predicted class, shape (classifiers, classes,
# classes), to scores of shape (classifiers,).
Score = Callable[[np.ndarray], np.ndarray]


def p_values(
  rng: np.random.Generator,
  truth: np.ndarray,
  predicted: np.ndarray,
  groups: Groups,
  num_classes: int,
  score: Score,
) -> np.ndarray:
  """How often images or groups of permuted classes score as well.

  Args:
    rng: permutes.
    truth: int, shape (n,).
    predicted: int, shape (classifiers, n).
    groups: of the images.
    num_classes: number of classes.
    score: of counts.

  Returns:
    float, shape (classifiers,): above 0, at most 1.
  """
  if np.isin(truth, groups.strata).all():
    counts = np.stack(
      [groups.confusions(truth, own, num_classes) for own in predicted], 1
    )
    scored = _by_groups(rng, groups.strata, counts.sum(2), score)
  else:
    scored = _within_groups(rng, truth, predicted, groups, num_classes, score)
  own = scored(False)
  as_good = np.zeros(len(predicted))
  for _ in range(_PERMUTATIONS):
    as_good += scored(True) >= own - 1e-9
  return (1 + as_good) / (1 + _PERMUTATIONS)


def _by_groups(
  rng: np.random.Generator,
  strata: np.ndarray,
  by_predicted: np.ndarray,
  score: Score,
) -> Callable[[bool], np.ndarray]:
  """Scores groups by the class that each counts as, permuted or not.

  `by_predicted` counts predictions, shape (groups, classifiers, classes).
  """
  count, classifiers, classes = by_predicted.shape
  of_class = np.eye(classes)[strata].T
  flat = by_predicted.reshape(count, -1)

  def scored(permuted: bool) -> np.ndarray:
    places = rng.permutation(count) if permuted else np.arange(count)
    sums = of_class[:, places] @ flat
    return score(sums.reshape(classes, classifiers, classes).swapaxes(0, 1))

  return scored


def _within_groups(
  rng: np.random.Generator,
  truth: np.ndarray,
  predicted: np.ndarray,
  groups: Groups,
  num_classes: int,
  score: Score,
) -> Callable[[bool], np.ndarray]:
  """Scores images by their classes, permuted within their groups or not."""
  by_group = np.argsort(groups.of_image, kind='stable')
  labels, places = truth[by_group], groups.of_image[by_group]
  size = len(predicted) * num_classes**2
  first_cells = np.arange(0, size, num_classes**2)[:, None]
  cells = first_cells + predicted[:, by_group]

  def scored(permuted: bool) -> np.ndarray:
    own = labels
    if permuted:
      own = labels[np.lexsort((rng.random(len(labels)), places))]
    counts = np.bincount((cells + num_classes * own).ravel(), minlength=size)
    return score(counts.reshape(-1, num_classes, num_classes))

  return scored
