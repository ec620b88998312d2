"""A segmenter's scores, beside masks of background and of a colour rule."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax import parallel, progress
from leukemia_jax.audit import baselines
from leukemia_jax.audit.baselines import ColourRule
from leukemia_jax.data import masks
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.evaluation import assessment, eval_step
from leukemia_jax.evaluation.scored import (
  Fitted,
  MaskArrays,
  MaskPredictions,
  Scored,
  Subject,
)
from leukemia_jax.metrics import objects, segmentation
from leukemia_jax.metrics.segmentation import ImageScores, MaskScores
from leukemia_jax.workdir.records import Baselines

# Images that a baseline looks at at once.
_BATCH = 64


class _Predicted(NamedTuple):
  """What each image of a part gives.

  Attributes:
    counted: int, shape (n, thresholds, 4), see `segmentation.counts`.
    soft: float, shape (n, 2), see `segmentation.soft_sums`.
    cells: int, shape (n, 2), in the true and in the predicted mask by the only
      threshold; None where several were tried.
    masks: likewise these masks, each bool (n, height, width); None where they
      are not asked for.
  """

  counted: np.ndarray
  soft: np.ndarray
  cells: np.ndarray | None
  masks: tuple[np.ndarray, np.ndarray] | None


class _Predictor:
  """A segmenter at work on a set, its step compiled once for all parts."""

  def __init__(self, subject: Subject):
    self._subject = subject
    self._step = eval_step.make_probability_step(subject.network)

  def __call__(
    self, part: str, thresholds: np.ndarray, *, with_masks: bool = False
  ) -> _Predicted:
    """Predicts a part once, at every threshold."""
    subject = self._subject
    indices, size = subject.parts[part], subject.scoring.batch_size
    batches = eval_step.probabilities(
      self._step,
      subject.variables,
      subject.dataset,
      indices,
      batch_size=size,
    )
    number = -(-len(indices) // size)
    counted, soft, cells, masks = [], [], [], []
    with concurrent.futures.ThreadPoolExecutor(parallel.cores()) as pool:
      for truth, probability in progress.track(
        batches, f'Scoring: {part}', number
      ):
        predicted = probability[:, None] > thresholds[:, None, None]
        counted.append(segmentation.counts(truth[:, None], predicted))
        soft.append(segmentation.soft_sums(truth, probability))
        if len(thresholds) > 1:
          continue
        pairs = np.stack([truth, predicted[:, 0]], 1)
        count = functools.partial(_count_cells, subject.scoring.smallest_cell)
        cells.append(list(pool.map(count, pairs)))
        if with_masks:
          masks.append(pairs)
    drawn = np.concatenate(masks) if masks else None
    return _Predicted(
      np.concatenate(counted),
      np.concatenate(soft),
      np.concatenate(cells) if cells else None,
      None if drawn is None else (drawn[:, 0], drawn[:, 1]),
    )


def _count_cells(smallest: float, masks: np.ndarray) -> list[int]:
  """The number of cells in each mask."""
  return [objects.count_cells(mask, smallest=smallest) for mask in masks]


def _by_class(
  score: Callable[[np.ndarray], MaskScores],
  labels: np.ndarray,
  class_names: tuple[str, ...],
) -> dict[str, MaskScores]:
  """Scores of the images of each class that has some."""
  return {
    name: score(np.flatnonzero(labels == label))
    for label, name in enumerate(class_names)
    if (labels == label).any()
  }


def _overlap_scores(
  subject: Subject, part: str, counted: np.ndarray, soft: np.ndarray
) -> MaskScores:
  """Overlap of all images, by class, and the study's soft forms."""
  indices = subject.parts[part]
  # Not class by class: batches of the study's soft Dice were mixed.
  mixed = np.asarray(
    jax.random.permutation(subject.scoring.mixing_key, len(indices))
  )
  labels = np.asarray(subject.dataset.labels)[indices]

  def of_class(members: np.ndarray) -> MaskScores:
    return segmentation.pooled(counted[members])

  return dataclasses.replace(
    segmentation.pooled(counted),
    soft=segmentation.soft_scores(soft[mixed]),
    by_class=_by_class(of_class, labels, subject.class_names),
  )


def _full_scores(
  subject: Subject, truth: np.ndarray, predicted: np.ndarray
) -> tuple[MaskScores, list[ImageScores]]:
  """Everything about the test part's masks, by class, and of each image."""
  score = functools.partial(
    segmentation.image_scores, smallest=subject.scoring.smallest_cell
  )
  with concurrent.futures.ThreadPoolExecutor(parallel.cores()) as pool:
    images = list(
      progress.track(
        pool.map(score, truth, predicted),
        'Comparing borders and cells',
        len(truth),
      )
    )
  counted = segmentation.counts(truth, predicted)
  labels = np.asarray(subject.dataset.labels)[subject.parts['test']]

  def of_class(members: np.ndarray) -> MaskScores:
    return segmentation.summary(counted[members], [images[i] for i in members])

  scores = dataclasses.replace(
    segmentation.summary(counted, images),
    by_class=_by_class(of_class, labels, subject.class_names),
  )
  return scores, images


def _each_image(predicted: _Predicted) -> MaskPredictions:
  """Overlap and number of cells of each image of a part."""
  assert predicted.cells is not None
  counted = predicted.counted[:, 0]
  tp, fp, fn, tn = counted.T
  return MaskPredictions(
    segmentation.overlap(counted)['dice'],
    *(tp, fp, fn, tn),
    *predicted.cells.T,
  )


def _fit_colour_rule(dataset: Dataset, indices: np.ndarray) -> ColourRule:
  def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first in range(0, len(indices), _BATCH):
      own = dataset.take(indices[first : first + _BATCH])
      yield from zip(
        np.asarray(own.images),
        np.asarray(own.targets)[..., 0] > 0,
        strict=True,
      )

  return baselines.fit_colour_rule(pairs())


def _masks_by_colour(
  subject: Subject, images: np.ndarray, rule: ColourRule
) -> np.ndarray:
  """The masks of a colour rule, cleaned where those of the set are."""
  predicted = [baselines.apply_colour_rule(image, rule) for image in images]
  reading = subject.scoring.mask_reading
  if reading.clean:
    predicted = [
      masks.clean_scaled(
        mask,
        side=subject.catalogue.mask_side,
        minimum_area=reading.minimum_area,
      )
      for mask in predicted
    ]
  return np.stack(predicted)


def score(subject: Subject) -> Scored:
  """Scores a segmenter.

  Without `subject.fitted` the threshold of `segmentation.THRESHOLDS` that is
  best on validation is taken, and the colour rule is fitted to the training
  part.

  Args:
    subject: the segmenter and a set with masks.

  Returns:
    Of every part the overlap with the study's soft forms, and of the test part
    everything (see `segmentation.summary`), also by class; and likewise for
    masks that are all background and for the colour rule.
  """
  predict, fitted = _Predictor(subject), subject.fitted
  scores: dict[str, MaskScores] = {}
  threshold_scores = None
  if fitted is None:
    part = 'validation'
    predicted = predict(part, segmentation.THRESHOLDS)
    counted = predicted.counted.sum(0)
    best = segmentation.best_threshold(counted)
    threshold_scores = segmentation.overlap(counted)
    scores[part] = _overlap_scores(
      subject, part, predicted.counted[:, best], predicted.soft
    )
    rule = _fit_colour_rule(subject.dataset, subject.parts['train'])
    fitted = Fitted(float(segmentation.THRESHOLDS[best]), rule)
  assert fitted.threshold is not None and fitted.colour_rule is not None
  predictions = {}
  for part in subject.parts:
    predicted = predict(
      part, np.array([fitted.threshold]), with_masks=part == 'test'
    )
    if part not in scores:
      scores[part] = _overlap_scores(
        subject, part, predicted.counted[:, 0], predicted.soft
      )
    predictions[part] = _each_image(predicted)
    if predicted.masks is not None:
      truth, of_test = predicted.masks
  images = np.asarray(subject.dataset.images[subject.parts['test']])
  full, images_of_test = _full_scores(subject, truth, of_test)
  scores['test'] = dataclasses.replace(full, soft=scores['test'].soft)
  by_colour = _masks_by_colour(subject, images, fitted.colour_rule)
  return Scored(
    scores,
    Baselines(
      background=_full_scores(subject, truth, np.zeros_like(truth))[0],
      colour_rule=_full_scores(subject, truth, by_colour)[0],
      rule=fitted.colour_rule,
    ),
    predictions,
    assessment.of_masks(
      segmentation.counts(truth, of_test), images_of_test, subject.over_test()
    ),
    threshold=fitted.threshold,
    masks=MaskArrays(
      images, truth, of_test, predictions['test'].dice, threshold_scores
    ),
  )
