"""How well scores put one class before the others, at every threshold."""

import dataclasses

import numpy as np

# The specificity at which sensitivities are given.
SPECIFICITY = 0.95


@dataclasses.dataclass(frozen=True)
class RankingScores:
  """How well a class is told from all others.

  Attributes:
    roc_auc: area under the receiver operating characteristic.
    average_precision: area under the curve of precision and recall, as steps.
    sensitivity: at a specificity of `SPECIFICITY` or more.
  """

  roc_auc: float
  average_precision: float
  sensitivity: float


def rank(
  truth: np.ndarray, scores: np.ndarray, sample_weight: np.ndarray
) -> dict[str, np.ndarray]:
  """Areas under both curves, for many weightings of the same images.

  As scikit-learn's `roc_auc_score` and `average_precision_score`, which take
  one weighting at a time.

  Args:
    truth: bool, shape (n,).
    scores: float, shape (n,), higher for True.
    sample_weight: float, shape (samples, n).

  Returns:
    The fields of `RankingScores`, shape (samples,) each; nan in samples of one
    class alone.
  """
  descending = np.argsort(-scores, kind='stable')
  ends = np.append(np.diff(scores[descending]) != 0, True)
  weight = sample_weight[:, descending]
  first = np.zeros((len(weight), 1))
  true_positives, false_positives = (
    np.hstack([first, np.cumsum(weight * chosen, 1)[:, ends]])
    for chosen in (truth[descending], ~truth[descending])
  )
  with np.errstate(invalid='ignore', divide='ignore'):
    recall = true_positives / true_positives[:, -1:]
    fall_out = false_positives / false_positives[:, -1:]
    precision = true_positives / (true_positives + false_positives)
    area = np.diff(fall_out, axis=1) * (recall[:, 1:] + recall[:, :-1]) / 2
    allowed = fall_out <= 1 - SPECIFICITY + 1e-9
    average_precision = np.nansum(
      # Where nothing counts yet precision is 0 / 0, and recall doesn't grow.
      np.diff(recall, axis=1) * precision[:, 1:],
      1,
    )
    sensitivity = np.where(allowed, recall, 0).max(1)
  areas = {
    'roc_auc': area.sum(1),
    'average_precision': average_precision,
    'sensitivity': sensitivity,
  }
  is_told = (true_positives[:, -1] > 0) & (false_positives[:, -1] > 0)
  return {name: np.where(is_told, own, np.nan) for name, own in areas.items()}
