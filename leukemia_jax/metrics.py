"""Losses, and classification scores from a confusion matrix."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Softmax cross-entropy of each image, in nats.

  Args:
    logits: float32, shape (batch, classes).
    labels: int32, shape (batch,).

  Returns:
    float32, shape (batch,).
  """
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def class_objective(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """What a classifier minimises, and its accuracy, image by image.

  Args:
    logits: float32, shape (batch, classes).
    labels: int32, shape (batch,).

  Returns:
    Losses in nats and accuracies (0 or 1), float32 of shape (batch,).
  """
  right = logits.argmax(-1) == labels
  return cross_entropy(logits, labels), right.astype(jnp.float32)


def mask_objective(
  logits: jax.Array, masks: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """What a segmenter minimises, and its pixel accuracy, image by image.

  Args:
    logits: float32, shape (batch, height, width, 1).
    masks: integer 0 or 1, of the same shape.

  Returns:
    Binary cross-entropies in nats a pixel, and shares of right pixels, float32
    of shape (batch,).
  """
  losses = optax.sigmoid_binary_cross_entropy(logits, masks.astype(jnp.float32))
  right = (logits > 0) == (masks > 0)
  axes = (1, 2, 3)
  return losses.mean(axes), right.astype(jnp.float32).mean(axes)


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
