"""What models minimise: losses of classes and of masks, image by image."""

import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import optax


class Objective(Protocol):
  """Maps model outputs and targets to losses and accuracies, shape (batch,)."""

  def __call__(
    self, logits: jax.Array, targets: jax.Array, /
  ) -> tuple[jax.Array, jax.Array]:
    """Losses and accuracies of each image."""


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

  They are clipped to [1e-7, 1 - 1e-7]: an incorrect answer costs 16.1 nats at
  most, and where an answer is that far off the gradient is zero, so that a
  network which always names one class for sure stays that way. The study's.

  Args:
    logits: float, shape (batch, classes).
    labels: int32, shape (batch,).

  Returns:
    float of the logits' dtype, shape (batch,).
  """
  probability = jax.nn.softmax(logits)
  probability = probability / probability.sum(-1, keepdims=True)
  true_probability = jnp.take_along_axis(probability, labels[:, None], -1)[:, 0]
  return -jnp.log(jnp.clip(true_probability, _CLIPPED, 1 - _CLIPPED))


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
  correct = logits.argmax(-1) == labels
  return CLASS_LOSSES[loss](logits, labels), correct.astype(jnp.float32)


def make_class_objective(loss: str) -> Objective:
  """`class_objective` with one of `CLASS_LOSSES`."""
  return functools.partial(class_objective, loss=loss)


def soft_dice(logits: jax.Array, masks: jax.Array) -> jax.Array:
  """Dice of probabilities, with 1 added above and below.

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
    Losses, and shares of correct pixels, float32 of shape (batch,).
  """
  correct = (logits > 0) == (masks > 0)
  losses = MASK_LOSSES[loss](logits, masks.astype(jnp.float32))
  return losses, correct.astype(jnp.float32).mean((1, 2, 3))
