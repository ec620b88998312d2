"""A trained model's scores on the parts of a set, beside simple baselines."""

import concurrent.futures
import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from leukemia_jax import (
  evaluate,
  experiment,
  figures,
  metrics,
  progress,
  segmentation,
)
from leukemia_jax import workdir as files
from leukemia_jax.data import audit, masks
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.errors import InputError

# Images of each kind on the sheet of the best, middle and worst.
_SHOWN = 3


class Trained(NamedTuple):
  """A model with its weights and the config that it was trained by."""

  config: ml_collections.ConfigDict
  model: Any
  variables: dict[str, Any]


def score_classes(
  trained: Trained,
  class_names: tuple[str, ...],
  data: Dataset,
  parts: dict[str, np.ndarray],
) -> dict[str, Any]:
  """Scores a classifier.

  Args:
    trained: the classifier.
    class_names: names of its classes.
    data: the set.
    parts: row numbers by part.

  Returns:
    `metrics.scores` by part; and if there is a training part, what is reached
    on the test part without looking at a cell.
  """
  config, result = trained.config, {}
  eval_step = evaluate.make_eval_step(
    apply_fn=trained.model.apply,
    preprocessing=config.model.preprocess,
    objective=experiment.objective(config),
  )
  for part, rows in parts.items():
    loss, confusion = evaluate.run(
      eval_step,
      trained.variables,
      data,
      rows,
      batch_size=config.train.batch_size,
      num_classes=len(class_names),
    )
    result[part] = metrics.scores(
      confusion, loss, class_names, config.data.benign_class
    )
  if 'train' in parts:
    colour = audit.colour_accuracy(
      audit.colour_features(np.asarray(data.images)),
      np.asarray(data.labels),
      parts['train'],
      parts['test'],
    )
    result['baselines'] = {'colour_3_nearest_neighbours': colour}
  return result


class Chosen(NamedTuple):
  """What a segmenter's training run chose on its own parts.

  Attributes:
    threshold: probability above which a pixel is called a cell.
    colour_rule: the baseline that was fitted to the training part.
  """

  threshold: float
  colour_rule: audit.ColourRule


def chosen_by(run: pathlib.Path) -> Chosen:
  """Reads what a training run chose.

  Args:
    run: its workdir.

  Returns:
    The threshold and the colour rule.

  Raises:
    InputError: the run's result can't be read.
  """
  path = run / files.RESULT
  result = files.read_json(path)
  try:
    rule = audit.ColourRule(**result['baselines']['colour_rule']['rule'])
    found = Chosen(result['threshold'], rule)
    if not all(isinstance(value, int) for value in rule):
      raise ValueError(f'the colour rule must be whole numbers, not {rule}')
    if not 0 < found.threshold < 1:
      raise ValueError(f'threshold {found.threshold} is not between 0 and 1')
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(
      f'{path} is damaged, or of another version: {error!r}'
    ) from error
  return found


class _Predicted(NamedTuple):
  """What each image of a part gives.

  Attributes:
    counted: int, shape (n, thresholds, 4), see `segmentation.counts`.
    soft: float, shape (n, 2), see `segmentation.soft_sums`.
    called: bool, shape (n, height, width), by the only threshold; None where
      several were tried.
  """

  counted: np.ndarray
  soft: np.ndarray
  called: np.ndarray | None


def _truth(data: Dataset, rows: np.ndarray) -> np.ndarray:
  assert data.masks is not None
  return np.asarray(data.masks[rows])[..., 0] > 0


class _Predictor:
  """A segmenter at work on a set, its step compiled once for all parts."""

  def __init__(self, trained: Trained, data: Dataset):
    self._trained, self._data = trained, data
    self._step = evaluate.make_probability_step(
      apply_fn=trained.model.apply,
      preprocessing=trained.config.model.preprocess,
    )

  def __call__(
    self, part: str, rows: np.ndarray, thresholds: np.ndarray
  ) -> _Predicted:
    """Predicts a part once, at every threshold."""
    size = self._trained.config.train.batch_size
    batches = evaluate.probabilities(
      self._step, self._trained.variables, self._data, rows, batch_size=size
    )
    starts = range(0, len(rows), size)
    counted, soft, kept = [], [], []
    for start, probability in zip(
      starts,
      progress.track(batches, f'Scoring: {part}', len(starts)),
      strict=True,
    ):
      truth = _truth(self._data, rows[start : start + size])
      called = probability[:, None] > thresholds[:, None, None]
      counted.append(segmentation.counts(truth[:, None], called))
      soft.append(segmentation.soft_sums(truth, probability))
      if len(thresholds) == 1:
        kept.append(called[:, 0])
    return _Predicted(
      np.concatenate(counted),
      np.concatenate(soft),
      np.concatenate(kept) if kept else None,
    )


def _choose_threshold(predicted: _Predicted, workdir: pathlib.Path) -> int:
  """The best threshold's index, drawn among the others."""
  counted = predicted.counted.sum(0)
  index = segmentation.best_threshold(counted)
  curve = figures.threshold_curve(
    segmentation.THRESHOLDS,
    segmentation.overlap(counted),
    float(segmentation.THRESHOLDS[index]),
  )
  files.write(workdir / 'thresholds.png', curve)
  return index


def _full_scores(
  truth: np.ndarray,
  called: np.ndarray,
  labels: np.ndarray,
  class_names: tuple[str, ...],
  smallest: float,
) -> dict[str, Any]:
  """`segmentation.summary` of all images, and by class."""
  score = functools.partial(segmentation.image_scores, smallest=smallest)
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    images = list(
      progress.track(
        pool.map(score, truth, called),
        'Comparing borders and cells',
        len(truth),
      )
    )
  counted = segmentation.counts(truth, called)
  by_class = {}
  for label, name in enumerate(class_names):
    of_class = np.flatnonzero(labels == label)
    if len(of_class):
      by_class[name] = segmentation.summary(
        counted[of_class], [images[i] for i in of_class]
      )
  return segmentation.summary(counted, images) | {'by_class': by_class}


def _overlap_scores(
  counted: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
  """`segmentation.pooled` of all images, and by class."""
  return segmentation.pooled(counted) | {
    'by_class': {
      name: segmentation.pooled(counted[labels == label])
      for label, name in enumerate(class_names)
      if (labels == label).any()
    }
  }


def _fit_colour_rule(data: Dataset, rows: np.ndarray) -> audit.ColourRule:
  images, truth = np.asarray(data.images), np.asarray(data.masks)
  pairs = ((images[i], truth[i, ..., 0] > 0) for i in rows)
  return audit.fit_colour_rule(pairs)


def _by_colour(
  config: ml_collections.ConfigDict,
  images: np.ndarray,
  rule: audit.ColourRule,
  mask_side: int,
) -> np.ndarray:
  """The masks of a colour rule, cleaned where those of the set are."""
  called = [audit.apply_colour_rule(image, rule) for image in images]
  if config.data.clean_masks:
    area = config.data.clean_minimum_area
    called = [
      masks.clean_scaled(mask, side=mask_side, minimum_area=area)
      for mask in called
    ]
  return np.stack(called)


def score_masks(
  trained: Trained,
  class_names: tuple[str, ...],
  data: Dataset,
  parts: dict[str, np.ndarray],
  workdir: pathlib.Path,
  *,
  mask_side: int,
  chosen: Chosen | None = None,
) -> dict[str, Any]:
  """Scores a segmenter, and draws what it does well and badly.

  Args:
    trained: the segmenter.
    class_names: of the set.
    data: the set, with masks.
    parts: row numbers by part.
    workdir: where errors.png and, if it is chosen here, thresholds.png go.
    mask_side: see `dataset.Catalogue`.
    chosen: the threshold and colour rule to use; None takes the threshold of
      `segmentation.THRESHOLDS` that is best on validation, and fits the rule to
      the training part.

  Returns:
    The threshold; of every part the overlap with the study's soft forms, and of
    the test part everything (see `segmentation.summary`), also by class; and
    likewise for masks that are all ground and for the colour rule.
  """
  config, labels = trained.config, np.asarray(data.labels)
  # Not class by class: batches of the study's soft Dice were mixed.
  mixing = experiment.make_keys(config.seed)['split']
  predict = _Predictor(trained, data)
  result: dict[str, Any] = {}

  def take(part: str, predicted: _Predicted, index: int) -> None:
    soft, rows = predicted.soft, parts[part]
    mixed = np.asarray(jax.random.permutation(mixing, len(rows)))
    result[part] = _overlap_scores(
      predicted.counted[:, index], labels[rows], class_names
    ) | {'soft': segmentation.soft_scores(soft[mixed])}

  if chosen is None:
    part = 'validation'
    predicted = predict(part, parts[part], segmentation.THRESHOLDS)
    index = _choose_threshold(predicted, workdir)
    take(part, predicted, index)
    rule = _fit_colour_rule(data, parts['train'])
    chosen = Chosen(float(segmentation.THRESHOLDS[index]), rule)
  for part, rows in parts.items():
    if part not in result:
      predicted = predict(part, rows, np.array([chosen.threshold]))
      take(part, predicted, 0)
      if part == 'test':
        called = predicted.called
  assert called is not None
  images = np.asarray(data.images[parts['test']])
  truth = _truth(data, parts['test'])

  def score(called: np.ndarray) -> dict[str, Any]:
    smallest = config.data.smallest_cell * config.data.image_size
    of_test = labels[parts['test']]
    return _full_scores(truth, called, of_test, class_names, smallest)

  result['test'] |= score(called)
  dice = segmentation.overlap(segmentation.counts(truth, called))['dice']
  sheet = _sheet(images, truth, called, dice)
  files.write(workdir / 'errors.png', figures.contact_sheet(*sheet))
  by_colour = _by_colour(config, images, chosen.colour_rule, mask_side)
  return result | {
    'threshold': chosen.threshold,
    'baselines': {
      'all_ground': score(np.zeros_like(truth)),
      'colour_rule': score(by_colour) | {'rule': chosen.colour_rule._asdict()},
    },
  }


def _sheet(
  images: np.ndarray, truth: np.ndarray, called: np.ndarray, dice: np.ndarray
) -> tuple[list[tuple[str, list[np.ndarray]]], str]:
  """Rows of image, truth, call and errors: best, middle and worst images."""
  # Of images that have cells, if any do: an empty pair would always be best.
  with_cells = np.flatnonzero(truth.any((1, 2)))
  if not len(with_cells):
    with_cells = np.arange(len(truth))
  order = with_cells[np.argsort(-dice[with_cells], kind='stable')]
  middle = max(0, (len(order) - _SHOWN) // 2)
  chosen = {
    'best': order[:_SHOWN],
    'middle': order[middle : middle + _SHOWN],
    'worst': order[-_SHOWN:],
  }
  rows = []
  for name, picked in chosen.items():
    for i in picked:
      masks = [np.repeat(m[..., None], 3, -1) for m in (truth[i], called[i])]
      shown = [np.where(m, 255, 0).astype(np.uint8) for m in masks]
      errors = figures.error_overlay(images[i], truth[i], called[i])
      rows.append((f'{name}\nDice {dice[i]:.2f}', [images[i], *shown, errors]))
  return rows, 'Image, truth, called, errors (red: invented, blue: missed)'
