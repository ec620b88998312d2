"""Shortcuts to the label or mask: what simple numbers already give away.

A score counts for something only beside what a baseline reaches that never
looks at a cell.
"""

import dataclasses
from collections.abc import Iterable

import jax
import numpy as np
from PIL import Image

_BATCH = 64


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
