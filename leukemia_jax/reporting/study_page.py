"""The page of a study: who wins, what it costs, and the published tables."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from leukemia_jax import files, models
from leukemia_jax.errors import InputError
from leukemia_jax.metrics import objects, segmentation
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.reporting import charts, mask_page, pages
from leukemia_jax.reporting.run_page import model_title
from leukemia_jax.study import published, rows, summary
from leukemia_jax.study.grid import AXES
from leukemia_jax.study.rows import RowRecord
from leukemia_jax.study.summary import Line
from leukemia_jax.workdir import CONFIG, result
from leukemia_jax.workdir.records import Result

_PARAMETERS = ('learning_rate', 'dropout')
# Where our columns stand beside published ones of other names.
_PUBLISHED_AS = {
  'val_precision': 'precision',
  'val_recall': 'recall',
  'val_f1': 'f1',
}
# Digits that are printed, where not 2: of counts and of shares.
_DIGITS = {'epochs': 0, 'diverged': 0} | {
  column.name: 3
  for column in (*summary.PUBLISHED_SCORES, *summary.MORE_SCORES)
  if column.factor == 1
}
# Columns of the tables: name, heading. The test part comes first.
_COLUMNS = {
  'learning_rate': 'rate',
  'dropout': 'dropout',
  'test_accuracy': 'test accuracy, %',
  'test_loss': 'test loss x 100',
  'test_worst_class_recall': 'worst class recall (test), %',
  'precision': 'precision (test)',
  'recall': 'recall (test)',
  'f1': 'F1 (test)',
  'val_accuracy': 'validation accuracy, %',
  'val_loss': 'validation loss x 100',
  'val_worst_class_recall': 'worst class recall (validation), %',
  'val_precision': 'precision (validation)',
  'val_recall': 'recall (validation)',
  'val_f1': 'F1 (validation)',
  'train_accuracy': 'training accuracy, %',
  'train_loss': 'training loss x 100',
  'epochs': 'epochs',
  'diverged': 'diverged',
}
# Scores of masks that stand beside those of a study.
_JOINED = ('dice', 'iou', 'border_f1', 'cell_f1')
Figures = dict[tuple[str, int, float, float], dict[str, float]]


def _is_published_set(row: RowRecord) -> bool:
  data = row.data
  return data.originals == published.IMAGES and data.source != 'synthetic'


def _cell(name: str, line: Line, printed: dict[str, float]) -> str:
  """A value with its deviation, and the published one with the difference."""
  value = line[name]
  if name in _PARAMETERS:
    return f'{value:g}'
  digits = _DIGITS.get(name, 2)
  text = f'{value:.{digits}f}'
  deviation = line.get(f'{name}_std')
  if deviation is not None:
    text += f' ± {deviation:.{digits}f}'
  column = _PUBLISHED_AS.get(name, name)
  # Published precision, recall and F1 stand beside ours of the same part.
  if column in printed and name not in _PUBLISHED_AS.values():
    text += f' ({printed[column]:.2f}, {value - printed[column]:+.{digits}f})'
  return text


def _key(line: Line) -> tuple[str, int, float, float]:
  return (
    line['model'],
    line['loading_option'],
    line['learning_rate'],
    line['dropout'],
  )


def _grid_tables(lines: list[Line], printed: Figures) -> list[dict[str, str]]:
  """The study's tables: one a backbone and option."""
  tables = []
  for group in sorted({_key(line)[:2] for line in lines}):
    members = [line for line in lines if _key(line)[:2] == group]
    cells = [
      [_cell(name, line, printed.get(_key(line), {})) for name in _COLUMNS]
      for line in members
    ]
    bold = frozenset({summary.best(members)})
    tables.append(
      {
        'title': f'{group[0]}, loading option {group[1]}',
        'table': pages.table(list(_COLUMNS.values()), cells, bold),
      }
    )
  return tables


def _picture(
  records: list[RowRecord], lines: list[Line], printed: Figures
) -> bytes:
  """All rows by rate, beside the published ones."""
  panels: dict[str, charts.Panel] = {}
  for record, line in zip(records, lines, strict=True):
    title = f'{line["model"]}, loading option {line["loading_option"]}'
    baseline = 100 - 100 * record.colour_3_nearest_neighbours
    panel = panels.setdefault(title, charts.Panel(title, {}, baseline))
    figure = printed.get(_key(line), {})
    point = [
      [line['learning_rate']],
      [100 - line['test_accuracy']],
      [line['test_accuracy_std'] or 0.0],
      [100 - figure.get('test_accuracy', np.nan)],
    ]
    name = f'dropout {line["dropout"]:g}'
    before = panel.series.get(name, np.zeros((4, 0)))
    panel.series[name] = np.concatenate([before, point], 1)
  return charts.error_by_rate(list(panels.values()))


def _interval(share: float | None, count: int) -> str:
  low, high = summary.interval(share or 0.0, count)
  return f'{low:.1f} to {high:.1f}'


def _winners_table(
  records: list[RowRecord], lines: list[Line], chosen: list[int]
) -> str:
  """The best row of each backbone and option, with its uncertainty."""
  cells = []
  for i in chosen:
    test, line = records[i].repeats[0].test, lines[i]
    cells.append(
      [
        line['model'],
        *(_cell(name, line, {}) for name in _PARAMETERS),
        str(line['loading_option']),
        _cell('test_worst_class_recall', line, {}),
        _cell('test_accuracy', line, {}),
        _interval(test.accuracy, test.images),
        f'{100 * records[i].colour_3_nearest_neighbours:.2f}',
        str(test.images),
        _cell('val_worst_class_recall', line, {}),
      ]
    )
  header = [
    'backbone',
    *(_COLUMNS[name] for name in _PARAMETERS),
    'option',
    _COLUMNS['test_worst_class_recall'],
    'test accuracy, %',
    '95 % interval',
    'colour 3-NN, %',
    'test images',
    _COLUMNS['val_worst_class_recall'],
  ]
  bold = frozenset({summary.best([lines[i] for i in chosen])})
  return pages.table(header, cells, bold)


def _p_values(values: list[float]) -> str:
  return ', '.join(f'{value:.2g}' for value in values)


def _comparison_table(
  records: list[RowRecord], lines: list[Line], chosen: list[int]
) -> str:
  """Pairs of the best rows that differ in backbone or option alone."""
  cells = []
  for first, second, tests in summary.comparisons(records, chosen):
    titles = [
      f'{lines[i]["model"]}, {records[i].option}' for i in (first, second)
    ]
    cells.append(
      [
        *titles,
        str(tests[0].images),
        ', '.join(str(test.first_only) for test in tests),
        ', '.join(str(test.second_only) for test in tests),
        _p_values([test.p_value for test in tests]),
      ]
    )
  if not cells:
    return ''
  header = [
    'first',
    'second',
    'images',
    'only first correct',
    'only second correct',
    'p',
  ]
  return pages.table(header, cells)


def _cost_table(records: list[RowRecord]) -> str:
  """What backbones and heads take."""
  backbones: dict[str, rows.BackboneRecord] = {}
  for record in records:
    known = backbones.get(record.model)
    # Rows whose features were in the cache know no speed.
    if known is None or not known.images_per_second:
      backbones[record.model] = record.backbone
  cells = []
  for name, backbone in backbones.items():
    heads = [
      repeat.seconds
      for record in records
      if record.model == name
      for repeat in record.repeats
    ]
    flops = backbone.flops_per_image
    cells.append(
      [
        models.TITLES[name],
        f'{backbone.width:g}',
        ', '.join(map(str, backbone.blocks)),
        f'{backbone.image_size} px, {backbone.dtype}',
        f'{backbone.parameters:,}',
        f'{flops / 1e9:.3g}' if flops else '-',
        pages.number(backbone.images_per_second, 1),
        f'{backbone.features:,}',
        f'{sum(heads):.0f}',
        str(len(heads)),
      ]
    )
  header = [
    'backbone',
    'width',
    'blocks',
    'input',
    'parameters',
    'GFLOP per image',
    'images/s',
    'features',
    'seconds of all heads',
    'heads',
  ]
  return pages.table(header, cells)


def _differences(record: RowRecord) -> list[str]:
  """In what a backbone's rows differ from the published ones, in words."""
  blocks = models.published_size(record.model).blocks
  conditions = published.CONDITIONS | {'blocks': list(blocks)}
  own = vars(record.backbone) | vars(record.data)
  return [
    f'{key.replace("_", " ")} {own[key]} (published: {value})'
    for key, value in conditions.items()
    if own[key] != value
  ]


def _seen_images(records: list[RowRecord]) -> list[str]:
  """Held-out images that the weights of a backbone have learnt from."""
  counts = {}
  for record in records:
    for part, count in (record.held_out_seen_by_weights or {}).items():
      if count:
        title = f'{models.TITLES[record.model]}, option {record.option}: {part}'
        counts[title] = f'{title}, {count}'
  return list(counts.values())


def read_segmenters(workdirs: Sequence[str]) -> list[Result]:
  """The results of segmentation runs whose scores a study's page joins.

  Args:
    workdirs: of finished runs.

  Returns:
    Their results.

  Raises:
    InputError: one is of no such run.
  """
  results = []
  for workdir in workdirs:
    path = files.expand(workdir)
    try:
      finished = result.read(path)
    except InputError as error:
      raise InputError(f'config.study.segmentation: {error}') from error
    if finished.task != 'segmentation':
      raise InputError(
        f'config.study.segmentation: {path} is of no run that makes masks; '
        'give the workdir of one, or ()'
      )
    results.append(finished)
  return results


def _worst_dice(scores: MaskScores) -> str:
  """The class that is segmented worst; folds are not scored by class."""
  by_class = scores.by_class
  if not by_class:
    return '-'
  worst = min(by_class, key=lambda name: by_class[name].dice)
  return f'{by_class[worst].dice:.3f} ({pages.literal(worst)})'


def _segmentation_table(results: list[Result]) -> str:
  """What segmentation runs reach, beside their baselines."""
  cells = []
  for finished in results:
    data, reading = finished.data, finished.data.masks
    name = data.source
    if reading:
      name += f', {reading.rule}{", cleaned" if reading.cleaned else ""}'
    by_title = {model_title(finished.model): finished.mask_scores('test')}
    by_title |= mask_page.baselines(finished.baselines)
    for title, scores in by_title.items():
      own = [pages.number(getattr(scores, column), 3) for column in _JOINED]
      own.append(_worst_dice(scores))
      more = ['-', '-', '-']
      if scores.soft:
        soft = [scores.soft.dice, scores.soft.iou]
        minutes = f'{finished.cost.seconds / 60:.1f}'
        more = [*(pages.number(value, 3) for value in soft), minutes]
      row = [pages.literal(name), pages.literal(title), str(scores.images)]
      cells.append([*row, *own, *more])
  if not cells:
    return ''
  header = [
    'data and masks',
    'masks by',
    'test images',
    *(mask_page.COLUMNS[column] for column in _JOINED),
    'worst class Dice',
    'soft Dice',
    'soft IoU',
    'minutes',
  ]
  return pages.table(header, cells)


def winner_text(records: list[RowRecord], lines: list[Line]) -> str:
  """The best row of all in one line."""
  line = lines[summary.best(lines)]
  colour = next(
    record.colour_3_nearest_neighbours
    for record in records
    if record.number == line['row']
  )
  return (
    f'{line["model"]}, loading option '
    f'{line["loading_option"]}, rate {line["learning_rate"]:g}, dropout '
    f'{line["dropout"]:g}: test accuracy {line["test_accuracy"]:.1f} %, worst '
    f'class recall {line["test_worst_class_recall"]:.1f} % (colours alone: '
    f'accuracy {100 * colour:.1f} %)'
  )


def _context(
  records: list[RowRecord], lines: list[Line], printed: Figures
) -> dict[str, Any]:
  """What the page shows of the rows."""
  chosen = summary.winners(lines)
  memory = {record.option: record.memory for record in records}
  by_model = {record.model: record for record in records}
  return {
    'data': records[0].data,
    'fingerprint': records[0].provenance.fingerprint,
    'num_rows': len(records),
    'differences': {
      models.TITLES[name]: _differences(record)
      for name, record in by_model.items()
      if models.TITLES[name] in {model for model, *_ in printed}
    },
    'unpublished': [
      models.TITLES[name]
      for name in by_model
      if printed and models.TITLES[name] not in {model for model, *_ in printed}
    ],
    'has_published': bool(printed),
    'seen_images': _seen_images(records),
    'duels': [
      {
        'option': duel.option,
        'first': lines[duel.first]['model'],
        'second': lines[duel.second]['model'],
        'recall': f'{duel.recall:+.2f}',
        'accuracy': f'{duel.accuracy:+.2f}',
        'p_values': _p_values(duel.p_values),
      }
      for duel in summary.duels(records, lines, chosen)
    ],
    'lost_heads': sum(line['class_lost'] for line in lines),
    'num_heads': sum(line['repeats'] for line in lines),
    'winner': winner_text(records, lines),
    'winners': _winners_table(records, lines, chosen),
    'comparisons': _comparison_table(records, lines, chosen),
    'costs': _cost_table(records),
    'devices': sorted({record.environment.device for record in records}),
    'memory': dict(sorted(memory.items())),
    'tables': _grid_tables(lines, printed),
  }


def write(
  workdir: pathlib.Path, segmenters: list[Result]
) -> tuple[pathlib.Path, str]:
  """Writes a study's tables from the rows that are finished.

  Args:
    workdir: the study's, with one row finished or more.
    segmenters: results of segmentation runs whose scores are joined.

  Returns:
    The path of report.md, and a line that names the winner.

  Raises:
    InputError: a row's file can't be read.
  """
  config = files.read_json(workdir / CONFIG)
  records = rows.read_all(workdir)
  lines = [summary.summarise(record) for record in records]
  printed = published.figures() if _is_published_set(records[0]) else {}
  context = _context(records, lines, printed) | {
    'num_wanted': int(np.prod([len(config['study'][axis]) for axis in AXES])),
    'segmentation': _segmentation_table(segmenters),
    'soft_scores': published.SOFT_SCORES,
    'soft_conditions': published.SOFT_CONDITIONS,
    'border_tolerance': segmentation.BORDER_TOLERANCE,
    'cell_iou': objects.CELL_IOU,
  }
  files.write(workdir / 'results.csv', summary.to_csv(lines))
  drawn = {'rates.svg': _picture(records, lines, printed)}
  path = pages.write(workdir, 'study.md', context, drawn)
  return path, context['winner']
