"""What a scorer takes and gives, for classes and for masks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from leukemia_jax.audit.baselines import ColourRule
from leukemia_jax.build import Network, Scoring
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.evaluation.assessment import (
  Assessment,
  IntervalGroups,
  SetGroups,
)
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.workdir.limits_file import Limits
from leukemia_jax.workdir.records import Baselines, Scores


class Temperature(NamedTuple):
  """What makes a classifier as sure as it is correct.

  Attributes:
    value: what logits are divided by.
    images: number of images that it was fitted to.
    is_local: whether these were of a new laboratory.
  """

  value: float
  images: int
  is_local: bool = False


class Fitted(NamedTuple):
  """What a training run chose on its own parts.

  Attributes:
    threshold: of a segmenter: probability above which a pixel is predicted a
      cell.
    colour_rule: of a segmenter: the baseline that was fitted to the training
      part.
    temperature: of a classifier.
  """

  threshold: float | None = None
  colour_rule: ColourRule | None = None
  temperature: Temperature | None = None


class Subject(NamedTuple):
  """What is scored.

  Attributes:
    network: the model.
    variables: its weights.
    class_names: of its classes; to segment, those of the set.
    dataset: the set.
    catalogue: of the set.
    origins: int, shape (images of `dataset`, 2): index in `catalogue` and copy
      number of each.
    parts: indices by part, each image once.
    scoring: how.
    groups: what intervals are over.
    fitted: by the run that trained the model; None while that run is scored.
  """

  network: Network
  variables: dict[str, Any]
  class_names: tuple[str, ...]
  dataset: Dataset
  catalogue: Catalogue
  origins: np.ndarray
  parts: dict[str, np.ndarray]
  scoring: Scoring
  groups: SetGroups
  fitted: Fitted | None = None

  def over_test(self) -> IntervalGroups:
    """The groups of the test part's images."""
    indices = self.parts['test']
    labels = np.asarray(self.dataset.labels)[indices]
    return self.groups.over(self.origins[indices, 0], labels)


class MaskArrays(NamedTuple):
  """What figures of masks show.

  Attributes:
    images: uint8, shape (n, size, size, 3), of the test part.
    truth: bool, shape (n, size, size).
    predicted: bool, of the same shape.
    dice: float, shape (n,).
    threshold_scores: by name, shape (thresholds,), on validation; None where
      the threshold was not chosen here.
  """

  images: np.ndarray
  truth: np.ndarray
  predicted: np.ndarray
  dice: np.ndarray
  threshold_scores: dict[str, np.ndarray] | None


class MaskPredictions(NamedTuple):
  """What a segmenter makes of each image of a part.

  Attributes:
    dice: float, shape (n,).
    true_positives: int, shape (n,), pixels; likewise the next three.
    cells_true: int, shape (n,), cells in the true mask.
    cells_predicted: int, shape (n,), cells in the predicted one.
  """

  dice: np.ndarray
  true_positives: np.ndarray
  false_positives: np.ndarray
  false_negatives: np.ndarray
  true_negatives: np.ndarray
  cells_true: np.ndarray
  cells_predicted: np.ndarray


class Scored(NamedTuple):
  """A scorer's outcome.

  Attributes:
    parts: scores by part.
    baselines: of the test part.
    predictions: of each image, by part, in the order of its indices.
    assessment: of the test part.
    shortcut_labels: int, shape (test images,): what the best shortcut predicts.
    threshold: of a segmenter.
    masks: of a segmenter, for its figures.
    limits: of a classifier that was trained on the training part.
  """

  parts: Mapping[str, Scores]
  baselines: Baselines
  predictions: Mapping[str, ClassPredictions | MaskPredictions]
  assessment: Assessment
  shortcut_labels: np.ndarray | None = None
  threshold: float | None = None
  masks: MaskArrays | None = None
  limits: Limits | None = None
