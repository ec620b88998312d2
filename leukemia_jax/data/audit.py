"""Shortcuts to the label: what simple numbers, not cells, already give away.

A score counts for something only beside what a baseline reaches that never
looks at a cell.
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_BATCH = 64


def colour_features(images: np.ndarray) -> np.ndarray:
  """Mean and standard deviation of R, G and B: six numbers an image.

  Args:
    images: uint8, shape (n, height, width, 3).

  Returns:
    float64, shape (n, 6).
  """
  rows = [
    np.concatenate([image.mean((0, 1)), image.std((0, 1))]) for image in images
  ]
  return np.array(rows)


def colour_accuracy(
  images: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> float:
  """Accuracy of 3-nearest-neighbours on `colour_features`.

  Args:
    images: uint8, shape (n, height, width, 3).
    labels: int, shape (n,).
    train: row numbers of the training part.
    test: row numbers of the test part.

  Returns:
    The share of test images that get their class.
  """
  features = colour_features(images)
  neighbours = KNeighborsClassifier(min(3, len(train)))
  model = neighbours.fit(features[train], labels[train])
  return float(model.score(features[test], labels[test]))


@jax.jit
def _trace_features(images: jax.Array) -> jax.Array:
  values = images.astype(jnp.float32)
  luma = values @ jnp.array([0.299, 0.587, 0.114])
  chroma = values[..., 0] - values[..., 1]
  side = luma.shape[1]
  features = []
  for axis in (1, 2):
    step = jnp.abs(jnp.diff(luma, axis=axis)).mean(3 - axis)
    on_grid = jnp.arange(side - 1) % 8 == 7
    inside = jnp.where(on_grid, 0.0, step).sum(-1) / (~on_grid).sum()
    across = jnp.where(on_grid, step, 0.0).sum(-1) / on_grid.sum()
    features += [across / (inside + 1e-3), inside]
  for plane in (luma, chroma):
    bend = 4 * plane[:, 1:-1, 1:-1]
    bend -= plane[:, :-2, 1:-1] + plane[:, 2:, 1:-1]
    bend -= plane[:, 1:-1, :-2] + plane[:, 1:-1, 2:]
    features.append(jnp.log(bend.var((1, 2)) + 1e-3))
  edge = max(2, side // 16)
  for rows in (slice(None, edge), slice(-edge, None)):
    for columns in (slice(None, edge), slice(-edge, None)):
      corner = luma[:, rows, columns]
      features += [corner.mean((1, 2)), corner.min((1, 2))]
      features.append(jnp.abs(jnp.diff(corner, axis=1)).mean((1, 2)))
      features.append(jnp.abs(jnp.diff(corner, axis=2)).mean((1, 2)))
  return jnp.stack(features, -1)


def trace_features(images: np.ndarray) -> np.ndarray:
  """What processing leaves behind, and cells do not.

  Steps across the 8 px grid of JPEG blocks against steps inside them, fine
  detail of luma and chroma (lost by resampling and chroma sub-sampling), and
  level and steps of the four corners (filled by a rotation).

  Args:
    images: uint8, shape (n, size, size, 3).

  Returns:
    float32, shape (n, 22).
  """
  batches = range(0, len(images), _BATCH)
  parts = [np.asarray(_trace_features(images[i : i + _BATCH])) for i in batches]
  return np.concatenate(parts)


def trace_probe(
  images: np.ndarray, labels: np.ndarray, sources: np.ndarray
) -> float:
  """How well a linear model finds labels from `trace_features` alone.

  Give it the images as they are trained on, but labels that were dealt out at
  random: then no image can tell its label, and what the model finds is how far
  balancing and augmenting mark the class.

  Args:
    images: uint8, shape (n, size, size, 3).
    labels: int, shape (n,).
    sources: int, shape (n,); images of one source are never on both sides of
      the five-fold cross-validation.

  Returns:
    Balanced accuracy; 1 / classes is chance.
  """
  features = trace_features(images)
  model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
  called = np.empty_like(labels)
  for fit, held_out in GroupKFold(5).split(features, labels, sources):
    model.fit(features[fit], labels[fit])
    called[held_out] = model.predict(features[held_out])
  return float(balanced_accuracy_score(labels, called))
