"""What a classifier's page says: verdict, tables and charts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from leukemia_jax.audit import properties
from leukemia_jax.evaluation import predictions
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.metrics import calibration, ranking
from leukemia_jax.reporting import charts, page_rows, pages
from leukemia_jax.workdir.records import Result, Shortcut

_HEADINGS = {
  'macro_f1': 'macro F1',
  'dice': 'Dice',
  'mean_dice': 'mean Dice',
  'iou': 'IoU',
  'loss': 'loss, nats',
}
_COLUMNS = (
  'balanced_accuracy',
  'accuracy',
  'macro_f1',
  'worst_class_recall',
  'precision',
  'sensitivity',
  'specificity',
  'loss',
)
_CONFIDENT = round(100 * calibration.CONFIDENT)


def interval(result: Result, name: str) -> str:
  """The interval of a share as percents; '' if it has none."""
  ends = result.intervals and result.intervals.ends.get(name)
  if not ends:
    return ''
  return ' to '.join(map(pages.percent, ends))


def with_interval(result: Result, value: float | None, name: str) -> str:
  """A share as a percentage, with its interval where it has one."""
  ends = interval(result, name)
  return pages.percent(value) + (f' ({ends})' if ends else '')


def heading(name: str) -> str:
  """A score's name as a person writes it."""
  return _HEADINGS.get(name, name.replace('_', ' '))


def tested_on(result: Result) -> str:
  """On how much a score stands: images, and groups where they are known."""
  words = f'On {result.test.images} test images'
  record = result.intervals
  if record and record.group != 'image':
    words += f' (groups: {record.groups}, one {record.group} each)'
  return words


def verdict(result: Result) -> list[str]:
  """Three sentences: the score, what it is above, whether it knows."""
  test = result.class_scores('test')
  score = pages.percent(test.balanced_accuracy)
  ends = interval(result, 'test.balanced_accuracy')
  sentences = [
    f'{tested_on(result)} balanced accuracy is {score} %'
    + (f' (95 % interval {ends}).' if ends else '.')
    + _untested_classes(result)
  ]
  shortcut = result.baselines.shortcut
  chance = pages.percent(_chance(result))
  if shortcut:
    sentences.append(_above(shortcut, chance))
  elif result.baselines.colour_balanced_accuracy is not None:
    colour = pages.percent(result.baselines.colour_balanced_accuracy)
    sentences.append(
      f'Six colour numbers of the whole image reach {colour} % without looking '
      f'at a cell; chance is {chance} %.'
    )
  if result.calibration:
    sentences.append(_knows(result))
  return sentences


def _untested_classes(result: Result) -> str:
  """Says which classes the test part has no image of; '' if none."""
  by_class = result.class_scores('test').by_class
  lacking = [name for name, own in by_class.items() if not own.images]
  if not lacking:
    return ''
  return (
    f' No test image is of {", ".join(lacking)}: nothing is known of how well '
    'these are told from the others.'
  )


def _chance(result: Result) -> float:
  """Balanced accuracy of naming one class, over the classes that are there."""
  by_class = result.class_scores('test').by_class.values()
  return 1 / max(1, sum(own.images > 0 for own in by_class))


def _above(shortcut: Shortcut, chance: str) -> str:
  """The score beside the best shortcut's."""
  points, ends = 100 * shortcut.above, shortcut.above_interval_95
  words = f'That is {abs(points):.1f} points'
  if ends:
    # Of what is said to be above or below.
    low, high = sorted(100 * end * (1 if points >= 0 else -1) for end in ends)
    words += f' (95 % interval {low:.1f} to {high:.1f})'
  words += ' above' if points >= 0 else ' below'
  name = f', {_title(shortcut.name)}' if shortcut.name else ''
  words += (
    f' the best shortcut{name}, which sees no shape of a cell and reaches '
    f'{pages.percent(shortcut.balanced_accuracy)} %; chance is {chance} %.'
  )
  if points <= 0 or not ends or ends[0] <= 0:
    words += ' The score alone does not show that cells were looked at.'
  return words


def _title(name: str) -> str:
  titles = {own.name: own.title for own in properties.OF_PIXELS}
  return titles.get(name, 'what is outside cells, together')


def _knows(result: Result) -> str:
  record = result.calibration
  assert record is not None
  scores = record.scaled or record.raw
  after = ' with a temperature' if record.scaled else ''
  sentence = (
    f'Its probabilities{after} are off by '
    f'{pages.percent(scores.error)} points on average'
  )
  if scores.error_by_chance is not None:
    sentence += (
      ' (in a set of this size right ones are off by up to '
      f'{pages.percent(scores.error_by_chance)})'
    )
  if scores.confident_accuracy is None:
    return f'{sentence}, and none is {_CONFIDENT} % or more.'
  return (
    f'{sentence}; of the {pages.percent(scores.confident, 0)} % of images '
    f'predicted with {_CONFIDENT} % or more, '
    f'{pages.percent(scores.confident_accuracy)} % are correct.'
  )


def context(result: Result, rows: Sequence[Row]) -> dict[str, Any]:
  """The tables of a classifier's page.

  Args:
    result: of the run.
    rows: of its predictions.csv.

  Returns:
    What the template shows, by name.
  """
  test = result.class_scores('test')
  return {
    'verdict': verdict(result),
    'score_header': ['score', 'test, %', '95 % interval', *_others(result)],
    'score_rows': _score_rows(result),
    'baseline_rows': _baseline_rows(result),
    'ranking_header': [
      'class',
      'ROC area',
      'average precision',
      f'sensitivity at {round(100 * ranking.SPECIFICITY)} % specificity',
    ],
    'ranking_rows': _ranking_rows(result),
    'calibration_rows': _calibration_rows(result),
    'confident': str(_CONFIDENT),
    'limit_rows': _limit_rows(result),
    'class_header': ['class', 'images', 'recall, %', 'precision, %', 'F1, %'],
    'class_rows': [
      [
        pages.literal(name),
        str(own.images),
        *(
          with_interval(
            result,
            getattr(own, n) if own.images else None,
            f'test.by_class.{name}.{n}',
          )
          for n in ('recall', 'precision', 'f1')
        ),
      ]
      for name, own in test.by_class.items()
    ],
    'shown_patients': page_rows.SHOWN_PATIENTS,
    'patient_rows': page_rows.patient_rows(rows),
    'mistake_rows': page_rows.mistake_rows(rows),
    'num_mistakes': test.images - int(np.trace(test.confusion_matrix)),
  }


def _others(result: Result) -> list[str]:
  return [p for p in ('validation', 'train') if getattr(result, p) is not None]


def _score_rows(result: Result) -> list[list[str]]:
  parts = ['test', *_others(result)]
  lines = []
  for name in _COLUMNS:
    values = [getattr(result.class_scores(part), name) for part in parts]
    if values[0] is None:
      continue
    cells = [pages.percent(value) for value in values]
    ends = interval(result, f'test.{name}')
    if name == 'loss':
      cells = [pages.number(value, 3) for value in values]
      record = result.intervals and result.intervals.ends.get('test.loss')
      ends = ' to '.join(pages.number(e, 3) for e in record) if record else ''
    lines.append([heading(name), f'**{cells[0]}**', ends or '-', *cells[1:]])
  return lines


def _baseline_rows(result: Result) -> list[list[str]]:
  """What is reached without a network, balanced accuracy."""
  test, known = result.class_scores('test'), result.baselines
  sizes = [own.images for own in test.by_class.values()]
  lines = []
  if known.shortcut:
    own = known.shortcut
    name = _title(own.name) if own.name else "each fold's own"
    model = {'forest': 'random forest', 'neighbours': '3-NN'}.get(own.model, '')
    title = f'best shortcut: {name}' + (f' ({model})' if model else '')
    lines.append([title, pages.percent(own.balanced_accuracy)])
  if known.colour_balanced_accuracy is not None:
    colour = pages.percent(known.colour_balanced_accuracy)
    lines.append(['colour of the image, 3-NN', colour])
  lines.append(['chance', pages.percent(_chance(result))])
  share = pages.percent(max(sizes) / max(1, sum(sizes)))
  lines.append(['always the largest class (accuracy)', share])
  return lines


def _ranking_rows(result: Result) -> list[list[str]]:
  if result.ranking is None:
    return []
  named = {
    f'by_class.{name}': (pages.literal(name), own)
    for name, own in result.ranking.by_class.items()
  }
  if result.ranking.malignant:
    named['malignant'] = ('malignant, any', result.ranking.malignant)
  return [
    [
      title,
      *(
        with_interval(result, getattr(own, field), f'ranking.{key}.{field}')
        for field in ('roc_auc', 'average_precision', 'sensitivity')
      ),
    ]
    for key, (title, own) in named.items()
  ]


def _calibration_rows(result: Result) -> list[list[str]]:
  record = result.calibration
  if record is None:
    return []
  kinds = {'raw': ('as they are', record.raw)}
  if record.scaled:
    temperature = "each fold's temperature"
    if record.temperature:
      place = 'of this laboratory' if record.local else 'of the training run'
      temperature = f'temperature {place}, {record.temperature:.2f}'
    kinds['scaled'] = (temperature, record.scaled)
  return [
    [
      title,
      pages.percent(own.error),
      '-'
      if own.error_by_chance is None
      else pages.percent(own.error_by_chance),
      pages.number(own.brier, 3),
      pages.number(own.loss, 3),
      pages.percent(own.confident),
      with_interval(
        result,
        own.confident_accuracy,
        f'calibration.{key}.confident_accuracy',
      ),
    ]
    for key, (title, own) in kinds.items()
  ]


def _limit_rows(result: Result) -> list[list[str]]:
  record = result.limits
  if record is None:
    return []
  rows = (
    ('flagged as unlike the training images', 'false_alarms'),
    ('true class among the possible ones', 'coverage'),
    ('flagged as uncertain: several possible classes', 'uncertain'),
  )
  return [
    [
      words,
      pages.percent(getattr(record.rates, name, None)),
      pages.percent(getattr(record, name)),
      interval(result, f'limits.{name}') or '-',
    ]
    for words, name in rows
  ]


def drawn(result: Result, rows: Sequence[Row]) -> dict[str, bytes]:
  """The charts of a classifier's page, by file name."""
  whole = 'All folds' if result.cross_validation else 'Test part'
  names = result.data.classes
  own = predictions.outcomes(predictions.tested(rows), names)
  said = {'as it is': own.probabilities}
  record = result.calibration
  if record and record.temperature:
    said['with the temperature'] = calibration.with_temperature(
      own.probabilities, record.temperature
    )
  by_class = {
    name: charts.Scores(own.truth == i, own.probabilities[:, i])
    for i, name in enumerate(names)
  }
  diagrams = {
    title: calibration.reliability(probabilities, own.truth)
    for title, probabilities in said.items()
  }
  counts = result.class_scores('test').confusion_matrix
  ranked = result.ranking and result.ranking.by_class
  return (charts.ranking(by_class) if ranked else {}) | {
    'confusion.svg': charts.confusion(counts, names, whole),
    'reliability.svg': charts.reliability(diagrams),
  }


def fold_context(result: Result) -> dict[str, Any]:
  """The table of a cross-validation's folds."""
  record = result.cross_validation
  assert record is not None
  names = list(record.scores)
  lines = [
    [f'fold {i}', *(pages.percent(record.scores[n][i]) for n in names)]
    for i in range(record.folds)
  ]
  lines.append(['mean', *(pages.percent(record.mean[n]) for n in names)])
  spread = record.standard_deviation
  lines.append(['SD', *(pages.percent(spread[n]) for n in names)])
  lines.append(
    [
      '**all images**',
      *(
        with_interval(result, getattr(result.test, n), f'test.{n}')
        for n in names
      ),
    ]
  )
  return {'fold_header': ['%', *map(heading, names)], 'fold_rows': lines}
