"""Classification scores from a confusion matrix."""

import dataclasses

import jax
import numpy as np


def confusion_matrix(
  logits: jax.Array, labels: jax.Array, sample_weight: jax.Array
) -> jax.Array:
  """Sums sample weights by true class (row) and predicted class (column).

  Args:
    logits: float, shape (batch, classes).
    labels: int32, shape (batch,).
    sample_weight: float32, shape (batch,); 0 leaves an image out.

  Returns:
    float32, shape (classes, classes).
  """
  classes = logits.shape[-1]
  truth = jax.nn.one_hot(labels, classes) * sample_weight[:, None]
  return truth.T @ jax.nn.one_hot(logits.argmax(-1), classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Part / whole, and 0 where whole is 0 (scikit-learn's zero_division=0)."""
  return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _share(part: float, whole: float) -> float | None:
  """Part / whole, or None where whole is 0."""
  return float(part / whole) if whole else None


@dataclasses.dataclass(frozen=True)
class ClassScores:
  """Scores of one class, as in scikit-learn with zero_division=0."""

  images: int
  precision: float
  recall: float
  f1: float


@dataclasses.dataclass(frozen=True)
class ClassificationScores:
  """Every score that a confusion matrix gives.

  Definitions as in scikit-learn with zero_division=0; means over classes are
  plain ones, over the classes that have images. A score of no image
  is None.

  Attributes:
    images: number of images.
    accuracy: share of correct images.
    balanced_accuracy: mean recall over classes.
    macro_f1: mean F1 over classes.
    loss: mean loss, nats.
    precision: mean over classes.
    worst_class_recall: lowest recall of a class that has images.
    by_class: scores by name of the class.
    confusion_matrix: counts by true class (row) and predicted class (column).
    sensitivity: share of malignant images predicted malignant, as any class;
      None without a benign class.
    specificity: share of benign images predicted benign; likewise.
  """

  images: int
  accuracy: float | None
  balanced_accuracy: float | None
  macro_f1: float | None
  loss: float | None
  precision: float | None
  worst_class_recall: float | None
  by_class: dict[str, ClassScores]
  confusion_matrix: list[list[int]]
  sensitivity: float | None
  specificity: float | None


def means_over_classes(confusions: np.ndarray) -> dict[str, np.ndarray]:
  """Accuracy, balanced accuracy and macro F1 of many confusion matrices.

  Args:
    confusions: shape (n, classes, classes), by true and predicted class.

  Returns:
    'accuracy', 'balanced_accuracy' and 'macro_f1', shape (n,) each; means are
    over the classes that have images, nan where none has.
  """
  correct = np.diagonal(confusions, axis1=1, axis2=2)
  truth, predicted = confusions.sum(2), confusions.sum(1)
  with np.errstate(invalid='ignore', divide='ignore'):
    # A class without images is nan, and left out of the means.
    recall = correct / truth
    f1 = np.where(truth > 0, 2 * correct / (truth + predicted), np.nan)
    present = (truth > 0).sum(1)
    return {
      'accuracy': correct.sum(1) / truth.sum(1),
      'balanced_accuracy': np.nansum(recall, 1) / present,
      'macro_f1': np.nansum(f1, 1) / present,
    }


def scores(
  confusion: np.ndarray,
  loss_sum: float,
  class_names: tuple[str, ...],
  benign_class: str,
) -> ClassificationScores:
  """Scores a confusion matrix.

  Args:
    confusion: counts by true class (row) and predicted class (column).
    loss_sum: sum of the losses of all images.
    class_names: names of the classes.
    benign_class: the healthy class; the others are malignant.

  Returns:
    The scores.
  """
  confusion = np.asarray(confusion, np.float64)
  correct, truth = np.diag(confusion), confusion.sum(1)
  predicted, total = confusion.sum(0), confusion.sum()
  precision, recall = _ratio(correct, predicted), _ratio(correct, truth)
  f1 = _ratio(2 * correct, truth + predicted)
  present = truth > 0
  sensitivity = specificity = None
  if benign_class in class_names:
    b = class_names.index(benign_class)
    malignant = total - truth[b]
    false_negatives = predicted[b] - correct[b]
    sensitivity = _share(malignant - false_negatives, malignant)
    specificity = _share(correct[b], truth[b])
  return ClassificationScores(
    images=int(total),
    accuracy=_share(correct.sum(), total),
    balanced_accuracy=float(recall[present].mean()) if total else None,
    macro_f1=float(f1[present].mean()) if total else None,
    loss=_share(float(loss_sum), total),
    precision=float(precision[present].mean()) if total else None,
    worst_class_recall=float(recall[present].min()) if total else None,
    by_class={
      name: ClassScores(
        int(truth[i]), float(precision[i]), float(recall[i]), float(f1[i])
      )
      for i, name in enumerate(class_names)
    },
    confusion_matrix=confusion.astype(int).tolist(),
    sensitivity=sensitivity,
    specificity=specificity,
  )
