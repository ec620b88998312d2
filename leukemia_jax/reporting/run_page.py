"""The page of a training run or an evaluation, from its result."""

import pathlib
from typing import Any

import numpy as np

from leukemia_jax import files, models
from leukemia_jax.data.splits import PARTS
from leukemia_jax.evaluation import predictions
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.evaluation.scored import Scored, Subject
from leukemia_jax.metrics import objects, segmentation
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.reporting import figures, pages
from leukemia_jax.workdir import METRICS
from leukemia_jax.workdir.records import Baselines, ModelRecord, Result

MISTAKES = 'mistakes.png'
_SHOWN_MISTAKES = 12
_CLASS_COLUMNS = (
  'accuracy',
  'balanced_accuracy',
  'macro_f1',
  'worst_class_recall',
  'loss',
  'precision',
  'sensitivity',
  'specificity',
)
_HEADINGS = {'macro_f1': 'macro F1', 'mean_dice': 'mean Dice'}
MASK_COLUMNS = {
  'dice': 'Dice',
  'iou': 'IoU',
  'accuracy': 'pixel accuracy',
  'precision': 'precision',
  'recall': 'recall',
  'border_f1': 'border F1',
  'hausdorff_95': '95 % Hausdorff, px',
  'one_mask_empty': 'one mask empty',
  'cell_f1': 'cell F1',
  'cell_count_error': 'cell count error',
  'mean_dice': 'mean Dice',
  'mean_iou': 'mean IoU',
}
# Titles of the masks that a model's are compared with.
BASELINES = {'background': 'background', 'colour_rule': 'colour rule'}


def model_title(model: ModelRecord) -> str:
  """A model's name, and how it is smaller than the published network."""
  title = models.TITLES[model.name]
  published = models.published_size(model.name)
  own = models.Size(model.width, tuple(model.blocks), model.depth)
  if own == published:
    return title
  changes = [f'width {model.width:g}']
  if model.blocks:
    changes.append(f'blocks {"-".join(map(str, model.blocks))}')
  else:
    changes.append(f'depth {model.depth}')
  changes.append(f'{model.parameters / 1e6:.1f} M parameters')
  return f'{title}, reduced: {", ".join(changes)}'


def mask_baselines(baselines: Baselines) -> dict[str, MaskScores]:
  """The scores of the masks that a model's are compared with, by title."""
  return {
    title: getattr(baselines, name)
    for name, title in BASELINES.items()
    if getattr(baselines, name) is not None
  }


def _parts(result: Result) -> list[str]:
  """The parts that were scored; the one that counts comes first."""
  return [p for p in reversed(PARTS) if getattr(result, p) is not None]


def class_context(result: Result) -> dict[str, Any]:
  """The tables of a classifier's page."""
  score_rows, class_rows = [], []
  for part in _parts(result):
    scores = result.class_scores(part)
    values = [pages.number(getattr(scores, name)) for name in _CLASS_COLUMNS]
    score_rows.append([part, str(scores.images), *values])
    for name, own in scores.by_class.items():
      values = [pages.number(v) for v in (own.precision, own.recall, own.f1)]
      class_rows.append([part, pages.literal(name), str(own.images), *values])
  return {
    'score_header': [
      'part',
      'images',
      *(_HEADINGS.get(n, n.replace('_', ' ')) for n in _CLASS_COLUMNS),
    ],
    'score_rows': score_rows,
    'class_header': ['part', 'class', 'images', 'precision', 'recall', 'F1'],
    'class_rows': class_rows,
  }


def fold_context(result: Result) -> dict[str, Any]:
  """The table of a cross-validation's page."""
  record = result.cross_validation
  assert record is not None
  names = list(record.scores)
  rows = [
    [f'fold {i}', *(pages.number(record.scores[name][i]) for name in names)]
    for i in range(record.folds)
  ]
  rows.append(['mean', *(pages.number(record.mean[n]) for n in names)])
  spread = record.standard_deviation
  rows.append(['SD', *(pages.number(spread[n]) for n in names)])
  rows.append(['**all**', *(_with_interval(result, n) for n in names)])
  titles = [_HEADINGS.get(n, n.replace('_', ' ')) for n in names]
  return {'fold_header': ['', *titles], 'fold_rows': rows}


def _with_interval(result: Result, name: str) -> str:
  """A score of the test part, with its interval where it has one."""
  value = f'**{pages.number(getattr(result.test, name))}**'
  ends = result.intervals and result.intervals.ends.get(f'test.{name}')
  return f'{value} ({" to ".join(map(pages.number, ends))})' if ends else value


def draw_mistakes(subject: Subject, scored: Scored) -> bytes | None:
  """The test images that were predicted incorrectly with most confidence.

  Args:
    subject: what was scored.
    scored: its predictions.

  Returns:
    A PNG file's bytes; None if all are correct.
  """
  predicted = scored.predictions['test']
  assert isinstance(predicted, ClassPredictions)
  indices = subject.parts['test']
  truth = np.asarray(subject.dataset.labels)[indices]
  confidence = predicted.probabilities.max(-1)
  incorrect = np.flatnonzero(predicted.labels != truth)
  ordered = incorrect[np.argsort(-confidence[incorrect], kind='stable')]
  chosen = ordered[:_SHOWN_MISTAKES]
  if not len(chosen):
    return None
  names = subject.class_names
  return figures.captioned(
    np.asarray(subject.dataset.images[indices[chosen]]),
    [
      f'{names[truth[i]]}\npredicted {names[predicted.labels[i]]}, '
      f'{confidence[i]:.2f}'
      for i in chosen
    ],
    f'Most confident of {len(incorrect)} incorrect test images',
  )


def _mask_row(title: list[str], scores: MaskScores) -> list[str]:
  values = [pages.number(getattr(scores, name)) for name in MASK_COLUMNS]
  return [*title, str(scores.images), *values]


def mask_context(result: Result) -> dict[str, Any]:
  """The tables of a segmenter's page."""
  columns = ['images', *MASK_COLUMNS.values()]
  test = result.mask_scores('test')
  by_title = {'model': test} | mask_baselines(result.baselines)
  score_rows = [_mask_row(['test'], test)]
  score_rows += [
    _mask_row([f'test: {title}'], scores)
    for title, scores in by_title.items()
    if title != 'model'
  ]
  score_rows += [
    _mask_row([part], result.mask_scores(part))
    for part in _parts(result)
    if part != 'test'
  ]
  return {
    'score_header': ['part', *columns],
    'score_rows': score_rows,
    'class_header': ['class', 'masks by', *columns],
    'class_rows': [
      _mask_row([pages.literal(name), title], (scores.by_class or {})[name])
      for name in test.by_class or {}
      for title, scores in by_title.items()
    ],
    'border_tolerance': segmentation.BORDER_TOLERANCE,
    'cell_iou': objects.CELL_IOU,
  }


def class_figures(result: Result, scored: Scored | None) -> dict[str, bytes]:
  """The figures of a classifier's page."""
  del scored  # The result holds all that they show.
  image = figures.confusion(
    result.class_scores('test').confusion_matrix,
    result.data.classes,
    'Test part',
  )
  return {'confusion.png': image}


def mask_figures(result: Result, scored: Scored | None) -> dict[str, bytes]:
  """The figures of a segmenter's page; nothing without its arrays."""
  if scored is None or scored.masks is None:
    return {}
  masks = scored.masks
  drawn = {
    'errors.png': figures.error_sheet(
      masks.images, masks.truth, masks.predicted, masks.dice
    )
  }
  if masks.threshold_scores is not None:
    drawn['thresholds.png'] = figures.threshold_curve(
      segmentation.THRESHOLDS, masks.threshold_scores, result.threshold or 0.0
    )
  return drawn


def write(
  workdir: pathlib.Path,
  result: Result,
  *,
  template: str,
  context: dict[str, Any],
  drawn: dict[str, bytes],
) -> pathlib.Path:
  """Writes report.md, report.html and the figures of a run.

  Args:
    workdir: of the run; figures that are drawn already are taken from there.
    result: of the run.
    template: name of the page's template.
    context: its tables.
    drawn: its figures by file name.

  Returns:
    The path of report.md.
  """
  history = files.read_json_lines(workdir / METRICS)
  if history:
    drawn['curves.png'] = figures.curves(history, result.best_epoch or 0)
  for name in ('errors.png', 'thresholds.png', MISTAKES):
    if name not in drawn and (workdir / name).exists():
      drawn[name] = (workdir / name).read_bytes()
  context |= {
    'result': result,
    'model_title': model_title(result.model),
    'has_curves': 'curves.png' in drawn,
    'has_thresholds': 'thresholds.png' in drawn,
    'has_mistakes': MISTAKES in drawn,
    'has_confusion': 'confusion.png' in drawn,
    'predictions': predictions.NAME,
  }
  return pages.write(workdir, template, context, drawn)
