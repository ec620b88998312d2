"""What a test part says of a model: intervals, ranking and calibration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from leukemia_jax.data import grouping, splits
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
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.metrics.ranking import RankingScores
from leukemia_jax.metrics.segmentation import ImageScores
from leukemia_jax.workdir.records import (
  Calibration,
  Intervals,
  LimitScores,
  Ranking,
)

# One for all images, or each image's: shape (n, 1).
Temperatures = float | np.ndarray


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
    return splits.generator(self.key)

  def record(self, ends: Mapping[str, list[float]]) -> Intervals:
    """Intervals as they are stored."""
    return Intervals(
      *(len(self.groups.majority), self.group, dict(ends)),
      smallest=self.groups.smallest,
    )


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


class LimitOutcomes(NamedTuple):
  """What a classifier's limits say of each image of a test part.

  Attributes:
    rates: that were asked for.
    unlike: bool, shape (n,): flagged as unlike the training images.
    covered: bool, shape (n,): the true class is in the image's set.
    uncertain: bool, shape (n,): the set has several classes.
  """

  rates: Rates
  unlike: np.ndarray
  covered: np.ndarray
  uncertain: np.ndarray


class Outcomes(NamedTuple):
  """What a classifier said of each image of a test part.

  Attributes:
    truth: int, shape (n,).
    predicted: int, shape (n,).
    probabilities: float, shape (n, classes).
    losses: float, shape (n,), nats.
    temperature: None if unknown.
    fitted_to: number of images that it was fitted to.
    is_local: whether these were of a new laboratory.
    limits: what else was said of them; None if unknown.
  """

  truth: np.ndarray
  predicted: np.ndarray
  probabilities: np.ndarray
  losses: np.ndarray
  temperature: Temperatures | None = None
  fitted_to: int = 0
  is_local: bool = False
  limits: LimitOutcomes | None = None


class Assessment(NamedTuple):
  """What is said of a test part beside its scores.

  Attributes:
    intervals: of all scores, those of `ranking` and `calibration` too.
    ranking: of a classifier.
    calibration: of a classifier.
    limits: of a classifier.
  """

  intervals: Intervals
  ranking: Ranking | None = None
  calibration: Calibration | None = None
  limits: LimitScores | None = None


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
  ends: dict[str, list[float]] = {}

  def add(
    prefix: str, score: Score, without: Sequence[str] = (), **kinds: Any
  ) -> dict[str, float]:
    """The scores; intervals of all but some are kept under a prefix."""
    values, own = bootstrap.score_with_intervals(
      over.rng(), over.groups, score, **kinds
    )
    ends.update(
      {f'{prefix}.{n}': value for n, value in own.items() if n not in without}
    )
    return values

  score, alternatives = _confusion_score(outcomes, over, class_names, benign)
  add(
    'test',
    score,
    # The lowest of several is too low: each class has an interval of its own.
    without=['worst_class_recall'],
    from_zero=['loss'],
    bearing=_groups_by_precision(outcomes, over, class_names),
    alternatives=alternatives,
  )
  ranked = _rank(outcomes, over, class_names, benign, add)
  calibrated = _calibrate(outcomes, over, add)
  limits = None
  if outcomes.limits:
    # Of whatever class: an image is flagged or not.
    any_class = over._replace(groups=over.groups.of_one_stratum())
    shares, own = bootstrap.score_with_intervals(
      over.rng(), any_class.groups, _limit_score(outcomes.limits, any_class)
    )
    ends |= {f'limits.{name}': value for name, value in own.items()}
    limits = LimitScores(outcomes.limits.rates, **shares)
  return Assessment(over.record(ends), ranked, calibrated, limits)


def _groups_by_precision(
  outcomes: Outcomes, over: IntervalGroups, class_names: Sequence[str]
) -> dict[str, int]:
  """Groups with an image that a class is predicted of, by its precision."""
  said = np.eye(len(class_names))[outcomes.predicted]
  return {
    f'by_class.{name}.precision': int(count)
    for name, count in zip(
      class_names, (over.groups.sum(said) > 0).sum(0), strict=True
    )
  }


# Scores, whose intervals are kept under a prefix.
Add = Callable[..., dict[str, float]]


def _rank(
  outcomes: Outcomes,
  over: IntervalGroups,
  class_names: Sequence[str],
  benign: int | None,
  add: Add,
) -> Ranking:
  of_class = np.eye(len(class_names), dtype=bool)[outcomes.truth]
  # One class alone is told from nothing.
  is_told = [0 < own.sum() < len(own) for own in of_class.T]

  def rank(prefix: str, truth: np.ndarray, said: np.ndarray) -> RankingScores:
    return RankingScores(**add(prefix, _ranking_score(truth, said, over)))

  by_class = {
    name: rank(
      f'ranking.by_class.{name}', of_class[:, i], outcomes.probabilities[:, i]
    )
    for i, name in enumerate(class_names)
    if is_told[i]
  }
  if benign is None or not is_told[benign]:
    return Ranking(by_class)
  said = -outcomes.probabilities[:, benign]
  return Ranking(
    by_class, rank('ranking.malignant', ~of_class[:, benign], said)
  )


def _calibrate(
  outcomes: Outcomes, over: IntervalGroups, add: Add
) -> Calibration:
  def calibrate(prefix: str, temperature: Temperatures) -> CalibrationScores:
    said = calibration.with_temperature(outcomes.probabilities, temperature)
    score = _calibration_score(said, outcomes.truth, over)
    sure = over.groups.sum(said.max(1) >= calibration.CONFIDENT) > 0
    values: dict[str, Any] = dict(
      add(
        prefix,
        score,
        # Absolute values: drawn anew they only grow.
        without=['error'],
        from_zero=['brier', 'loss'],
        bearing={'confident_accuracy': int(sure.sum())},
      )
    )
    if values['confident'] == 0:
      values['confident_accuracy'] = None
    by_chance = calibration.error_by_chance(over.rng(), said)
    return CalibrationScores(**values, error_by_chance=by_chance)

  temperature = outcomes.temperature
  scaled = None
  if temperature is not None:
    scaled = calibrate('calibration.scaled', temperature)
  return Calibration(
    raw=calibrate('calibration.raw', 1.0),
    scaled=scaled,
    temperature=temperature if isinstance(temperature, float) else None,
    fitted_to=outcomes.fitted_to or None,
    local=outcomes.is_local,
  )


def _confusion_score(
  outcomes: Outcomes,
  over: IntervalGroups,
  class_names: Sequence[str],
  benign: int | None,
) -> tuple[Score, list[dict[str, np.ndarray]]]:
  """The score of samples, and those of what can't be drawn."""
  count, groups = len(class_names), over.groups
  confusions = groups.confusions(outcomes.truth, outcomes.predicted, count)
  losses = groups.sum(np.asarray(outcomes.losses, float))
  required = confusions.sum((0, 2)) > 0

  def scores_of(drawn: np.ndarray) -> dict[str, np.ndarray]:
    scored = classification.of_confusions(drawn, benign, required)
    flat = {n: v for n, v in scored.items() if not n.startswith('class_')}
    # Nothing is known of a class that a sample, or the set, lacks.
    present = drawn.sum(2) > 0
    for field in ('recall', 'precision', 'f1'):
      values = np.where(present, scored[f'class_{field}'], np.nan)
      for i, name in enumerate(class_names):
        flat[f'by_class.{name}.{field}'] = values[:, i]
    return flat

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    drawn = np.tensordot(times, confusions, 1)
    return scores_of(drawn) | {'loss': times @ losses / drawn.sum((1, 2))}

  return score, [
    scores_of(own)
    for own in bootstrap.alternative_confusions(confusions, groups)
  ]


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


def _limit_score(limits: LimitOutcomes, over: IntervalGroups) -> Score:
  names = ('false_alarms', 'coverage', 'uncertain')
  columns = (limits.unlike, limits.covered, limits.uncertain)
  sums = over.groups.sum(np.stack([np.ones(len(limits.unlike)), *columns], 1))

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    images, *flagged = (times @ sums).T
    return {n: f / images for n, f in zip(names, flagged, strict=True)}

  return score


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
        scored['cell_f1'] = segmentation.share(
          drawn['true_positives'], drawn['cells']
        )
    return scored

  _, ends = bootstrap.score_with_intervals(
    over.rng(),
    groups,
    score,
    from_zero=['hausdorff_95', 'cell_count_error'],
  )
  return Assessment(
    over._replace(groups=groups).record(
      {f'test.{name}': own for name, own in ends.items()}
    )
  )
