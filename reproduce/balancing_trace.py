"""How far balancing a set marks its classes, whatever the images show."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax.audit import properties
from leukemia_jax.data import input_pipeline
from leukemia_jax.data.dataset import AugmentFn, Catalogue, Dataset
from leukemia_jax.data.input_pipeline import InputSpec
from leukemia_jax.transforms import colour

_BATCH, _AUGMENT_BATCH = 64, 32


@jax.jit
def _trace_features(images: jax.Array) -> jax.Array:
  values = images.astype(jnp.float32)
  luma = colour.luma(images)
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
    bend = properties.laplacian(plane)
    features.append(jnp.log(bend.var((1, 2)) + 1e-3))
  edge = max(2, side // 16)
  for vertical in (slice(None, edge), slice(-edge, None)):
    for horizontal in (slice(None, edge), slice(-edge, None)):
      corner = luma[:, vertical, horizontal]
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

  Give it the images as they are trained on, but permuted labels: then no image
  can tell its label, and what the model finds is how far balancing and
  augmenting mark the class.

  Args:
    images: uint8, shape (n, size, size, 3).
    labels: int, shape (n,).
    sources: int, shape (n,); images of one source are never on both sides of
      the five-fold cross-validation.

  Returns:
    Balanced accuracy; 1 / classes is chance.
  """
  from sklearn.linear_model import LogisticRegression
  from sklearn.metrics import balanced_accuracy_score
  from sklearn.model_selection import GroupKFold
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  features = trace_features(images)
  model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
  predicted = np.empty_like(labels)
  for fit, held_out in GroupKFold(5).split(features, labels, sources):
    model.fit(features[fit], labels[fit])
    predicted[held_out] = model.predict(features[held_out])
  return float(balanced_accuracy_score(labels, predicted))


def balancing_trace(
  catalogue: Catalogue,
  data: Dataset,
  *,
  spec: InputSpec,
  augment: AugmentFn,
  keys: tuple[jax.Array, jax.Array, jax.Array],
  seed: int,
) -> float:
  """How far balancing marks the class, whatever the images show.

  The labels are permuted. The set is then split, balanced and augmented as for
  training, and a linear model looks for the labels in processing traces alone;
  see `trace_probe`.

  Args:
    catalogue: of the set.
    data: the set.
    spec: its protocol is what is probed.
    augment: its traces are what is looked for.
    keys: PRNG keys of the split, of copies and of training.
    seed: of the permutation.

  Returns:
    Balanced accuracy; 1 / classes is chance.
  """
  split_key, copies_key, train_key = keys
  permuted = np.random.default_rng(seed).permutation(catalogue.labels)
  catalogue = dataclasses.replace(catalogue, labels=permuted)
  data = data._replace(labels=jnp.asarray(permuted))
  split = input_pipeline.make_split(split_key, catalogue, spec)
  every, indices, _ = input_pipeline.materialise(
    split, data, key=copies_key, augment=augment
  )
  images = every.images[indices[0]]
  online = input_pipeline.training_augment(spec, augment)
  if online is not None:
    each = jax.random.split(train_key, len(images))
    pairs = jax.jit(lambda pair: online(*pair))
    images = jax.lax.map(pairs, (each, images), batch_size=_AUGMENT_BATCH)
  return trace_probe(
    np.asarray(images), permuted[split.train[:, 0]], split.train[:, 0]
  )
