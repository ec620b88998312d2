"""Whether a classifier is correct as often as it says, and how to mend it."""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

# Of the reliability diagram, and of the error that is read off it.
BINS = 15
_TEMPERATURES = (0.05, 20.0)
# Deviation of a temperature's logarithm, before an image is seen.
_PRIOR = 0.5
# Sets of right probabilities.
_CHANCE_DRAWS = 400
# Below it float32 loses digits.
_SMALLEST = 1e-38


@dataclasses.dataclass(frozen=True)
class CalibrationScores:
  """How far probabilities are from how often they are correct.

  Attributes:
    error: expected calibration error, from 0 to 1, over `BINS` bins of equal
      width (Guo et al., ICML 2017). It is never below 0, and of few images
      above 0 even for a perfect classifier.
    brier: mean squared distance of the probabilities from the truth, summed
      over classes, from 0 to 2 (Brier, Monthly Weather Review 78, 1950).
    loss: mean negative log likelihood, nats.
    confident: share of images predicted with a confidence of .9 or more.
    confident_accuracy: how often these are correct; None if there are none.
    error_by_chance: see `error_by_chance`; None in results of 0.5.0.
  """

  error: float
  brier: float
  loss: float
  confident: float
  confident_accuracy: float | None
  error_by_chance: float | None = None


class Reliability(NamedTuple):
  """A reliability diagram: by bin of confidence, shape (BINS,) each."""

  images: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray


CONFIDENT = 0.9


def sums(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """What calibration scores sum up over images.

  Args:
    probabilities: float, shape (n, classes).
    truth: int, shape (n,).

  Returns:
    float64, shape (n, 5 + 3 * BINS): images, squared distance, negative log
    likelihood, confident images and correct ones among them; then, by bin of
    confidence, images, confidence and correct images.
  """
  count = len(truth)
  own = probabilities[np.arange(count), truth]
  confidence = probabilities.max(1)
  correct = probabilities.argmax(1) == truth
  squared = (probabilities.astype(float) ** 2).sum(1) - 2 * own + 1
  sure = confidence >= CONFIDENT
  by_bin = np.zeros((count, 3, BINS))
  place = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
  by_bin[np.arange(count), :, place] = np.stack(
    [np.ones(count), confidence, correct], 1
  )
  losses = -np.log(np.maximum(own, _SMALLEST))
  whole = [np.ones(count), squared, losses, sure, sure & correct]
  return np.hstack([np.stack(whole, 1), by_bin.reshape(count, -1)])


def of_sums(totals: np.ndarray) -> dict[str, np.ndarray]:
  """The scores of sums over images.

  Args:
    totals: shape (n, 5 + 3 * BINS), see `sums`.

  Returns:
    The fields of `CalibrationScores`, shape (n,) each.
  """
  images, squared, losses, confident, confident_correct = totals[:, :5].T
  _, confidence, correct = totals[:, 5:].reshape(-1, 3, BINS).swapaxes(0, 1)
  with np.errstate(invalid='ignore', divide='ignore'):
    return {
      'error': np.abs(confidence - correct).sum(1) / images,
      'brier': squared / images,
      'loss': losses / images,
      'confident': confident / images,
      'confident_accuracy': confident_correct / confident,
    }


def error_by_chance(
  rng: np.random.Generator, probabilities: np.ndarray
) -> float:
  """The calibration error that right probabilities stay below in 95 % of sets.

  Consistency resampling (Broecker and Smith, Weather and Forecasting 22, 2007):
  each image is correct as often as its confidence says, whatever the others
  are. Images of one patient are alike, so that it may be more.

  Args:
    rng: draws which are correct.
    probabilities: float, shape (n, classes).

  Returns:
    From 0 to 1.
  """
  confidence = probabilities.max(1)
  place = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
  errors = [
    np.abs(
      np.bincount(place, (rng.random(len(place)) < confidence) - confidence)
    ).sum()
    for _ in range(_CHANCE_DRAWS)
  ]
  return float(np.quantile(errors, 0.95)) / len(place)


def reliability(probabilities: np.ndarray, truth: np.ndarray) -> Reliability:
  """The reliability diagram of some images; empty bins are nan."""
  totals = sums(probabilities, truth).sum(0)
  images, confidence, correct = totals[5:].reshape(3, BINS)
  with np.errstate(invalid='ignore'):
    return Reliability(images, confidence / images, correct / images)


def with_temperature(
  probabilities: np.ndarray, temperature: float | np.ndarray
) -> np.ndarray:
  """Probabilities of logits that are divided by a temperature.

  Args:
    probabilities: float, shape (n, classes), softmax of the logits.
    temperature: above 0, one for all or of shape (n, 1).

  Returns:
    float64 of the same shape.
  """
  logits = np.log(np.maximum(probabilities.astype(float), _SMALLEST))
  return special.softmax(logits / temperature, 1)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
  """The most likely temperature (Guo et al., ICML 2017).

  Its logarithm is held to be near 0 beforehand: where no image, or one in a
  few, is predicted incorrectly, the likelihood alone would make it 0.

  Args:
    probabilities: float, shape (n, classes).
    truth: int, shape (n,).

  Returns:
    A temperature from 0.05 to 20.
  """
  logits = np.log(np.maximum(probabilities.astype(float), _SMALLEST))
  own = logits[np.arange(len(truth)), truth]

  def loss(log_temperature: float) -> float:
    scale = np.exp(-log_temperature)
    losses = special.logsumexp(logits * scale, 1) - own * scale
    return float(losses.sum() + (log_temperature / _PRIOR) ** 2 / 2)

  low, high = np.log(_TEMPERATURES)
  best = optimize.minimize_scalar(loss, bounds=(low, high), method='bounded')
  return float(np.exp(best.x))
