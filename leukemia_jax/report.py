"""Result files to something a person reads: report.md with its figures."""

import base64
import html
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from leukemia_jax import figures, published_study, segmentation
from leukemia_jax import workdir as files
from leukemia_jax.data import splits
from leukemia_jax.errors import InputError

NOT_A_DEVICE = (
  'Research software; not a medical device, and no basis for a diagnosis.'
)
_STYLE = """body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 96em;
  padding: 0 1em; color: #222; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; }
img { max-width: 100%; }
th, td { border: 1px solid #ccc; padding: .3em .6em; text-align: right; }
td { white-space: nowrap; }
th { background: #f2f2f2; }
.best { font-weight: bold; background: #eef6ee; }"""
_COLUMNS = (
  'accuracy',
  'loss',
  'precision',
  'recall',
  'f1',
  'worst_class_recall',
  'sensitivity',
  'specificity',
)


def number(value: float | None, digits: int = 4) -> str:
  """A number for a table; counts as they are, a dash where there is none."""
  if value is None or isinstance(value, int):
    return '-' if value is None else str(value)
  return f'{value:.{digits}f}'


def table(header: list[str], rows: list[list[str]]) -> str:
  """A Markdown table."""
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


class Table(NamedTuple):
  """A table with some of its rows in bold."""

  header: list[str]
  rows: list[list[str]]
  bold: frozenset[int] = frozenset()


class Figure(NamedTuple):
  """A picture: its file's name beside the page, what it shows, and a PNG."""

  name: str
  title: str
  image: bytes


# A part of a page: a heading or paragraph ('h1', 'h2' or 'p', text), a table or
# a figure.
Block = tuple[str, str] | Table | Figure


def markdown(blocks: list[Block]) -> str:
  """A page in Markdown; its figures are files beside it."""
  lines = []
  for block in blocks:
    if isinstance(block, Table):
      rows = [
        [f'**{cell}**' for cell in row] if i in block.bold else row
        for i, row in enumerate(block.rows)
      ]
      lines.append(table(block.header, rows))
    elif isinstance(block, Figure):
      lines.append(f'![{block.title}]({block.name})\n')
    else:
      kind, text = block
      marks = {'h1': '# ', 'h2': '## ', 'p': ''}
      lines.append(f'{marks[kind]}{text}\n')
  return '\n'.join(lines)


def web_page(blocks: list[Block]) -> str:
  """The same page in HTML, whole in itself."""
  title = next(block[1] for block in blocks if block[0] == 'h1')
  lines = [
    '<!doctype html>',
    '<html lang="en"><head><meta charset="utf-8">',
    f'<title>{html.escape(str(title))}</title>',
    f'<style>{_STYLE}</style></head><body>',
  ]
  for block in blocks:
    if isinstance(block, Table):
      cells = ''.join(f'<th>{html.escape(c)}</th>' for c in block.header)
      lines.append(f'<div><table><tr>{cells}</tr>')
      for i, row in enumerate(block.rows):
        kind = ' class="best"' if i in block.bold else ''
        cells = ''.join(f'<td>{html.escape(c)}</td>' for c in row)
        lines.append(f'<tr{kind}>{cells}</tr>')
      lines.append('</table></div>')
    elif isinstance(block, Figure):
      image = base64.b64encode(block.image).decode()
      lines.append(
        f'<img alt="{html.escape(block.title)}" '
        f'src="data:image/png;base64,{image}">'
      )
    else:
      kind, text = block
      lines.append(f'<{kind}>{html.escape(text)}</{kind}>')
  return '\n'.join([*lines, '</body></html>\n'])


def _parts(result: dict[str, Any]) -> list[str]:
  return [part for part in splits.PARTS if part in result]


def _scores(result: dict[str, Any]) -> str:
  header = ['part', 'images', *(c.replace('_', ' ') for c in _COLUMNS)]
  rows = [
    [part, str(result[part]['images'])]
    + [number(result[part][column]) for column in _COLUMNS]
    for part in _parts(result)
  ]
  return table(header, rows)


def _by_class(result: dict[str, Any]) -> str:
  rows = []
  for part in _parts(result):
    for name, scores in result[part]['by_class'].items():
      row = [part, name, str(scores['images'])]
      row += [number(scores[c]) for c in ('precision', 'recall', 'f1')]
      rows.append(row)
  header = ['part', 'class', 'images', 'precision', 'recall', 'f1']
  return table(header, rows)


MASK_COLUMNS = {
  'dice': 'Dice',
  'iou': 'IoU',
  'accuracy': 'pixel accuracy',
  'precision': 'precision',
  'recall': 'recall',
  'border_f1': 'border F1',
  'hausdorff_95': '95 % Hausdorff, px',
  'one_empty': 'one mask empty',
  'cell_f1': 'cell F1',
  'cell_count_error': 'cell count error',
}
# Those that another's page shows.
_JOINED = ('dice', 'iou', 'border_f1', 'cell_f1')
# What the masks that a model's are compared with are called.
BASELINES = {'all_ground': 'all ground', 'colour_rule': 'colour rule'}


def segmentation_blocks(workdirs: Sequence[str]) -> list[Block]:
  """What segmentation runs reach, beside their baselines, for another's page.

  Args:
    workdirs: of finished segmentation runs.

  Returns:
    A heading, a paragraph and a table; nothing without runs.

  Raises:
    InputError: one is of no such run.
  """
  rows = []
  for workdir in workdirs:
    path = pathlib.Path(workdir).expanduser() / files.RESULT
    result = files.read_json(path)
    try:
      if result['task'] != 'segmentation':
        raise InputError(
          f'config.study.segmentation: {path} is of no run that makes masks; '
          'give the workdir of one, or ()'
        )
      rows += _joined_rows(result)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise InputError(
        f'config.study.segmentation: {path} is damaged, or of another version: '
        f'{error!r}'
      ) from error
  if not rows:
    return []
  published = ', '.join(
    f'{name} Dice {dice:.3f}, IoU {iou:.3f}'
    for name, (dice, iou) in published_study.SOFT_SCORES.items()
  )
  header = [
    'data and masks',
    'masks by',
    'test images',
    *(MASK_COLUMNS[column] for column in _JOINED),
    'worst class Dice',
    'soft Dice',
    'soft IoU',
    'minutes',
  ]
  return [
    ('h2', 'Segmentation'),
    (
      'p',
      'Scores of the test part, of all pixels together; borders are found '
      f'within {segmentation.BORDER_TOLERANCE:g} px, cells at an IoU of '
      f'{segmentation.OBJECT_IOU:g}. Soft scores take probabilities as they '
      f'are; published ({published_study.SOFT_CONDITIONS}): {published}.',
    ),
    Table(header, rows),
  ]


def _joined_rows(result: dict[str, Any]) -> list[list[str]]:
  """A run's model and baselines."""
  model, data, masks = result['model'], result['data'], result['data']['masks']
  of = (
    f'{data["source"]}, {masks["rule"]}'
    f'{", cleaned" if masks["cleaned"] else ""}'
  )
  title = (
    f'{model["name"]}, {model["parameters"]:,} parameters, '
    f'{model["image_size"]} px'
  )
  made = {title: result['test']} | {
    BASELINES[kind]: scores for kind, scores in result['baselines'].items()
  }
  rows = []
  for title, scores in made.items():
    by_class = scores['by_class']
    worst = min(by_class, key=lambda name: by_class[name]['dice'])
    own = [number(scores[column], 3) for column in _JOINED]
    own.append(f'{by_class[worst]["dice"]:.3f} ({worst})')
    more = ['-', '-', '-']
    if 'soft' in scores:
      soft = [number(scores['soft'][name], 3) for name in ('dice', 'iou')]
      more = [*soft, f'{result["cost"]["seconds"] / 60:.1f}']
    rows.append([of, title, str(scores['images']), *own, *more])
  return rows


def _mask_row(title: list[str], scores: dict[str, Any]) -> list[str]:
  mean = [number(scores['mean'][key]) for key in ('dice', 'iou')]
  values = [number(scores.get(column)) for column in MASK_COLUMNS]
  return [*title, str(scores['images']), *values, *mean]


def _mask_scores(result: dict[str, Any]) -> str:
  columns = ['images', *MASK_COLUMNS.values(), 'mean Dice', 'mean IoU']
  rows = [_mask_row([part], result[part]) for part in _parts(result)]
  rows += [
    _mask_row([f'test: {BASELINES[name]}'], scores)
    for name, scores in result['baselines'].items()
  ]
  by_class = []
  for name, scores in result['test']['by_class'].items():
    by_class.append(_mask_row([name, 'model'], scores))
    by_class += [
      _mask_row([name, BASELINES[kind]], baseline['by_class'][name])
      for kind, baseline in result['baselines'].items()
    ]
  soft = result['test']['soft']
  return '\n'.join(
    [
      table(['part', *columns], rows),
      'The test part by class:\n',
      table(['class', 'masks by', *columns], by_class),
      f'Threshold: {result["threshold"]:.2f}, the best on the validation part '
      'of the training run. Scores are of all pixels together; "mean" ones are '
      'averaged over images. Borders are found within '
      f'{segmentation.BORDER_TOLERANCE:g} px; the 95 % Hausdorff distance is '
      'averaged over images in which both masks have cells, and those where '
      'only one has are counted beside it; cells are found at an IoU of '
      f'{segmentation.OBJECT_IOU:g}. Of probabilities as they are, smoothed by '
      '1, on the test part (Dice over mixed batches of ten): Dice '
      f'{number(soft["dice"])}, IoU {number(soft["iou"])}.\n',
    ]
  )


def _facts(result: dict[str, Any]) -> str:
  data, model = result['data'], result['model']
  lines = [
    f'* Model: {model["name"]}, {model["parameters"]:,} parameters and '
    f'{model["statistics"]:,} batch-norm statistics; SHA-256 of the weights '
    f'`{result["parameters_sha256"]}`',
    f'* Data: {data["source"]}, fingerprint `{data["fingerprint"]}`',
  ]
  if masks := data.get('masks'):
    lines.append(
      f'* Masks: {masks["rule"]}, {"" if masks["cleaned"] else "not "}cleaned; '
      f'{masks["bad"]} bad and {masks["unpaired"]} unpaired files left out'
      + (
        f'; {masks["dropped_empty"]} images with an empty mask not trained on'
        if 'dropped_empty' in masks
        else ''
      )
    )
    lines += [f'* Warning: {warning}' for warning in masks['warnings']]
  if 'split' in data:
    split = data['split']
    lines.append(
      f'* Split: option {split["option"]}, {split["order"]}, groups: '
      f'{split["grouping"]}'
    )
  if 'colour_3_nearest_neighbours' in result.get('baselines', {}):
    colour = result['baselines']['colour_3_nearest_neighbours']
    lines.append(
      f'* Baseline: 3-nearest-neighbours on mean and deviation of R, G and B '
      f'reaches {number(colour)} on the same test part without seeing a cell'
    )
  if 'epochs' in result:
    lines.append(f'* Epochs: {result["epochs"]}, best {result["best_epoch"]}')
  cost = ', '.join(
    f'{k.replace("_", " ")} {v}' for k, v in result['cost'].items()
  )
  lines.append(f'* Cost: {cost}')
  lines.append(f'* Device: {result["device"]}; {result["versions"]}')
  return '\n'.join(lines) + '\n'


def write(workdir: pathlib.Path) -> pathlib.Path:
  """Writes report.md and its figures from the result files of a run.

  Args:
    workdir: holds result.json and, for a training run, metrics.jsonl.

  Returns:
    The path of report.md.
  """
  result = files.read_json(workdir / files.RESULT)
  try:
    text = _render(workdir, result)
  except (KeyError, IndexError, TypeError) as error:
    raise InputError(
      f'{workdir / files.RESULT} is damaged: {error!r}; remove it and give the '
      'same command again'
    ) from error
  path = workdir / 'report.md'
  files.write(path, text)
  return path


def _render(workdir: pathlib.Path, result: dict[str, Any]) -> str:
  title = f'# {result["task"].capitalize()} with {result["model"]["name"]}\n'
  segments = result['task'] == 'segmentation'
  scores = _mask_scores(result) if segments else _scores(result)
  text = [title, f'{NOT_A_DEVICE}\n', scores]
  history = files.read_log(workdir / files.METRICS)
  if history:
    image = figures.curves(history, result['best_epoch'])
    files.write(workdir / 'curves.png', image)
    text.append('![Learning curves](curves.png)\n')
  if segments:
    if (workdir / 'thresholds.png').exists():
      text.append('![Scores by threshold](thresholds.png)\n')
    text.append('![Best, middle and worst images](errors.png)\n')
  else:
    image = figures.confusion(
      result['test']['confusion_matrix'], result['data']['classes'], 'Test part'
    )
    files.write(workdir / 'confusion.png', image)
    text += ['![Confusion matrix](confusion.png)\n', _by_class(result)]
  text.append(_facts(result))
  return '\n'.join(text)
