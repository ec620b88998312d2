"""Scoring a model on a part of a set: every image counts exactly once."""

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from leukemia_jax import models, progress, sharding
from leukemia_jax.build import Network
from leukemia_jax.data import streaming
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.transforms.preprocess import preprocess


class Sums(NamedTuple):
  """Sums over images: losses, and counts by true and predicted class."""

  loss: jax.Array
  confusion: jax.Array


EvalStep = Callable[[Any, Dataset, Any, Any, Sums], Sums]


def zero_sums(num_classes: int) -> Sums:
  """The sums over no image."""
  return Sums(jnp.zeros(()), jnp.zeros((num_classes, num_classes)))


def make_eval_step(network: Network) -> EvalStep:
  """Makes the compiled step that adds a batch to the sums.

  Args:
    network: the model, and what is counted of its outputs.

  Returns:
    (variables, dataset, indices, sample_weight, sums) -> sums; images of weight
    0 fill the last batch and don't count. Without indices the dataset is the
    batch.
  """

  @jax.jit
  def eval_step(
    variables: Any,
    dataset: Dataset,
    indices: jax.Array | None,
    sample_weight: jax.Array,
    sums: Sums,
  ) -> Sums:
    batch = _batch_of(dataset, indices)
    images = preprocess(batch.images, network.preprocessing)
    logits, _ = network.model.apply(variables, images, train=False)
    losses, _ = network.objective(logits, batch.targets)
    return Sums(
      sums.loss + (losses * sample_weight).sum(),
      sums.confusion + network.confusion(logits, batch.targets, sample_weight),
    )

  return eval_step


def _batch_of(dataset: Dataset, indices: jax.Array | None) -> Dataset:
  """Some images of a set in memory, or all of a batch."""
  return dataset if indices is None else dataset.take(indices)


class ClassPredictions(NamedTuple):
  """What a classifier says of each image of a part.

  Attributes:
    labels: int32, shape (n,), the predicted ones.
    losses: float32, shape (n,), nats.
    probabilities: float32, shape (n, classes).
    features: float32, shape (n, channels), after the backbone's first stage.
  """

  labels: np.ndarray
  losses: np.ndarray
  probabilities: np.ndarray
  features: np.ndarray


def predict(
  network: Network,
  variables: Any,
  dataset: Dataset,
  parts: Mapping[str, np.ndarray],
  *,
  batch_size: int,
) -> dict[str, ClassPredictions]:
  """Predicts the class of every image of some parts.

  Args:
    network: a classifier.
    variables: the model's.
    dataset: the set.
    parts: int arrays, indices by part.
    batch_size: images a step; the last batch is filled up.

  Returns:
    Predictions by part, in the order of its indices.
  """

  @jax.jit
  def step(
    variables: Any, dataset: Dataset, indices: jax.Array | None
  ) -> tuple[jax.Array, ...]:
    batch = _batch_of(dataset, indices)
    images = preprocess(batch.images, network.preprocessing)
    logits, features = models.apply_with_features(
      network.model, variables, images
    )
    losses, _ = network.objective(logits, batch.targets)
    return logits.argmax(-1), losses, jax.nn.softmax(logits), features

  predicted = {}
  for part, indices in parts.items():
    by_batch, _ = in_batches(indices, batch_size)
    batches = streaming.batches(dataset, by_batch)
    outputs = [
      step(variables, *batch)
      for batch in progress.track(batches, f'Scoring: {part}', len(by_batch))
    ]
    predicted[part] = ClassPredictions(
      *(
        np.concatenate([np.asarray(x) for x in leaves])[: len(indices)]
        for leaves in zip(*outputs, strict=True)
      )
    )
  return predicted


def make_probability_step(network: Network) -> Callable[..., jax.Array]:
  """Makes the compiled step that says how sure a segmenter is of cells.

  Args:
    network: of a U-Net.

  Returns:
    (variables, dataset, indices) -> float32 (batch, height, width); without
    indices the dataset is the batch.
  """

  @jax.jit
  def step(
    variables: Any, dataset: Dataset, indices: jax.Array | None
  ) -> jax.Array:
    batch = _batch_of(dataset, indices)
    images = preprocess(batch.images, network.preprocessing)
    logits, _ = network.model.apply(variables, images, train=False)
    return jax.nn.sigmoid(logits[..., 0])

  return step


def probabilities(
  step: Callable[..., jax.Array],
  variables: Any,
  dataset: Dataset,
  indices: np.ndarray,
  *,
  batch_size: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """True masks and the probability of cells, batch by batch.

  Args:
    step: from `make_probability_step`.
    variables: the model's.
    dataset: the set.
    indices: int array, which images.
    batch_size: images a step; the last batch is filled up.

  Yields:
    bool and float32, shape (batch or less, height, width), in the order of
    `indices`.
  """
  by_batch, sample_weight = in_batches(indices, batch_size)
  running: collections.deque[tuple[Any, ...]] = collections.deque()

  def first_done() -> tuple[np.ndarray, np.ndarray]:
    masks, probability, is_own = map(np.asarray, running.popleft())
    return masks[is_own, ..., 0] > 0, probability[is_own]

  for batch, weight in zip(
    streaming.batches(dataset, by_batch), sample_weight, strict=True
  ):
    own, chosen = batch
    assert own.masks is not None
    masks = own.masks if chosen is None else own.masks[chosen]
    running.append((masks, step(variables, *batch), weight > 0))
    # The next batch is computed while this one is put to use.
    if len(running) > 1:
      yield first_done()
  while running:
    yield first_done()


def in_batches(
  indices: np.ndarray, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts indices into equal batches; what fills the last one has weight 0.

  Args:
    indices: int array, shape (n,).
    batch_size: images a batch.

  Returns:
    Indices, int32, and sample weights, float32, of shape (batches, batch_size).
  """
  count = -(-len(indices) // batch_size)
  sample_weight = np.arange(count * batch_size) < len(indices)
  last = indices[(count - 1) * batch_size :]
  filled = np.concatenate(
    [indices[: (count - 1) * batch_size], np.resize(last, batch_size)]
  )
  shape = count, batch_size
  return (
    filled.astype(np.int32).reshape(shape),
    sample_weight.astype(np.float32).reshape(shape),
  )


def total(
  eval_step: EvalStep,
  variables: Any,
  dataset: Dataset,
  indices: jax.Array,
  sample_weight: jax.Array,
  *,
  num_classes: int,
) -> Sums:
  """`run` as a loop within a compiled function, for what holds no convolution.

  Args:
    eval_step: from `make_eval_step`.
    variables: the model's.
    dataset: the set.
    indices: int32, shape (batches, batch size), from `in_batches`.
    sample_weight: float32, of the same shape.
    num_classes: number of classes.

  Returns:
    The sums over all images.
  """
  sums, _ = jax.lax.scan(
    lambda sums, batch: (eval_step(variables, dataset, *batch, sums), None),
    zero_sums(num_classes),
    (indices, sample_weight),
  )
  return sums


def run(
  eval_step: EvalStep,
  variables: Any,
  dataset: Dataset,
  indices: np.ndarray,
  *,
  batch_size: int,
  num_classes: int,
  mesh: Mesh,
) -> tuple[float, np.ndarray]:
  """Scores a model on some images of a set.

  Args:
    eval_step: from `make_eval_step`.
    variables: the model's.
    dataset: the set.
    indices: int array, which images.
    batch_size: images a step; the last batch is filled up.
    num_classes: number of classes.
    mesh: devices that share each batch, and where variables and dataset lie.

  Returns:
    The sum of the losses, and counts by true class (row) and predicted class
    (column), float32 (classes, classes).
  """
  sums = sharding.put(zero_sums(num_classes), sharding.on_all(mesh))
  batches = in_batches(indices, batch_size)
  for batch in streaming.shared_batches(dataset, *batches, mesh):
    sums = eval_step(variables, *batch, sums)
  loss, confusion = jax.device_get(sums)
  return float(loss), confusion
