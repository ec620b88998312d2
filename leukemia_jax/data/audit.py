"""Shortcuts to the label: what simple numbers, not cells, already give away.

A score counts for something only beside what a baseline reaches that never
looks at a cell.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from leukemia_jax.data import dataset, splits

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
  model = KNeighborsClassifier(3).fit(features[train], labels[train])
  return float(model.score(features[test], labels[test]))


@jax.jit
def _trace_features(images: jax.Array) -> jax.Array:
  values = images.astype(jnp.float32)
  luma = values @ jnp.array([0.299, 0.587, 0.114])
  chroma = values[..., 0] - values[..., 1]
  side = luma.shape[1]
  features = []
  for axis in (1, 2):
    step = jnp.abs(jnp.diff(luma, axis=axis)).mean((0, 3 - axis)[1])
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
  key: jax.Array,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  order: str,
  augment: Callable[[jax.Array, jax.Array], jax.Array],
) -> float:
  """How far balancing alone marks the class, whatever the images show.

  The labels are dealt out anew at random, as many of each as there were, so
  no image can tell its label. Then the set is balanced and augmented as in
  training, and a linear model has to find the label from `trace_features`, on
  sources that it was not fitted on.

  Args:
    key: PRNG key.
    images: uint8, shape (n, size, size, 3), the originals.
    labels: int, shape (n,); only their counts are used.
    order: one of `splits.ORDERS`.
    augment: maps (key, image) to an image.

  Returns:
    Balanced accuracy; 1 / classes is chance.
  """
  label_key, split_key, copy_key, step_key = jax.random.split(key, 4)
  labels = np.asarray(jax.random.permutation(label_key, jnp.asarray(labels)))
  classes = int(labels.max()) + 1
  settings = {
    'num_classes': classes,
    'option': 1,
    'target': splits.per_class(labels, classes),
  }
  if order == 'balance_then_split':
    parts = splits.balance_then_split(split_key, labels, **settings)
  else:
    groups = np.arange(len(labels))
    parts = splits.split_then_balance(split_key, labels, groups, **settings)
  rows = parts.train
  original = dataset.Dataset(jnp.asarray(images), jnp.asarray(labels))
  if order == 'balance_then_split':
    copied = rows[rows[:, 1] > 0]
    every = dataset.with_copies(original, copied, copy_key, augment)
    rows = np.concatenate([rows[rows[:, 1] == 0], copied])
    place = np.where(rows[:, 1] == 0, rows[:, 0], 0)
    place[rows[:, 1] > 0] = len(labels) + np.arange(len(copied))
    seen = np.asarray(every.images)[place]
  else:
    # Numbered, so that each repetition is augmented by a key of its own.
    numbered = np.stack([rows[:, 0], 1 + np.arange(len(rows))], 1)
    every = dataset.with_copies(original, numbered, step_key, augment)
    seen = np.asarray(every.images)[len(labels) :]
  features, truth, source = trace_features(seen), labels[rows[:, 0]], rows[:, 0]
  model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
  called = np.empty_like(truth)
  for fit, held_out in GroupKFold(5).split(features, truth, source):
    model.fit(features[fit], truth[fit])
    called[held_out] = model.predict(features[held_out])
  return float(balanced_accuracy_score(truth, called))
