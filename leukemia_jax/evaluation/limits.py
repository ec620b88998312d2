"""What a classifier's own images look like to it, and what thresholds reach."""

import numpy as np

from leukemia_jax.evaluation.assessment import LimitOutcomes
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.metrics import calibration, conformal, outliers
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.workdir.limits_file import HeldOut, Limits


def fit(
  train: ClassPredictions,
  train_labels: np.ndarray,
  validation: ClassPredictions,
  validation_labels: np.ndarray,
) -> Limits:
  """Learns what the images of a run look like to its classifier.

  Args:
    train: what was said of the training part, n images.
    train_labels: int, shape (n,).
    validation: what was said of the validation part, m images.
    validation_labels: int, shape (m,).

  Returns:
    The limits.
  """
  detector = outliers.fit(train.features, train_labels)
  held_out = HeldOut(
    outliers.distances(detector, validation.features),
    validation.probabilities,
    validation_labels,
  )
  return Limits(detector, held_out)


def apply(
  limits: Limits,
  predicted: ClassPredictions,
  labels: np.ndarray,
  *,
  temperature: float,
  rates: Rates,
) -> LimitOutcomes:
  """What the limits say of the test part.

  Args:
    limits: of the classifier.
    predicted: what was said of the test part, n images.
    labels: int, shape (n,).
    temperature: of the classifier.
    rates: that thresholds are chosen by.

  Returns:
    What was flagged.
  """
  farthest, least = conformal.thresholds(
    *limits.validation, temperature=temperature, rates=rates
  )
  new = calibration.with_temperature(predicted.probabilities, temperature)
  sets = conformal.sets(new, least)
  return LimitOutcomes(
    rates,
    outliers.distances(limits.detector, predicted.features) > farthest,
    sets[np.arange(len(labels)), labels],
    sets.sum(1) > 1,
  )
