"""Classification scores from a confusion matrix."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

# Scores of a whole confusion matrix.
_WHOLE = (
  'accuracy',
  'balanced_accuracy',
  'macro_f1',
  'precision',
  'worst_class_recall',
  'sensitivity',
  'specificity',
)


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


def count(
  truth: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
  """Counts images by true class (row) and predicted class (column).

  Args:
    truth: int, shape (n,).
    predicted: likewise.
    num_classes: number of classes.

  Returns:
    float64, shape (classes, classes).
  """
  confusion = np.zeros((num_classes, num_classes))
  np.add.at(confusion, (truth, predicted), 1)
  return confusion


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Part / whole, and 0 where whole is 0 (scikit-learn's zero_division=0)."""
  return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


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


def of_confusions(
  confusions: np.ndarray,
  benign: int | None = None,
  required: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """Scores of many confusion matrices.

  Args:
    confusions: shape (n, classes, classes), by true and predicted class.
    benign: number of the healthy class, if there is one.
    required: bool, shape (classes,): what is over classes is nan where one of
      these has no image.

  Returns:
    'accuracy', 'balanced_accuracy', 'macro_f1', 'precision',
    'worst_class_recall', and with a healthy class 'sensitivity' and
    'specificity', shape (n,) each, nan where no image counts; 'class_recall',
    'class_precision' and 'class_f1', shape (n, classes), 0 where nothing
    counts (scikit-learn's zero_division=0). Means are over the classes that
    have images.
  """
  correct = np.diagonal(confusions, axis1=1, axis2=2)
  truth, predicted = confusions.sum(2), confusions.sum(1)
  recall, precision = _ratio(correct, truth), _ratio(correct, predicted)
  f1 = _ratio(2 * correct, truth + predicted)
  present, total = truth > 0, truth.sum(1)
  lacks = (~present & (required if required is not None else False)).any(1)
  with np.errstate(invalid='ignore', divide='ignore'):

    def mean(values: np.ndarray) -> np.ndarray:
      means = (values * present).sum(1) / present.sum(1)
      return np.where(lacks, np.nan, means)

    worst = np.where(present, recall, np.inf).min(1)
    scored = {
      'accuracy': correct.sum(1) / total,
      'balanced_accuracy': mean(recall),
      'macro_f1': mean(f1),
      'precision': mean(precision),
      'worst_class_recall': np.where((total > 0) & ~lacks, worst, np.nan),
    }
    if benign is not None:
      malignant = total - truth[:, benign]
      false_negatives = predicted[:, benign] - correct[:, benign]
      scored |= {
        'sensitivity': 1 - false_negatives / malignant,
        'specificity': correct[:, benign] / truth[:, benign],
      }
  return scored | {
    'class_recall': recall,
    'class_precision': precision,
    'class_f1': f1,
  }


def benign_index(class_names: Sequence[str], benign_class: str) -> int | None:
  """The number of the healthy class; None if there is none."""
  names = list(class_names)
  return names.index(benign_class) if benign_class in names else None


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
  scored = of_confusions(
    confusion[None], benign_index(class_names, benign_class)
  )
  truth, total = confusion.sum(1), confusion.sum()

  def only(name: str) -> float | None:
    value = float(scored[name][0]) if name in scored else math.nan
    return None if math.isnan(value) else value

  by_class = (scored[f'class_{n}'][0] for n in ('precision', 'recall', 'f1'))
  return ClassificationScores(
    images=int(total),
    loss=float(loss_sum) / total if total else None,
    by_class={
      name: ClassScores(int(count), *map(float, own))
      for name, count, *own in zip(class_names, truth, *by_class, strict=True)
    },
    confusion_matrix=confusion.astype(int).tolist(),
    **{name: only(name) for name in _WHOLE},
  )
