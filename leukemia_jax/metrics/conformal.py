"""Thresholds that hold at a rate which the user names, from held-out images.

Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; with
images that are exchangeable the rate is kept on average. Images of one patient
are not, so what new patients show is reported beside it.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from leukemia_jax.metrics import calibration


@dataclasses.dataclass(frozen=True)
class Rates:
  """What thresholds of a prediction's flags are chosen by.

  Attributes:
    false_alarms: share of images like the training images that may be flagged
      as unlike them.
    coverage: share of images whose set of classes shall hold the true one.
  """

  false_alarms: float
  coverage: float


def upper_quantile(scores: np.ndarray, level: float) -> float:
  """The score that a new image exceeds at a rate of 1 - level or less.

  Args:
    scores: float, shape (n,), of held-out images.
    level: from 0 to 1.

  Returns:
    The ceil((n + 1) level)-th smallest; infinite where n is too small to say.
  """
  place = math.ceil((len(scores) + 1) * level)
  if place > len(scores):
    return math.inf
  return float(np.sort(scores)[max(place, 1) - 1])


def least_probability(
  probabilities: np.ndarray, labels: np.ndarray, coverage: float
) -> float:
  """The probability from which on a class belongs to an image's set.

  The least ambiguous sets (Sadinle, Lei and Wasserman, JASA 114, 2019).

  Args:
    probabilities: float, shape (n, classes), of held-out images.
    labels: int, shape (n,): their true classes.
    coverage: share of images whose set shall hold the true class.

  Returns:
    From 0 to 1.
  """
  own = probabilities[np.arange(len(labels)), labels]
  # Not of 1 - own: its rounding would leave out what is just as probable.
  return max(0.0, -upper_quantile(-own, coverage))


class Thresholds(NamedTuple):
  """From where on a prediction is flagged.

  Attributes:
    farthest: distance above which an image is unlike the training images.
    least: see `least_probability`.
  """

  farthest: float
  least: float


def thresholds(
  distances: np.ndarray,
  probabilities: np.ndarray,
  labels: np.ndarray,
  *,
  temperature: float,
  rates: Rates,
) -> Thresholds:
  """Chooses the thresholds of a classifier's flags.

  Args:
    distances: float, shape (n,), of held-out images, see `outliers.distances`.
    probabilities: float, shape (n, classes), without a temperature.
    labels: int, shape (n,): their true classes.
    temperature: of the classifier.
    rates: what is asked for.

  Returns:
    The thresholds.
  """
  known = calibration.with_temperature(probabilities, temperature)
  return Thresholds(
    upper_quantile(distances, 1 - rates.false_alarms),
    least_probability(known, labels, rates.coverage),
  )


def sets(probabilities: np.ndarray, least: float) -> np.ndarray:
  """The classes that can't be excluded.

  Args:
    probabilities: float, shape (n, classes).
    least: from `least_probability`.

  Returns:
    bool, shape (n, classes); the most probable class is in every set.
  """
  chosen = probabilities >= least
  chosen[np.arange(len(chosen)), probabilities.argmax(1)] = True
  return chosen
