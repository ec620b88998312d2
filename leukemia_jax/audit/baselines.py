"""Shortcuts to the label or mask: what simple numbers already give away.

A score counts for something only beside what a baseline reaches that never
looks at a cell.
"""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from leukemia_jax.audit import properties
from leukemia_jax.data import input_pipeline
from leukemia_jax.data.dataset import AugmentFn, Catalogue, Dataset
from leukemia_jax.data.input_pipeline import InputSpec
from leukemia_jax.transforms import colour

_BATCH, _AUGMENT_BATCH = 64, 32


def colour_features(images: np.ndarray | jax.Array) -> np.ndarray:
  """Mean and standard deviation of R, G and B: six numbers an image.

  Args:
    images: uint8, shape (n, height, width, 3).

  Returns:
    float64, shape (n, 6).
  """
  levels = np.arange(256)
  features = []
  for first in range(0, len(images), _BATCH):
    batch = np.asarray(images[first : first + _BATCH])
    for image in batch.reshape(len(batch), -1, 3):
      # Of 256 levels, not of all pixels: 14 times as fast.
      shares = np.array(
        [np.bincount(channel, minlength=256) for channel in image.T]
      ) / len(image)
      mean = shares @ levels
      variance = (shares * np.square(levels - mean[:, None])).sum(1)
      features.append(np.concatenate([mean, np.sqrt(variance)]))
  return np.array(features)


def colour_labels(
  features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
  """The labels that 3-nearest-neighbours on `colour_features` predict.

  Args:
    features: of all images, shape (n, 6).
    labels: int, shape (n,).
    train: int array, indices of the training part.
    test: int array, indices of the test part.

  Returns:
    int array, of the test images.
  """
  from sklearn.neighbors import KNeighborsClassifier

  neighbours = KNeighborsClassifier(min(3, len(train)))
  model = neighbours.fit(features[train], labels[train])
  return model.predict(features[test])


def colour_accuracy(
  features: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> float:
  """The share of test images that `colour_labels` gives their class."""
  predicted = colour_labels(features, labels, train, test)
  return float((predicted == labels[test]).mean())


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


@dataclasses.dataclass(frozen=True)
class ColourRule:
  """Cells are what has a hue in an arc, and enough saturation and value.

  Attributes:
    hue: first hue of the arc, 0..255 for the whole circle, as in Pillow.
    arc: length of the arc.
    saturation: least saturation, 0..255.
    value: least value (largest of R, G and B), 0..255.
  """

  hue: int
  arc: int
  saturation: int
  value: int


# Steps of the tried hues, and of saturations and values.
_HUE_STEP, _LEVEL_STEP = 4, 8


def _hsv(image: np.ndarray) -> np.ndarray:
  return np.asarray(Image.fromarray(image).convert('HSV'))


def fit_colour_rule(
  pairs: Iterable[tuple[np.ndarray, np.ndarray]],
) -> ColourRule:
  """Finds the rule of highest pooled Dice; all on a grid are tried.

  Args:
    pairs: of an image, uint8 (height, width, 3), and its mask, bool (height,
      width).

  Returns:
    The rule.
  """
  hues, levels = 256 // _HUE_STEP, 256 // _LEVEL_STEP
  pixels = np.zeros((2, hues, levels, levels))
  for image, mask in pairs:
    h, s, v = np.moveaxis(_hsv(image).astype(np.intp), -1, 0)
    bins = (h // _HUE_STEP * levels + s // _LEVEL_STEP) * levels
    bins += v // _LEVEL_STEP
    for kind, chosen in enumerate((~mask, mask)):
      counts = np.bincount(bins[chosen], minlength=hues * levels**2)
      pixels[kind] += counts.reshape(pixels.shape[1:])
  # Of all that is as saturated and bright or more.
  pixels = pixels[:, :, ::-1, ::-1].cumsum(2).cumsum(3)[:, :, ::-1, ::-1]
  cells = pixels[1, :, 0, 0].sum()
  # Arcs of every length from every hue, around the circle.
  twice = np.concatenate([pixels, pixels[:, :-1]], 1).cumsum(1)
  twice = np.concatenate([np.zeros_like(twice[:, :1]), twice], 1)
  best, rule = -1.0, ColourRule(0, 256, 0, 0)
  for arc in range(1, hues + 1):
    background, inside = twice[:, arc : arc + hues] - twice[:, :hues]
    dice = 2 * inside / np.maximum(inside + background + cells, 1)
    at = np.unravel_index(dice.argmax(), dice.shape)
    if dice[at] > best:
      best = float(dice[at])
      hue, saturation, value = (int(i) for i in at)
      rule = ColourRule(
        hue * _HUE_STEP,
        arc * _HUE_STEP,
        saturation * _LEVEL_STEP,
        value * _LEVEL_STEP,
      )
  return rule


def apply_colour_rule(image: np.ndarray, rule: ColourRule) -> np.ndarray:
  """The mask that a rule makes of an image.

  Args:
    image: uint8, shape (height, width, 3).
    rule: from `fit_colour_rule`.

  Returns:
    bool array, shape (height, width).
  """
  h, s, v = np.moveaxis(_hsv(image).astype(int), -1, 0)
  in_arc = (h - rule.hue) % 256 < rule.arc
  return in_arc & (s >= rule.saturation) & (v >= rule.value)
