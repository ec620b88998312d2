"""How far an image lies from those that a classifier was trained on.

Of the ways that `docs/results.md` tabulates, the Mahalanobis distance to the
nearest class, with one covariance for all (Lee et al., NeurIPS 2018), of
features after the first stage of a backbone.
"""

from typing import NamedTuple

import numpy as np


class Detector(NamedTuple):
  """What distances are measured from.

  Attributes:
    means: float64, shape (classes, channels): mean features of each class.
    precision: float64, shape (channels, channels): inverse covariance within
      classes.
  """

  means: np.ndarray
  precision: np.ndarray


def fit(features: np.ndarray, labels: np.ndarray) -> Detector:
  """Fits a detector.

  Args:
    features: float, shape (n, channels), of training images.
    labels: int, shape (n,).

  Returns:
    The detector; its covariance is shrunk as Ledoit and Wolf do (Journal of
    Multivariate Analysis 88, 2004), so that few images suffice.
  """
  from sklearn import covariance

  classes, index = np.unique(labels, return_inverse=True)
  own = features.astype(float)
  means = np.stack([own[labels == label].mean(0) for label in classes])
  # Channels differ in size, and shrinkage takes them for alike.
  size = own.std(0)
  # Some never fire, or always alike.
  size = np.where(size > 1e-6 * np.abs(own).mean(0), size, np.inf)
  within = covariance.LedoitWolf(assume_centered=True)
  within.fit((own - means[index]) / size)
  precision = within.precision_ / np.outer(size, size)
  return Detector(means, precision)


def distances(detector: Detector, features: np.ndarray) -> np.ndarray:
  """Mahalanobis distance to the nearest class.

  Args:
    detector: from `fit`.
    features: float, shape (n, channels).

  Returns:
    float64, shape (n,), 0 and above.
  """
  nearest = np.full(len(features), np.inf)
  for mean in detector.means:
    away = features.astype(float) - mean
    squared = np.einsum('nc,cd,nd->n', away, detector.precision, away)
    nearest = np.minimum(nearest, squared)
  return np.sqrt(np.maximum(nearest, 0))
