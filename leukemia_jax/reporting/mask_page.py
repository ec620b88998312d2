"""What a segmenter's page says: verdict, tables and charts."""

from collections.abc import Sequence
from typing import Any

from leukemia_jax.data.splits import PARTS
from leukemia_jax.evaluation import predictions
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.metrics import objects, segmentation
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.reporting import class_page, page_rows, pages
from leukemia_jax.workdir.records import Baselines, Result

COLUMNS = {
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
_BASELINES = {'background': 'background', 'colour_rule': 'colour rule'}
_SHOWN_WORST = 12


def baselines(known: Baselines) -> dict[str, MaskScores]:
  """The scores of the masks that a model's are compared with, by title."""
  return {
    title: getattr(known, name)
    for name, title in _BASELINES.items()
    if getattr(known, name) is not None
  }


def interval(result: Result, name: str) -> str:
  """A score's interval; a dash if it has none."""
  ends = result.intervals and result.intervals.ends.get(f'test.{name}')
  return ' to '.join(pages.number(end, 3) for end in ends) if ends else '-'


def verdict(result: Result) -> list[str]:
  """Three sentences: the score, what a colour rule reaches, cells."""
  test, rule = result.mask_scores('test'), result.baselines.colour_rule
  ends = interval(result, 'dice')
  sentences = [
    f'{class_page.tested_on(result)} Dice is {test.dice:.3f}'
    + (f' (95 % interval {ends}).' if ends != '-' else '.')
  ]
  if rule:
    sentences.append(
      f'A colour rule fitted to the training part reaches {rule.dice:.3f}'
      + (' on average over the folds.' if result.cross_validation else '.')
    )
  if test.cell_f1 is not None and test.cell_count_error is not None:
    sentences.append(
      f'Cell by cell F1 is {test.cell_f1:.3f}, and an image is miscounted by '
      f'{test.cell_count_error:.1f} cells on average.'
    )
  return sentences


def _row(title: list[str], scores: MaskScores) -> list[str]:
  values = [pages.number(getattr(scores, name)) for name in COLUMNS]
  return [*title, str(scores.images), *values]


def context(result: Result, rows: Sequence[Row]) -> dict[str, Any]:
  """The tables of a segmenter's page; see `class_page.context`."""
  columns = ['images', *COLUMNS.values()]
  test = result.mask_scores('test')
  by_title = {'model': test} | baselines(result.baselines)
  others = [
    part
    for part in reversed(PARTS)
    if part != 'test' and getattr(result, part) is not None
  ]
  names = page_rows.patient_names(rows)
  lines = {id(row): line for line, row in enumerate(rows, 2)}
  worst = sorted(
    predictions.tested(rows), key=lambda row: (float(row['dice']), row['path'])
  )
  return {
    'verdict': verdict(result),
    'score_header': ['score', *by_title, '95 % interval of the model', *others],
    'score_rows': [
      [
        COLUMNS[name],
        *(pages.number(getattr(own, name), 3) for own in by_title.values()),
        interval(result, name),
        *(
          pages.number(getattr(result.mask_scores(part), name), 3)
          for part in others
        ),
      ]
      for name in COLUMNS
      if getattr(test, name) is not None
    ],
    'class_header': ['class', 'masks by', *columns],
    'class_rows': [
      _row([pages.literal(name), title], (scores.by_class or {})[name])
      for name in test.by_class or {}
      for title, scores in by_title.items()
    ],
    'worst_rows': [
      [
        page_rows.where(row, lines[id(row)], names),
        pages.number(float(row['dice']), 3),
        row['cells_true'],
        row['cells_predicted'],
      ]
      for row in worst[:_SHOWN_WORST]
    ],
    'border_tolerance': segmentation.BORDER_TOLERANCE,
    'cell_iou': objects.CELL_IOU,
  }
