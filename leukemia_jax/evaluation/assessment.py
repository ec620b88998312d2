"""What a test part says of a model: intervals, ranking and calibration."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax.data import grouping
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.protocols import Protocol
from leukemia_jax.metrics import (
  bootstrap,
  calibration,
  classification,
  ranking,
  segmentation,
)
from leukemia_jax.metrics.bootstrap import Groups, Score
from leukemia_jax.metrics.calibration import CalibrationScores
from leukemia_jax.metrics.ranking import RankingScores
from leukemia_jax.metrics.segmentation import ImageScores
from leukemia_jax.workdir.records import Calibration, Intervals, Ranking

# Scores that don't go from 0 to 1.
_NOT_SHARES = ('loss', 'hausdorff_95', 'cell_count_error')
_NOT_SHARES_OF_CALIBRATION = ('brier', 'loss')


class IntervalGroups(NamedTuple):
  """What intervals are over.

  Attributes:
    groups: of the images.
    group: what a group is, in words.
    key: PRNG key that draws the samples.
  """

  groups: Groups
  group: str
  key: jax.Array

  def rng(self) -> np.random.Generator:
    """Draws the same samples whatever is scored."""
    return np.random.default_rng(np.asarray(jax.random.key_data(self.key)))

  def record(self, ends: Mapping[str, list[float]]) -> Intervals:
    """Intervals as they are stored."""
    return Intervals(len(self.groups.strata), self.group, dict(ends))


class SetGroups(NamedTuple):
  """The groups of a set that intervals are over.

  Attributes:
    ids: int, shape (images of the set,).
    group: what a group is, in words.
    key: PRNG key that draws the samples.
  """

  ids: np.ndarray
  group: str
  key: jax.Array

  def over(self, sources: np.ndarray, labels: np.ndarray) -> IntervalGroups:
    """Those of some images.

    Args:
      sources: int, shape (n,): index in the set of each image.
      labels: int, shape (n,): its class.

    Returns:
      The groups of the n images.
    """
    groups = bootstrap.make_groups(self.ids[sources], labels)
    return IntervalGroups(groups, self.group, self.key)


def set_groups(
  catalogue: Catalogue, protocol: Protocol, key: jax.Array
) -> SetGroups:
  """The groups that a run's intervals are over.

  Args:
    catalogue: of the set.
    protocol: of the run.
    key: PRNG key that draws the samples.

  Returns:
    The groups.
  """
  return SetGroups(
    *grouping.for_intervals(catalogue, protocol.grouping, protocol.block), key
  )


class Outcomes(NamedTuple):
  """What a classifier said of each image of a test part.

  Attributes:
    truth: int, shape (n,).
    probabilities: float, shape (n, classes).
    losses: float, shape (n,), nats.
    temperature: one for all images, or of shape (n, 1); None if unknown.
    fitted_to: number of images that it was fitted to.
  """

  truth: np.ndarray
  probabilities: np.ndarray
  losses: np.ndarray
  temperature: float | np.ndarray | None = None
  fitted_to: int = 0


class Assessment(NamedTuple):
  """What is said of a test part beside its scores.

  Attributes:
    intervals: of all scores, those of `ranking` and `calibration` too.
    ranking: of a classifier.
    calibration: of a classifier.
  """

  intervals: Intervals
  ranking: Ranking | None = None
  calibration: Calibration | None = None


def of_classes(
  outcomes: Outcomes,
  over: IntervalGroups,
  class_names: Sequence[str],
  benign_class: str,
) -> Assessment:
  """Assesses a classifier.

  Args:
    outcomes: of the test part.
    over: of its images.
    class_names: of the model.
    benign_class: the healthy class; the others are malignant.

  Returns:
    The assessment; intervals are named as the fields of `Result` are reached,
    as `test.accuracy` or `ranking.by_class.Pro.roc_auc`.
  """
  benign = classification.benign_index(class_names, benign_class)
  scores: dict[str, float] = {}
  ends: dict[str, list[float]] = {}

  def add(prefix: str, score: Score, not_shares: Sequence[str] = ()) -> None:
    """Adds scores with their intervals under a prefix."""
    values, intervals = bootstrap.score_with_intervals(
      over.rng(), over.groups, score, not_shares=not_shares
    )
    scores.update({prefix + name: value for name, value in values.items()})
    ends.update({prefix + name: value for name, value in intervals.items()})

  add('test.', _confusion_score(outcomes, over, class_names, benign), ['loss'])
  one_hot = np.eye(len(class_names), dtype=bool)[outcomes.truth]
  for i, name in enumerate(class_names):
    if 0 < one_hot[:, i].sum() < len(one_hot):
      own = _ranking_score(one_hot[:, i], outcomes.probabilities[:, i], over)
      add(f'ranking.by_class.{name}.', own)
  if benign is not None and 0 < one_hot[:, benign].sum() < len(one_hot):
    score = -outcomes.probabilities[:, benign]
    add('ranking.malignant.', _ranking_score(~one_hot[:, benign], score, over))
  for prefix, temperature in _temperatures(outcomes).items():
    probabilities = calibration.with_temperature(
      outcomes.probabilities, temperature
    )
    add(
      f'calibration.{prefix}.',
      _calibration_score(probabilities, outcomes.truth, over),
      _NOT_SHARES_OF_CALIBRATION,
    )
  return Assessment(
    over.record(ends),
    _ranking_record(scores, class_names),
    _calibration_record(scores, outcomes),
  )


def _temperatures(outcomes: Outcomes) -> dict[str, float | np.ndarray]:
  if outcomes.temperature is None:
    return {'raw': 1.0}
  return {'raw': 1.0, 'scaled': outcomes.temperature}


def _confusion_score(
  outcomes: Outcomes,
  over: IntervalGroups,
  class_names: Sequence[str],
  benign: int | None,
) -> Score:
  count, groups = len(class_names), over.groups
  confusions = np.zeros((len(groups.strata), count, count))
  predicted = outcomes.probabilities.argmax(1)
  np.add.at(confusions, (groups.of_image, outcomes.truth, predicted), 1)
  losses = groups.sum(np.asarray(outcomes.losses, float))

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    drawn = np.tensordot(times, confusions, 1)
    scored = classification.of_confusions(drawn, benign)
    flat = {n: v for n, v in scored.items() if not n.startswith('class_')}
    for field in ('recall', 'precision', 'f1'):
      for i, name in enumerate(class_names):
        flat[f'by_class.{name}.{field}'] = scored[f'class_{field}'][:, i]
    return flat | {'loss': times @ losses / drawn.sum((1, 2))}

  return score


def _ranking_score(
  truth: np.ndarray, scores: np.ndarray, over: IntervalGroups
) -> Score:
  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    return ranking.rank(truth, scores, times[:, over.groups.of_image])

  return score


def _calibration_score(
  probabilities: np.ndarray, truth: np.ndarray, over: IntervalGroups
) -> Score:
  sums = over.groups.sum(calibration.sums(probabilities, truth))
  return lambda times: calibration.of_sums(times @ sums)


def _ranking_record(
  scores: Mapping[str, float], class_names: Sequence[str]
) -> Ranking:
  def record(prefix: str) -> RankingScores | None:
    prefix = f'ranking.{prefix}.'
    own = {
      name.removeprefix(prefix): value
      for name, value in scores.items()
      if name.startswith(prefix)
    }
    return RankingScores(**own) if own else None

  by_class = {name: record(f'by_class.{name}') for name in class_names}
  return Ranking(
    {name: own for name, own in by_class.items() if own}, record('malignant')
  )


def _calibration_record(
  scores: Mapping[str, float], outcomes: Outcomes
) -> Calibration:
  def record(prefix: str) -> CalibrationScores:
    names = CalibrationScores.__dataclass_fields__
    own = {name: scores[f'calibration.{prefix}.{name}'] for name in names}
    # nan where no image was predicted with confidence.
    accuracy = own.pop('confident_accuracy')
    return CalibrationScores(
      **own, confident_accuracy=None if np.isnan(accuracy) else accuracy
    )

  known = outcomes.temperature is not None
  return Calibration(
    raw=record('raw'),
    scaled=record('scaled') if known else None,
    temperature=outcomes.temperature
    if isinstance(outcomes.temperature, float)
    else None,
    fitted_to=outcomes.fitted_to or None,
  )


def of_masks(
  counted: np.ndarray,
  images: Sequence[ImageScores] | None,
  over: IntervalGroups,
) -> Assessment:
  """Assesses a segmenter.

  Args:
    counted: int, shape (n, 4), from `segmentation.counts`.
    images: n results of `segmentation.image_scores`; None if unknown.
    over: of the images.

  Returns:
    The intervals, named as those of `of_classes`.
  """
  overlap = segmentation.overlap(counted)
  # Of whatever class: cells are cells.
  groups = over.groups.of_one_stratum()
  pixels = groups.sum(np.asarray(counted, float))
  columns = {
    'images': np.ones(len(counted)),
    'mean_iou': overlap['iou'],
    'mean_dice': overlap['dice'],
  }
  if images is not None:
    border, hausdorff, *cells = (
      np.array(column) for column in zip(*images, strict=True)
    )
    known = ~np.isnan(hausdorff)
    columns |= {
      'border_f1': border,
      'hausdorff_95': np.where(known, hausdorff, 0),
      'known': known,
      'cell_count_error': np.abs(cells[1] - cells[2]),
      'true_positives': 2 * cells[0],
      'cells': 2 * cells[0] + cells[1] + cells[2],
    }
  sums = {name: groups.sum(np.asarray(v, float)) for name, v in columns.items()}

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    drawn = {name: times @ values for name, values in sums.items()}
    scored = dict(segmentation.overlap(times @ pixels))
    with np.errstate(invalid='ignore', divide='ignore'):
      for name in ('mean_iou', 'mean_dice', 'border_f1', 'cell_count_error'):
        if name in drawn:
          scored[name] = drawn[name] / drawn['images']
      if images is not None:
        scored['hausdorff_95'] = drawn['hausdorff_95'] / drawn['known']
        scored['cell_f1'] = drawn['true_positives'] / drawn['cells']
    return scored

  _, ends = bootstrap.score_with_intervals(
    over.rng(), groups, score, not_shares=_NOT_SHARES
  )
  return Assessment(
    over.record({f'test.{name}': own for name, own in ends.items()})
  )
