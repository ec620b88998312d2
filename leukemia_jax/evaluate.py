"""Scoring a model on a part of a set: every image counts exactly once."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import metrics
from leukemia_jax.data.dataset import Dataset

# What network inputs are scaled to; see `preprocess`.
PREPROCESSING = ('unit', 'backbone')


class Sums(NamedTuple):
  """Sums over images: losses, and counts by true and called class."""

  loss: jax.Array
  confusion: jax.Array


def preprocess(images: jax.Array, kind: str) -> jax.Array:
  """Scales uint8 images for a network.

  Args:
    images: uint8, any shape.
    kind: 'unit' for [0, 1], 'backbone' for [-1, 1] (ImageNet weights').

  Returns:
    float32 array of the same shape.
  """
  if kind not in PREPROCESSING:
    raise ValueError(f'no input scale {kind!r}; there are {PREPROCESSING}')
  values = images.astype(jnp.float32)
  return values / 255.0 if kind == 'unit' else values / 127.5 - 1.0


def make_eval_step(
  *,
  apply_fn: Callable[..., Any],
  preprocessing: str,
  objective: Callable[..., tuple[jax.Array, jax.Array]],
) -> Callable[..., Sums]:
  """Makes the compiled step that adds a batch to the sums.

  Args:
    apply_fn: a model's `apply`, which gives (logits, intermediates).
    preprocessing: see `preprocess`.
    objective: see `train.make_train_step`.

  Returns:
    (variables, dataset, rows, weights, sums) -> sums; rows with weight 0 fill
    the last batch and don't count. With masks the sums are of
    `metrics.pixel_confusion`, ground and cells.
  """

  @jax.jit
  def eval_step(
    variables: Any,
    dataset: Dataset,
    rows: jax.Array,
    weights: jax.Array,
    sums: Sums,
  ) -> Sums:
    images = preprocess(dataset.images[rows], preprocessing)
    logits, _ = apply_fn(variables, images, train=False)
    if dataset.masks is None:
      targets = dataset.labels[rows]
      confusion = metrics.confusion_matrix(logits, targets, weights)
    else:
      targets = dataset.masks[rows]
      confusion = metrics.pixel_confusion(logits, targets, weights)
    losses, _ = objective(logits, targets)
    return Sums(
      sums.loss + (losses * weights).sum(), sums.confusion + confusion
    )

  return eval_step


def make_probability_step(
  *, apply_fn: Callable[..., Any], preprocessing: str
) -> Callable[..., jax.Array]:
  """Makes the compiled step that says how sure a segmenter is of cells.

  Args:
    apply_fn: a U-Net's `apply`.
    preprocessing: see `preprocess`.

  Returns:
    (variables, dataset, rows) -> float32 (rows, height, width).
  """

  @jax.jit
  def step(variables: Any, dataset: Dataset, rows: jax.Array) -> jax.Array:
    images = preprocess(dataset.images[rows], preprocessing)
    logits, _ = apply_fn(variables, images, train=False)
    return jax.nn.sigmoid(logits[..., 0])

  return step


def probabilities(
  step: Callable[..., jax.Array],
  variables: Any,
  dataset: Dataset,
  rows: np.ndarray,
  *,
  batch_size: int,
) -> Iterator[np.ndarray]:
  """What a segmenter takes for cells, batch by batch.

  Args:
    step: from `make_probability_step`.
    variables: the model's.
    dataset: the set.
    rows: int array, row numbers in the set.
    batch_size: images a step; the last batch is filled up.

  Yields:
    float32 of shape (batch or less, height, width), in the order of the rows.
  """
  for start in range(0, len(rows), batch_size):
    batch = rows[start : start + batch_size]
    filled = np.resize(batch, batch_size)
    yield np.asarray(step(variables, dataset, filled))[: len(batch)]


def run(
  eval_step: Callable[..., Sums],
  variables: Any,
  dataset: Dataset,
  rows: np.ndarray,
  *,
  batch_size: int,
  num_classes: int,
) -> tuple[float, np.ndarray]:
  """Scores a model on some rows of a set.

  Args:
    eval_step: from `make_eval_step`.
    variables: the model's.
    dataset: the set.
    rows: int array, row numbers in the set.
    batch_size: images a step; the last batch is filled up.
    num_classes: number of classes.

  Returns:
    The sum of the losses, and counts by true class (row) and called class
    (column), float32 (classes, classes).
  """
  sums = Sums(jnp.zeros(()), jnp.zeros((num_classes, num_classes)))
  for start in range(0, len(rows), batch_size):
    batch = rows[start : start + batch_size]
    weights = np.arange(batch_size) < len(batch)
    batch = np.resize(batch, batch_size)
    sums = eval_step(
      variables, dataset, batch, weights.astype(np.float32), sums
    )
  loss, confusion = jax.device_get(sums)
  return float(loss), confusion
