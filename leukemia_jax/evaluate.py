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


def preprocess(images: jax.Array, kind: str | None) -> jax.Array:
  """Scales uint8 images for a network.

  Args:
    images: uint8, any shape; or features, float.
    kind: 'unit' for [0, 1], 'backbone' for [-1, 1] (ImageNet weights'); None
      for features, which stay as they are.

  Returns:
    float32 array of the same shape.
  """
  if kind is None:
    return images
  if kind not in PREPROCESSING:
    raise ValueError(f'no input scale {kind!r}; there are {PREPROCESSING}')
  values = images.astype(jnp.float32)
  return values / 255.0 if kind == 'unit' else values / 127.5 - 1.0


def make_eval_step(
  *,
  apply_fn: Callable[..., Any],
  preprocessing: str | None,
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


def in_batches(
  rows: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts rows into equal batches; what fills the last one up has weight 0.

  Args:
    rows: int array, shape (n,).
    batch_size: rows a batch.

  Returns:
    Rows, int32, and weights, float32, of shape (batches, batch_size).
  """
  count = -(-len(rows) // batch_size)
  weights = np.arange(count * batch_size) < len(rows)
  last = rows[(count - 1) * batch_size :]
  filled = np.concatenate(
    [rows[: (count - 1) * batch_size], np.resize(last, batch_size)]
  )
  shape = count, batch_size
  return (
    filled.astype(np.int32).reshape(shape),
    weights.astype(np.float32).reshape(shape),
  )


def total(
  eval_step: Callable[..., Sums],
  variables: Any,
  dataset: Dataset,
  rows: jax.Array,
  weights: jax.Array,
  *,
  num_classes: int,
) -> Sums:
  """`run` as a loop within a compiled function, for what holds no convolution.

  Args:
    eval_step: from `make_eval_step`.
    variables: the model's.
    dataset: the set.
    rows: int32, shape (batches, batch size), from `in_batches`.
    weights: float32, of the same shape.
    num_classes: number of classes.

  Returns:
    The sums over all rows.
  """
  nothing = Sums(jnp.zeros(()), jnp.zeros((num_classes, num_classes)))
  sums, _ = jax.lax.scan(
    lambda sums, batch: (eval_step(variables, dataset, *batch, sums), None),
    nothing,
    (rows, weights),
  )
  return sums


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
  for batch, weights in zip(*in_batches(rows, batch_size), strict=True):
    sums = eval_step(variables, dataset, batch, weights, sums)
  loss, confusion = jax.device_get(sums)
  return float(loss), confusion
