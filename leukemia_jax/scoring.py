"""A trained model's scores on the parts of a set, beside simple baselines."""

import concurrent.futures
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

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
from leukemia_jax.data import audit
from leukemia_jax.data.dataset import Dataset

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
      np.asarray(data.images),
      np.asarray(data.labels),
      parts['train'],
      parts['test'],
    )
    result['baselines'] = {'colour_3_nearest_neighbours': colour}
  return result


class _Tried(NamedTuple):
  """What each image of a part gives.

  Attributes:
    counted: int, shape (n, thresholds, 4), see `segmentation.counts`.
    soft: float, shape (n, 2), see `segmentation.soft_sums`.
  """

  counted: np.ndarray
  soft: np.ndarray


def _truth(data: Dataset, rows: np.ndarray) -> np.ndarray:
  assert data.masks is not None
  return np.asarray(data.masks[rows])[..., 0] > 0


def _predictions(
  step: Any, trained: Trained, data: Dataset, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  size = trained.config.train.batch_size
  batches = evaluate.probabilities(
    step, trained.variables, data, rows, batch_size=size
  )
  starts = range(0, len(rows), size)
  for start, probability in zip(starts, batches, strict=True):
    yield _truth(data, rows[start : start + size]), probability


def _try_thresholds(
  step: Any, trained: Trained, data: Dataset, rows: np.ndarray, part: str
) -> _Tried:
  counted, soft = [], []
  batches = -(-len(rows) // trained.config.train.batch_size)
  for truth, probability in progress.track(
    _predictions(step, trained, data, rows), f'Scoring: {part}', batches
  ):
    called = probability[:, None] > segmentation.THRESHOLDS[:, None, None]
    counted.append(segmentation.counts(truth[:, None], called))
    soft.append(segmentation.soft_sums(truth, probability))
  return _Tried(np.concatenate(counted), np.concatenate(soft))


def _full_scores(
  truth: np.ndarray,
  called: np.ndarray,
  labels: np.ndarray,
  class_names: tuple[str, ...],
) -> dict[str, Any]:
  """`segmentation.summary` of all images, and by class."""
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    images = list(
      progress.track(
        pool.map(segmentation.image_scores, truth, called),
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


def score_masks(
  trained: Trained,
  class_names: tuple[str, ...],
  data: Dataset,
  parts: dict[str, np.ndarray],
  workdir: pathlib.Path,
  *,
  threshold: float | None = None,
) -> dict[str, Any]:
  """Scores a segmenter, and draws what it does well and badly.

  Args:
    trained: the segmenter.
    class_names: of the set.
    data: the set, with masks.
    parts: row numbers by part.
    workdir: where errors.png and, if it is chosen here, thresholds.png go.
    threshold: probability from which on a pixel is called a cell; None takes
      the one of `segmentation.THRESHOLDS` that is best on validation.

  Returns:
    The threshold; of every part the overlap, and of the test part everything
    (see `segmentation.summary`), also by class, with the study's soft forms;
    and likewise for masks that are all ground and, where there is a training
    part, for a colour rule that was fitted to it.
  """
  labels = np.asarray(data.labels)
  # Compiled once for all parts.
  step = evaluate.make_probability_step(
    apply_fn=trained.model.apply, preprocessing=trained.config.model.preprocess
  )
  tried = {
    part: _try_thresholds(step, trained, data, rows, part)
    for part, rows in parts.items()
  }
  if threshold is None:
    counted = tried['validation'].counted.sum(0)
    index = segmentation.best_threshold(counted)
    threshold = float(segmentation.THRESHOLDS[index])
    curve = figures.threshold_curve(
      segmentation.THRESHOLDS, segmentation.overlap(counted), threshold
    )
    files.write(workdir / 'thresholds.png', curve)
  else:
    index = int(np.abs(segmentation.THRESHOLDS - threshold).argmin())
  result: dict[str, Any] = {'threshold': threshold}
  for part, got in tried.items():
    rows_labels = labels[parts[part]]
    result[part] = segmentation.pooled(got.counted[:, index]) | {
      'by_class': {
        name: segmentation.pooled(got.counted[rows_labels == label, index])
        for label, name in enumerate(class_names)
        if (rows_labels == label).any()
      },
      'soft': segmentation.soft_scores(got.soft),
    }
  rows = parts['test']
  truth, test_labels = _truth(data, rows), labels[rows]
  called = np.concatenate(
    [p > threshold for _, p in _predictions(step, trained, data, rows)]
  )
  result['test'] |= _full_scores(truth, called, test_labels, class_names)
  images = np.asarray(data.images[rows])
  dice = segmentation.overlap(segmentation.counts(truth, called))['dice']
  sheet = _sheet(images, truth, called, dice)
  files.write(workdir / 'errors.png', figures.contact_sheet(*sheet))

  def score(masks: np.ndarray) -> dict[str, Any]:
    return _full_scores(truth, masks, test_labels, class_names)

  result['baselines'] = {'all_ground': score(np.zeros_like(truth))}
  if 'train' in parts:
    every, masks = np.asarray(data.images), np.asarray(data.masks)
    rule = audit.fit_colour_rule(
      (every[i], masks[i, ..., 0] > 0) for i in parts['train']
    )
    ruled = np.stack([audit.apply_colour_rule(i, rule) for i in images])
    result['baselines']['colour_rule'] = score(ruled) | {'rule': rule._asdict()}
  return result


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
