"""Two models on the same images: where they differ, and by how much."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from leukemia_jax.evaluation import predictions
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.metrics import (
  bootstrap,
  classification,
  segmentation,
  statistics,
)
from leukemia_jax.metrics.bootstrap import Groups, Score
from leukemia_jax.metrics.statistics import Paired

_CLASS_SCORES = ('balanced_accuracy', 'accuracy', 'macro_f1')
_PREFIXES = ('first', 'second', 'difference')


@dataclasses.dataclass(frozen=True)
class Difference:
  """A score of two models, first minus second.

  Attributes:
    first: of the first model.
    second: of the second one.
    difference: first minus second.
    interval_95: of the difference over groups, drawn for both at once; None
      where a class has a single group, or the difference does not vary.
  """

  first: float
  second: float
  difference: float
  interval_95: list[float] | None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two models on the images that both were tested on.

  Attributes:
    runs: names of both.
    images: number of common test images.
    groups: number of groups that intervals are over.
    group: what such a group is.
    scores: by name.
    paired: classifiers' images that only one of them predicted correctly.
  """

  runs: list[str]
  images: int
  groups: int
  group: str
  scores: dict[str, Difference]
  paired: Paired | None


def compare_labels(
  truth: np.ndarray,
  predicted: Sequence[np.ndarray],
  num_classes: int,
  groups: Groups,
  rng: np.random.Generator,
) -> dict[str, Difference]:
  """Compares what two classifiers predicted.

  Args:
    truth: int, shape (n,).
    predicted: int, of both, shape (n,) each.
    num_classes: number of classes.
    groups: of the images.
    rng: draws the groups.

  Returns:
    Each score with its difference.
  """
  confusions = [groups.confusions(truth, own, num_classes) for own in predicted]
  required = confusions[0].sum((0, 2)) > 0

  def scores_of(drawn: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    scored = [
      classification.of_confusions(own, required=required) for own in drawn
    ]
    return _paired({name: [s[name] for s in scored] for name in _CLASS_SCORES})

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    return scores_of([np.tensordot(times, own, 1) for own in confusions])

  # One of both as it may be, the other as it is.
  first, second = (own.sum(0, keepdims=True) for own in confusions)
  first_may_be, second_may_be = (
    bootstrap.alternative_confusions(own, groups) for own in confusions
  )
  alternatives = [scores_of([own, second]) for own in first_may_be]
  alternatives += [scores_of([first, own]) for own in second_may_be]
  return _differences(rng, groups, score, _CLASS_SCORES, alternatives)


def compare_classes(
  first: Sequence[Row],
  second: Sequence[Row],
  class_names: Sequence[str],
  groups: Groups,
  rng: np.random.Generator,
) -> tuple[dict[str, Difference], Paired]:
  """Compares two classifiers.

  Args:
    first: of the first one, n rows.
    second: of the second one, of the same images in the same order.
    class_names: of both.
    groups: of the images.
    rng: draws the groups.

  Returns:
    Each score with its difference, and McNemar's test.
  """
  both = [predictions.outcomes(rows, class_names) for rows in (first, second)]
  truth = both[0].truth
  predicted = [own.predicted for own in both]
  scores = compare_labels(truth, predicted, len(class_names), groups, rng)
  return scores, statistics.mcnemar(*(own == truth for own in predicted))


def compare_masks(
  first: Sequence[Row],
  second: Sequence[Row],
  groups: Groups,
  rng: np.random.Generator,
) -> dict[str, Difference]:
  """Compares two segmenters; see `compare_classes`."""
  groups = groups.of_one_stratum()
  counted = [predictions.pixel_counts(rows) for rows in (first, second)]
  pixels = [groups.sum(own) for own in counted]
  dice = [groups.sum(segmentation.overlap(own)['dice']) for own in counted]
  images = groups.sum(np.ones(len(first)))

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    pooled = [segmentation.overlap(times @ own) for own in pixels]
    means = [times @ own / (times @ images) for own in dice]
    return _paired(
      {
        'dice': [own['dice'] for own in pooled],
        'iou': [own['iou'] for own in pooled],
        'mean_dice': means,
      }
    )

  return _differences(rng, groups, score, ('dice', 'iou', 'mean_dice'))


def _paired(scores: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
  return {
    f'{prefix} {name}': values
    for name, (first, second) in scores.items()
    for prefix, values in zip(
      _PREFIXES, (first, second, first - second), strict=True
    )
  }


def _differences(
  rng: np.random.Generator,
  groups: Groups,
  score: Score,
  names: Sequence[str],
  alternatives: Sequence[Mapping[str, np.ndarray]] = (),
) -> dict[str, Difference]:
  values, ends = bootstrap.score_with_intervals(
    rng,
    groups,
    score,
    not_shares=[f'difference {name}' for name in names],
    alternatives=alternatives,
  )
  return {
    name: Difference(
      first=values[f'first {name}'],
      second=values[f'second {name}'],
      difference=values[f'difference {name}'],
      interval_95=_clipped(ends.get(f'difference {name}')),
    )
    for name in names
  }


def _clipped(ends: list[float] | None) -> list[float] | None:
  """Of an interval what is possible: shares differ by one at most."""
  return ends and np.clip(ends, -1, 1).tolist()
