"""Distances in feature space against SciPy's, and what they tell apart."""

import numpy as np
import pytest
from scipy.spatial import distance
from sklearn.covariance import LedoitWolf

from leukemia_jax.metrics import outliers


def drawn(count=600, channels=6):
  rng = np.random.default_rng(0)
  mixing = rng.normal(size=(channels, channels))
  labels = np.arange(count) % 3
  centres = 5 * rng.normal(size=(3, channels))
  features = rng.normal(size=(count, channels)) @ mixing + centres[labels]
  return features.astype(np.float32), labels


def test_the_distance_to_the_nearest_class_is_scipy_s():
  features, labels = drawn()
  detector = outliers.fit(features, labels)
  means = np.stack([features[labels == c].mean(0) for c in range(3)])
  np.testing.assert_allclose(detector.means, means, rtol=1e-5)
  size = features.astype(float).std(0)
  within = (features - means[labels]).astype(float) / size
  cov = LedoitWolf(assume_centered=True).fit(within).covariance_
  inverse = np.linalg.inv(cov * np.outer(size, size))
  expected = [
    min(distance.mahalanobis(x, mean, inverse) for mean in means)
    for x in features[:50]
  ]
  got = outliers.distances(detector, features[:50])
  assert got == pytest.approx(expected, rel=1e-4)


def test_what_lies_off_the_classes_is_far():
  features, labels = drawn()
  detector = outliers.fit(features[:300], labels[:300])
  known = outliers.distances(detector, features[300:])
  between = outliers.distances(detector, features[300:] + 40)
  assert between.min() > known.max()


def test_channels_of_any_size_count_alike():
  features, labels = drawn()
  size = np.float32([1, 1e3, 1e-3, 1, 1e2, 1])
  first = outliers.distances(outliers.fit(features, labels), features)
  second = outliers.distances(
    outliers.fit(features * size, labels), features * size
  )
  assert second == pytest.approx(first, rel=1e-3)


def test_constant_channels_and_classes_without_images_do_no_harm():
  features, labels = drawn(60)
  features[:, 2] = 3
  labels = np.where(labels == 1, 5, labels)
  detector = outliers.fit(features, labels)
  got = outliers.distances(detector, features)
  assert detector.means.shape == (3, 6)
  assert np.isfinite(got).all()
