"""The rows of a study to its tables: results.csv, report.md and report.html."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from leukemia_jax import published_study, report, segmentation, statistics
from leukemia_jax import workdir as files
from leukemia_jax.errors import InputError

# As the published tables name them.
_TITLES = {
  'inception_resnet_v2': 'InceptionResNetV2',
  'nasnet_large': 'NASNetLarge',
  'nasnet_mobile': 'NASNetMobile',
}
# Column of the published table, the part it is of, the score and its factor.
# Its losses are times 100, and its precision, recall and F1 are not of the test
# part but of validation.
_SCORES = (
  ('precision', 'test', 'precision', 1),
  ('recall', 'test', 'recall', 1),
  ('f1', 'test', 'f1', 1),
  ('train_accuracy', 'train', 'accuracy', 100),
  ('train_loss', 'train', 'loss', 100),
  ('val_accuracy', 'validation', 'accuracy', 100),
  ('val_loss', 'validation', 'loss', 100),
  ('test_accuracy', 'test', 'accuracy', 100),
  ('test_loss', 'test', 'loss', 100),
)
_MORE_SCORES = (
  ('val_precision', 'validation', 'precision', 1),
  ('val_recall', 'validation', 'recall', 1),
  ('val_f1', 'validation', 'f1', 1),
  ('val_worst_class_recall', 'validation', 'worst_class_recall', 100),
  ('test_worst_class_recall', 'test', 'worst_class_recall', 100),
)
_PARAMETERS = ('model', 'loading_option', 'learning_rate', 'dropout')
# Where our columns stand beside published ones of other names.
_PUBLISHED_AS = {
  'val_precision': 'precision',
  'val_recall': 'recall',
  'val_f1': 'f1',
}
# Columns of the tables: name, heading.
_COLUMNS = {
  'learning_rate': 'rate',
  'dropout': 'dropout',
  'precision': 'precision (test)',
  'recall': 'recall (test)',
  'f1': 'F1 (test)',
  'val_precision': 'precision (validation)',
  'val_recall': 'recall (validation)',
  'val_f1': 'F1 (validation)',
  'train_accuracy': 'training accuracy, %',
  'train_loss': 'training loss x 100',
  'val_accuracy': 'validation accuracy, %',
  'val_loss': 'validation loss x 100',
  'test_accuracy': 'test accuracy, %',
  'test_loss': 'test loss x 100',
  'test_worst_class_recall': 'worst class recall (test), %',
  'epochs': 'epochs',
  'diverged': 'diverged',
}
_MASK_COLUMNS = {
  'dice': 'Dice',
  'iou': 'IoU',
  'border_f1': 'border F1',
  'cell_f1': 'cell F1',
}


def _deviation(values: list[float]) -> float | None:
  return float(np.std(values, ddof=1)) if len(values) > 1 else None


def summarise(row: dict[str, Any]) -> dict[str, Any]:
  """One line of results.csv: means over a row's repeats, then deviations.

  Args:
    row: what `study.run` wrote.

  Returns:
    Values by column: those of the published table first, with its units:
    percent, and losses times 100.
  """
  repeats = row['repeats']
  line: dict[str, Any] = {
    'model': _TITLES[row['model']],
    'loading_option': row['option'],
    'learning_rate': row['learning_rate'],
    'dropout': row['dropout_rate'],
  }
  deviations = {}
  for name, part, score, factor in (*_SCORES, *_MORE_SCORES):
    values = [factor * r[part][score] for r in repeats]
    line[name] = float(np.mean(values))
    deviations[f'{name}_std'] = _deviation(values)
  return line | {
    'repeats': len(repeats),
    **deviations,
    'diverged': sum(r['diverged'] for r in repeats),
    'epochs': float(np.mean([r['epochs'] for r in repeats])),
    'seconds': float(np.mean([r['seconds'] for r in repeats])),
    'row': row['number'],
  }


def _rank(line: dict[str, Any]) -> tuple[float, ...]:
  """The study's rule, on validation: high accuracy in every class first."""
  return (
    -line['diverged'],
    line['val_worst_class_recall'],
    line['val_accuracy'],
    -line['val_loss'],
  )


def _best(lines: list[dict[str, Any]]) -> int:
  return max(range(len(lines)), key=lambda i: _rank(lines[i]))


def _cell(
  name: str, line: dict[str, Any], figures: dict[str, float] | None
) -> str:
  """A value with its deviation, and the published one with the difference."""
  value = line[name]
  if name in _PARAMETERS:
    return f'{value:g}'
  counts = ('epochs', 'diverged')
  text = f'{value:.0f}' if name in counts else f'{value:.2f}'
  deviation = line.get(f'{name}_std')
  if deviation is not None:
    text += f' ± {deviation:.2f}'
  theirs = _PUBLISHED_AS.get(name, name)
  # Their precision, recall and F1 stand beside ours of the same part.
  if figures and theirs in figures and name not in _PUBLISHED_AS.values():
    text += f' ({figures[theirs]:.2f}, {value - figures[theirs]:+.2f})'
  return text


def _grid_tables(lines: list[dict[str, Any]]) -> Iterator[report.Block]:
  """The study's tables: one a backbone and option."""
  theirs = published_study.figures()
  for model, option in sorted(
    {(line['model'], line['loading_option']) for line in lines}
  ):
    of_table = [
      line
      for line in lines
      if (line['model'], line['loading_option']) == (model, option)
    ]
    yield 'h2', f'{model}, loading option {option}'
    rows = []
    for line in of_table:
      key = (model, option, line['learning_rate'], line['dropout'])
      rows.append([_cell(c, line, theirs.get(key)) for c in _COLUMNS])
    header = list(_COLUMNS.values())
    yield report.Table(header, rows, frozenset({_best(of_table)}))


def _right(row: dict[str, Any]) -> dict[int, bool]:
  """Whether each test image was called rightly in a row's first repeat."""
  called = row['repeats'][0]['test']['called']
  return {
    image: truth == call
    for image, truth, call in zip(
      row['test']['images'], row['test']['labels'], called, strict=True
    )
  }


def _paired(one: dict[str, Any], other: dict[str, Any]) -> statistics.Paired:
  """Compares two rows on the test images that both have."""
  first, second = _right(one), _right(other)
  common = sorted(first.keys() & second.keys())
  return statistics.mcnemar(
    np.array([first[i] for i in common], bool),
    np.array([second[i] for i in common], bool),
  )


def winners(lines: list[dict[str, Any]]) -> list[int]:
  """The best line of each backbone and option, chosen on validation.

  Args:
    lines: from `summarise`.

  Returns:
    Their indices.
  """
  groups: dict[tuple[str, int], list[int]] = {}
  for i, line in enumerate(lines):
    group = line['model'], line['loading_option']
    groups.setdefault(group, []).append(i)
  return [g[_best([lines[i] for i in g])] for g in groups.values()]


def _verdict(lines: list[dict[str, Any]], ranked: list[int]) -> str:
  """Who wins, and how many rows learnt nothing, in words."""
  titles = [
    f'{lines[i]["model"]} with loading option {lines[i]["loading_option"]} '
    f'({lines[i]["test_worst_class_recall"]:.2f} % of the worst class and '
    f'{lines[i]["test_accuracy"]:.2f} % of all test images rightly called)'
    for i in ranked
  ]
  text = f'Best by validation: {titles[0]}'
  if len(titles) > 1:
    text += f'; then {", ".join(titles[1:])}'
  blind = sum(line['test_worst_class_recall'] == 0 for line in lines)
  if blind:
    text += f'. In {blind} of {len(lines)} rows some class is never found'
  return f'{text}.'


def _result(
  rows: list[dict[str, Any]], lines: list[dict[str, Any]]
) -> Iterator[report.Block]:
  """Which backbone and option win, by how much, and how sure that is."""
  chosen = winners(lines)
  yield 'h2', 'Result'
  table = []
  for i in chosen:
    test, line = rows[i]['repeats'][0]['test'], lines[i]
    right = round(test['accuracy'] * test['images'])
    low, high = statistics.wilson_interval(right, test['images'])
    table.append(
      [
        line['model'],
        str(line['loading_option']),
        f'{line["learning_rate"]:g}',
        f'{line["dropout"]:g}',
        _cell('test_worst_class_recall', line, None),
        _cell('test_accuracy', line, None),
        f'{100 * low:.2f} to {100 * high:.2f}',
        f'{100 * rows[i]["baselines"]["colour_3_nearest_neighbours"]:.2f}',
        str(test['images']),
      ]
    )
  header = [
    'backbone',
    'option',
    'rate',
    'dropout',
    'worst class recall, %',
    'test accuracy, %',
    '95 % interval of the first repeat',
    'colour 3-NN, %',
    'test images',
  ]
  ranked = sorted(range(len(chosen)), key=lambda i: _rank(lines[chosen[i]]))
  best = ranked[-1]
  yield 'p', _verdict(lines, [chosen[i] for i in reversed(ranked)])
  yield (
    'p',
    'The best row of each backbone and option, and in bold the best of all: by '
    'the worst class recall on validation, then validation accuracy, then '
    'loss. Test scores choose nothing. A deviation (±) is that of heads from '
    'several seeds on one split and one backbone. Intervals are those of a '
    'share (Wilson). They, and the paired tests, treat images as independent, '
    'which copies of one image and images of one patient are not. "Colour '
    '3-NN" is the accuracy of 3-nearest-neighbours on the mean and deviation '
    'of red, green and blue, on the same split.',
  )
  yield report.Table(header, table, frozenset({best}))
  comparisons = []
  for a, one in enumerate(chosen):
    for other in chosen[a + 1 :]:
      first, second = rows[one], rows[other]
      same = (first['model'] == second['model']) + (
        first['option'] == second['option']
      )
      if same != 1:
        continue
      found = _paired(first, second)
      names = [
        f'{lines[i]["model"]}, {rows[i]["option"]}' for i in (one, other)
      ]
      comparisons.append(
        [
          *names,
          str(found.images),
          str(found.first_alone),
          str(found.second_alone),
          f'{found.p_value:.2g}',
        ]
      )
  if comparisons:
    yield (
      'p',
      'Paired, on the test images that both have (first repeats; McNemar, '
      'exact, not corrected for the number of tests):',
    )
    header = [
      'first',
      'second',
      'images',
      'first alone right',
      'second alone right',
      'p',
    ]
    yield report.Table(header, comparisons)


def _costs(rows: list[dict[str, Any]]) -> Iterator[report.Block]:
  """Efficiency and scalability: backbones, heads, loading options."""
  yield 'h2', 'Cost'
  by_model: dict[str, dict[str, Any]] = {}
  for row in rows:
    # Rows whose features were in the cache know no speed.
    if not by_model.get(row['model'], {}).get('images_per_second'):
      by_model[row['model']] = row['backbone']
  table = []
  for name, facts in by_model.items():
    heads = [
      r['seconds']
      for row in rows
      if row['model'] == name
      for r in row['repeats']
    ]
    speed, flops = facts['images_per_second'], facts['flops_an_image']
    table.append(
      [
        _TITLES[name],
        f'{facts["width"]:g}',
        ', '.join(map(str, facts['blocks'])),
        f'{facts["image_size"]} px, {facts["dtype"]}',
        f'{facts["parameters"]:,}',
        f'{flops / 1e9:.3g}' if flops else '-',
        report.number(speed, 1),
        f'{facts["features"]:,}',
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
    'GFLOP an image',
    'images/s',
    'features',
    'seconds of all heads',
    'heads',
  ]
  yield report.Table(header, table)
  devices = sorted({row['environment']['device'] for row in rows})
  yield 'p', f'Measured on: {"; ".join(devices)}.'
  memory = {row['option']: row['memory'] for row in rows}
  images = next(iter(memory.values()))['images_bytes']
  index = ' and '.join(
    f'{facts["index_bytes"] / 1e3:.1f} kB (option {option})'
    for option, facts in sorted(memory.items())
  )
  yield (
    'p',
    f'Loading options take no images of their own: all share one set of '
    f'{images / 1e6:.0f} MB, and each adds the row numbers of its parts, '
    f'{index}.',
  )


def segmentation_results(workdirs: Sequence[str]) -> list[dict[str, Any]]:
  """Reads the results of segmentation runs.

  Args:
    workdirs: of the runs.

  Returns:
    Their results.

  Raises:
    InputError: one is of no finished segmentation run.
  """
  results = []
  for workdir in workdirs:
    path = pathlib.Path(workdir).expanduser() / files.RESULT
    result = files.read_json(path)
    if not isinstance(result, dict) or result.get('task') != 'segmentation':
      raise InputError(
        f'config.study.segmentation: {path} is of no run that makes masks; '
        'give the workdir of one, or ()'
      )
    results.append(result)
  return results


def _segmentation(results: list[dict[str, Any]]) -> Iterator[report.Block]:
  """What segmentation runs reach, beside baselines and published figures."""
  if not results:
    return
  yield 'h2', 'Segmentation'
  yield (
    'p',
    'Scores of the test part, of all pixels together; borders are found within '
    f'{segmentation.BORDER_TOLERANCE:g} px, cells at an IoU of '
    f'{segmentation.OBJECT_IOU:g}. Soft scores take probabilities as they are, '
    'as the published ones do, which stand in brackets.',
  )
  table = []
  for result in results:
    model, masks = result['model'], result['data']['masks']
    data = (
      f'{result["data"]["source"]}, {masks["rule"]}'
      f'{", cleaned" if masks["cleaned"] else ""}'
    )
    title = (
      f'{model["name"]}, {model["parameters"]:,} parameters, '
      f'{model["image_size"]} px'
    )
    soft = [
      f'{result["test"]["soft"][name]:.3f} ({theirs:.3f})'
      for name, theirs in zip(
        ('dice', 'iou'), published_study.SOFT_SCORES[model['name']], strict=True
      )
    ]
    minutes = f'{result["cost"]["seconds"] / 60:.1f}'
    rows = [(title, result['test'], [*soft, minutes])]
    rows += [
      (report.BASELINES[kind], scores, ['-', '-', '-'])
      for kind, scores in result['baselines'].items()
    ]
    for title, scores, more in rows:
      name, worst = min(
        scores['by_class'].items(), key=lambda item: item[1]['dice']
      )
      own = [report.number(scores[column], 3) for column in _MASK_COLUMNS]
      worst = f'{worst["dice"]:.3f} ({name})'
      table.append([data, title, str(scores['images']), *own, worst, *more])
  header = [
    'data',
    'masks by',
    'test images',
    *_MASK_COLUMNS.values(),
    'worst class Dice',
    'soft Dice',
    'soft IoU',
    'minutes',
  ]
  yield report.Table(header, table)


def _unlike_published(row: dict[str, Any]) -> list[str]:
  """In what a row differs from those that the published figures are of."""
  here = row['backbone'] | row['data']
  return [
    f'{key.replace("_", " ")} {here[key]} (theirs: {value})'
    for key, value in published_study.CONDITIONS.items()
    if here[key] != value
  ]


def _introduction(
  rows: list[dict[str, Any]], wanted: int
) -> Iterator[report.Block]:
  first = rows[0]
  data = first['data']
  yield 'h1', 'Backbones, loading options, rates and dropouts compared'
  yield 'p', report.NOT_A_DEVICE
  yield (
    'p',
    f'{len(rows)} of {wanted} rows on {data["source"]} (fingerprint of the '
    f'images {first["of"]["fingerprint"][:16]}), order {data["order"]}, loss '
    f'{data["loss"]}. In brackets the published figure, where there is one, '
    'and the difference; published precision, recall and F1 are of validation. '
    'Bold: the best row by validation.',
  )
  unlike = {_TITLES[r['model']]: _unlike_published(r) for r in rows}
  for name, differences in unlike.items():
    if differences:
      yield (
        'p',
        f'{name} is not trained as the published rows were, so differences '
        f'from them are of that too: {"; ".join(differences)}.',
      )
  seen = {
    part: sum(
      row['held_out_seen_by_weights'][part]
      for row in rows
      if row['held_out_seen_by_weights']
    )
    for part in ('validation', 'test')
  }
  if any(seen.values()):
    yield (
      'p',
      'The weights of a backbone have learnt from images of the '
      + ' and '.join(part for part, count in seen.items() if count)
      + ' part: its scores are too good, and a choice by them favours what '
      'learnt them.',
    )
  if data['order'] == 'balance_then_split':
    yield (
      'p',
      'Classes were filled up by augmented copies before the split, as in the '
      'study: copies of one image lie in several parts, and all scores are too '
      'good. The order split_then_balance tears no group apart.',
    )


def _csv(lines: list[dict[str, Any]]) -> str:
  stream = io.StringIO()
  writer = csv.DictWriter(stream, list(lines[0]), lineterminator='\n')
  writer.writeheader()
  for line in lines:
    writer.writerow(
      {
        k: f'{v:.6g}' if isinstance(v, float) else '' if v is None else v
        for k, v in line.items()
      }
    )
  return stream.getvalue()


def write(
  workdir: pathlib.Path, segmenters: Sequence[str] = ()
) -> pathlib.Path:
  """Writes a study's tables from the rows that are finished.

  Args:
    workdir: the study's, with one row finished or more.
    segmenters: workdirs of segmentation runs whose scores are joined.

  Returns:
    The path of report.md.

  Raises:
    InputError: a row's file, or a run's result, can't be read.
  """
  config = files.read_json(workdir / files.CONFIG)
  paths = sorted((workdir / files.ROWS).glob('*.json'))
  rows = [files.read_json(path) for path in paths]
  masks = segmentation_results(segmenters)
  try:
    study = config['study']
    axes = ('models', 'options', 'learning_rates', 'dropout_rates')
    wanted = int(np.prod([len(study[axis]) for axis in axes]))
    if len({row['of']['fingerprint'] for row in rows}) != 1:
      raise InputError(
        f'{workdir / files.ROWS} holds rows of different images; give a new '
        '--workdir'
      )
    lines = [summarise(row) for row in rows]
    blocks = [
      *_introduction(rows, wanted),
      *_result(rows, lines),
      *_segmentation(masks),
      *_costs(rows),
      *_grid_tables(lines),
    ]
  except InputError:
    raise
  except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
    raise InputError(
      f'a file of {workdir / files.ROWS} is damaged, or of another version: '
      f'{error!r}; remove it and give the same command again'
    ) from error
  files.write(workdir / 'results.csv', _csv(lines))
  files.write(workdir / 'report.html', report.web_page(blocks))
  path = workdir / 'report.md'
  files.write(path, report.markdown(blocks))
  return path
