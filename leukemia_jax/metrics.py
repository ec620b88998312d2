"""Losses, and classification scores from a confusion matrix."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from leukemia_jax import segmentation


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Softmax cross-entropy of each image, in nats.

  Args:
    logits: float32, shape (batch, classes).
    labels: int32, shape (batch,).

  Returns:
    float32, shape (batch,).
  """
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


# Keras' epsilon: no probability counts for less.
_CLIPPED = 1e-7


def clipped_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Cross-entropy as Keras takes it of a softmax layer's probabilities.

  They are clipped to [1e-7, 1 - 1e-7]: a wrong answer costs 16.1 nats at most,
  and where one is that wrong the gradient is zero, so that a network which
  always names one class for sure stays that way. The study's.

  Args:
    logits: float, shape (batch, classes).
    labels: int32, shape (batch,).

  Returns:
    float of the logits' dtype, shape (batch,).
  """
  probability = jax.nn.softmax(logits)
  probability = probability / probability.sum(-1, keepdims=True)
  named = jnp.take_along_axis(probability, labels[:, None], -1)[:, 0]
  return -jnp.log(jnp.clip(named, _CLIPPED, 1 - _CLIPPED))


# Maps (logits, labels) to a loss an image.
CLASS_LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  'cross_entropy': cross_entropy,
  'keras_clipped': clipped_cross_entropy,
}


def class_objective(
  logits: jax.Array, labels: jax.Array, *, loss: str = 'cross_entropy'
) -> tuple[jax.Array, jax.Array]:
  """What a classifier minimises, and its accuracy, image by image.

  Args:
    logits: float32, shape (batch, classes).
    labels: int32, shape (batch,).
    loss: one of `CLASS_LOSSES`.

  Returns:
    Losses in nats and accuracies (0 or 1), float32 of shape (batch,).
  """
  right = logits.argmax(-1) == labels
  return CLASS_LOSSES[loss](logits, labels), right.astype(jnp.float32)


def soft_dice(logits: jax.Array, masks: jax.Array) -> jax.Array:
  """Dice of probabilities, with 1 added above and below (V-Net's smoothed).

  Args:
    logits: float32, shape (batch, height, width, 1).
    masks: float32 0 or 1, of the same shape.

  Returns:
    float32, shape (batch,).
  """
  axes = (1, 2, 3)
  probability = jax.nn.sigmoid(logits)
  both = (probability * masks).sum(axes)
  return (2 * both + 1) / (probability.sum(axes) + masks.sum(axes) + 1)


def _binary_cross_entropy(logits: jax.Array, masks: jax.Array) -> jax.Array:
  return optax.sigmoid_binary_cross_entropy(logits, masks).mean((1, 2, 3))


def _dice_loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
  return 1 - soft_dice(logits, masks)


# Maps (logits, float masks) to a loss an image.
MASK_LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  'bce': _binary_cross_entropy,
  'dice': _dice_loss,
  'bce+dice': lambda logits, masks: (
    _binary_cross_entropy(logits, masks) + _dice_loss(logits, masks)
  ),
  # Lin et al., arXiv:1708.02002: alpha 0.25, gamma 2.
  'focal': lambda logits, masks: optax.sigmoid_focal_loss(
    logits, masks, alpha=0.25, gamma=2.0
  ).mean((1, 2, 3)),
}


def mask_objective(
  logits: jax.Array, masks: jax.Array, *, loss: str = 'bce'
) -> tuple[jax.Array, jax.Array]:
  """What a segmenter minimises, and its pixel accuracy, image by image.

  Args:
    logits: float32, shape (batch, height, width, 1).
    masks: integer 0 or 1, of the same shape.
    loss: one of `MASK_LOSSES`: binary cross-entropy in nats a pixel, 1 - soft
      Dice, their sum, or focal loss.

  Returns:
    Losses, and shares of right pixels, float32 of shape (batch,).
  """
  right = (logits > 0) == (masks > 0)
  losses = MASK_LOSSES[loss](logits, masks.astype(jnp.float32))
  return losses, right.astype(jnp.float32).mean((1, 2, 3))


def pixel_confusion(
  logits: jax.Array, masks: jax.Array, weights: jax.Array
) -> jax.Array:
  """Sums over images the shares of pixels by truth (row) and call (column).

  Args:
    logits: float, shape (batch, height, width, 1); above 0 is called a cell.
    masks: integer 0 or 1, of the same shape.
    weights: float32, shape (batch,); 0 leaves an image out.

  Returns:
    float32, shape (2, 2), ground first; its sum is that of the weights.
  """
  truth, called = masks > 0, logits > 0
  shares = [
    ((truth == t) & (called == c)).astype(jnp.float32).mean((1, 2, 3))
    for t in (False, True)
    for c in (False, True)
  ]
  return (jnp.stack(shares) * weights[None]).sum(1).reshape(2, 2)


def confusion_matrix(
  logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> jax.Array:
  """Sums weights by true class (row) and predicted class (column).

  Args:
    logits: float, shape (batch, classes).
    labels: int32, shape (batch,).
    weights: float32, shape (batch,); 0 leaves an image out.

  Returns:
    float32, shape (classes, classes).
  """
  classes = logits.shape[-1]
  truth = jax.nn.one_hot(labels, classes) * weights[:, None]
  return truth.T @ jax.nn.one_hot(logits.argmax(-1), classes)


def dice(confusion: np.ndarray) -> float:
  """Dice of all pixels together.

  Args:
    confusion: from `pixel_confusion`.

  Returns:
    2 TP / (2 TP + FP + FN); 1 where both masks are empty.
  """
  (right, wrong), (missed, found) = np.asarray(confusion, float)
  counted = np.array([found, wrong, missed, right])
  return float(segmentation.overlap(counted)['dice'])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Part / whole, and 0 where whole is 0 (scikit-learn's zero_division=0)."""
  return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _number(value: float, of: float) -> float | None:
  """A share, or None where there is nothing to take it of."""
  return float(value / of) if of else None


def scores(
  confusion: np.ndarray,
  loss_sum: float,
  class_names: tuple[str, ...],
  benign_class: str,
) -> dict[str, Any]:
  """Every classification score that a confusion matrix gives.

  Definitions as in scikit-learn with zero_division=0; "macro" is the plain
  mean over the classes that have images.

  Args:
    confusion: counts by true class (row) and predicted class (column).
    loss_sum: sum of the losses of all images.
    class_names: names of the classes.
    benign_class: the healthy class; the others are malignant. Sensitivity is
      the share of malignant images called malignant (as whichever class),
      specificity the share of benign ones called benign; None without it.

  Returns:
    Plain numbers by name, ready for JSON.
  """
  confusion = np.asarray(confusion, np.float64)
  right, truth, called = np.diag(confusion), confusion.sum(1), confusion.sum(0)
  total = confusion.sum()
  precision, recall = _ratio(right, called), _ratio(right, truth)
  f1 = _ratio(2 * right, truth + called)
  present = truth > 0
  result = {
    'images': int(total),
    'accuracy': _number(right.sum(), total),
    'loss': _number(float(loss_sum), total),
    'precision': float(precision[present].mean()) if total else None,
    'recall': float(recall[present].mean()) if total else None,
    'f1': float(f1[present].mean()) if total else None,
    'worst_class_recall': float(recall[present].min()) if total else None,
    'by_class': {
      name: {
        'images': int(truth[i]),
        'precision': float(precision[i]),
        'recall': float(recall[i]),
        'f1': float(f1[i]),
      }
      for i, name in enumerate(class_names)
    },
    'confusion_matrix': confusion.astype(int).tolist(),
    'sensitivity': None,
    'specificity': None,
  }
  if benign_class in class_names:
    b = class_names.index(benign_class)
    malignant = total - truth[b]
    missed = called[b] - right[b]
    result['sensitivity'] = _number(malignant - missed, malignant)
    result['specificity'] = _number(right[b], truth[b])
  return result
