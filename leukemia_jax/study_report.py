"""The rows of a study to its tables: results.csv, report.md and report.html."""

import csv
import io
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from leukemia_jax import (
  figures,
  models,
  published_study,
  report,
  statistics,
)
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
# The axes of a study's grid, in `config.study`.
AXES = ('models', 'options', 'learning_rates', 'dropout_rates')
_PARAMETERS = ('learning_rate', 'dropout')
# Where our columns stand beside published ones of other names.
_PUBLISHED_AS = {
  'val_precision': 'precision',
  'val_recall': 'recall',
  'val_f1': 'f1',
}
# Digits that are shown, where not 2: of counts and of shares.
_DIGITS = {'epochs': 0, 'diverged': 0} | {
  name: 3 for name, _, _, factor in (*_SCORES, *_MORE_SCORES) if factor == 1
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
  'val_worst_class_recall': 'worst class recall (validation), %',
  'test_worst_class_recall': 'worst class recall (test), %',
  'epochs': 'epochs',
  'diverged': 'diverged',
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
    # Heads that never find some class of the test part.
    'class_lost': sum(r['test']['worst_class_recall'] == 0 for r in repeats),
    'epochs': float(np.mean([r['epochs'] for r in repeats])),
    'seconds': float(np.mean([r['seconds'] for r in repeats])),
    'row': row['number'],
  }


def _rank(line: dict[str, Any]) -> tuple[float, ...]:
  """The study's rule, on validation: high accuracy in every class first."""
  scores = (
    -line['diverged'],
    line['val_worst_class_recall'],
    line['val_accuracy'],
    -line['val_loss'],
  )
  # Equal means of several heads differ in their last bits.
  return tuple(round(score, 9) for score in scores)


def _best(lines: list[dict[str, Any]]) -> int:
  return max(range(len(lines)), key=lambda i: _rank(lines[i]))


def _cell(
  name: str, line: dict[str, Any], printed: dict[str, float] | None
) -> str:
  """A value with its deviation, and the published one with the difference."""
  value = line[name]
  if name in _PARAMETERS:
    return f'{value:g}'
  digits = _DIGITS.get(name, 2)
  text = f'{value:.{digits}f}'
  deviation = line.get(f'{name}_std')
  if deviation is not None:
    text += f' ± {deviation:.{digits}f}'
  theirs = _PUBLISHED_AS.get(name, name)
  # Their precision, recall and F1 stand beside ours of the same part.
  if printed and theirs in printed and name not in _PUBLISHED_AS.values():
    text += f' ({printed[theirs]:.2f}, {value - printed[theirs]:+.{digits}f})'
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


def _picture(
  rows: list[dict[str, Any]], lines: list[dict[str, Any]]
) -> Iterator[report.Block]:
  """All rows at a glance."""
  theirs = published_study.figures()
  panels: dict[str, figures.Panel] = {}
  for row, line in zip(rows, lines, strict=True):
    key = (line['model'], line['loading_option'])
    title = f'{key[0]}, loading option {key[1]}'
    colour = row['baselines']['colour_3_nearest_neighbours']
    panel = panels.setdefault(
      title, figures.Panel(title, {}, 100 - 100 * colour)
    )
    figure = theirs.get((*key, line['learning_rate'], line['dropout']), {})
    point = [
      [line['learning_rate']],
      [100 - line['test_accuracy']],
      [line['test_accuracy_std'] or 0.0],
      [100 - figure.get('test_accuracy', np.nan)],
    ]
    name = f'dropout {line["dropout"]:g}'
    before = panel.series.get(name, np.zeros((4, 0)))
    panel.series[name] = np.concatenate([before, point], 1)
  image = figures.error_by_rate(list(panels.values()))
  title = 'Wrong test images by learning rate, dropout, backbone and option'
  yield report.Figure('rates.png', title, image)


def _right(row: dict[str, Any], repeat: int) -> dict[int, bool]:
  """Whether each test image is called rightly by a head of a row."""
  called = row['repeats'][repeat]['test']['called']
  return {
    image: truth == call
    for image, truth, call in zip(
      row['test']['images'], row['test']['labels'], called, strict=True
    )
  }


def _paired(
  one: dict[str, Any], other: dict[str, Any]
) -> list[statistics.Paired]:
  """Compares two rows, repeat by repeat, on the test images of both."""
  found = []
  for repeat in range(min(len(one['repeats']), len(other['repeats']))):
    first, second = _right(one, repeat), _right(other, repeat)
    common = sorted(first.keys() & second.keys())
    found.append(
      statistics.mcnemar(
        np.array([first[i] for i in common], bool),
        np.array([second[i] for i in common], bool),
      )
    )
  return found


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


def _p_values(found: list[statistics.Paired]) -> str:
  return ', '.join(f'{paired.p_value:.2g}' for paired in found)


def _verdicts(
  rows: list[dict[str, Any]], lines: list[dict[str, Any]], chosen: list[int]
) -> Iterator[str]:
  """Which backbone wins, by option, and how many heads learnt nothing."""
  for option in dict.fromkeys(rows[i]['option'] for i in chosen):
    of_option = [i for i in chosen if rows[i]['option'] == option]
    first, *others = sorted(
      of_option, key=lambda i: _rank(lines[i]), reverse=True
    )
    for other in others:
      recall, accuracy = (
        lines[first][score] - lines[other][score]
        for score in ('test_worst_class_recall', 'test_accuracy')
      )
      yield (
        f'Option {option}: by validation {lines[first]["model"]} is before '
        f'{lines[other]["model"]}. On the test part it has {recall:+.2f} '
        f'points of worst class recall and {accuracy:+.2f} of accuracy, p = '
        f'{_p_values(_paired(rows[first], rows[other]))}.'
      )
  if lost := sum(line['class_lost'] for line in lines):
    heads = sum(line['repeats'] for line in lines)
    yield f'{lost} of {heads} heads never find some class of the test part.'


def _interval(right: float, count: int) -> str:
  """The interval of a share, in percent."""
  low, high = statistics.wilson_interval(round(right * count), count)
  return f'{100 * low:.1f} to {100 * high:.1f}'


def _result(
  rows: list[dict[str, Any]], lines: list[dict[str, Any]], chosen: list[int]
) -> Iterator[report.Block]:
  """Which backbone and option win, by how much, and how sure that is."""
  yield 'h2', 'Result'
  for verdict in _verdicts(rows, lines, chosen):
    yield 'p', verdict
  table = []
  for i in chosen:
    test, line = rows[i]['repeats'][0]['test'], lines[i]
    worst = min(test['by_class'].values(), key=lambda of: of['recall'])
    table.append(
      [
        line['model'],
        *(_cell(name, line, None) for name in _PARAMETERS),
        str(line['loading_option']),
        _cell('val_worst_class_recall', line, None),
        _cell('test_worst_class_recall', line, None),
        _interval(worst['recall'], worst['images']),
        _cell('test_accuracy', line, None),
        _interval(test['accuracy'], test['images']),
        f'{100 * rows[i]["baselines"]["colour_3_nearest_neighbours"]:.2f}',
        str(test['images']),
      ]
    )
  header = [
    'backbone',
    *(_COLUMNS[name] for name in _PARAMETERS),
    'option',
    _COLUMNS['val_worst_class_recall'],
    _COLUMNS['test_worst_class_recall'],
    'its 95 % interval',
    'test accuracy, %',
    'its 95 % interval',
    'colour 3-NN, %',
    'test images',
  ]
  best = _best([lines[i] for i in chosen])
  yield (
    'p',
    'The best row of each backbone and option, and in bold the best of all: by '
    'the worst class recall on validation, then validation accuracy, then '
    'loss. Test scores choose nothing; options are chosen from and scored on '
    'images of their own. A deviation (±) is that of heads from several seeds '
    'on one split and one backbone. Intervals are those of a share (Wilson), '
    'of the first repeat. They, and the paired tests, treat images as '
    'independent, which copies of one image and images of one patient are not. '
    '"Colour 3-NN" is the accuracy of 3-nearest-neighbours on the mean and '
    'deviation of red, green and blue, on the same split.',
  )
  yield report.Table(header, table, frozenset({best}))


def _comparisons(
  rows: list[dict[str, Any]], lines: list[dict[str, Any]], chosen: list[int]
) -> Iterator[report.Block]:
  """Pairs of the best rows that differ in backbone or option alone."""
  comparisons = []
  for one, other in itertools.combinations(chosen, 2):
    same = [
      rows[one][axis] == rows[other][axis] for axis in ('model', 'option')
    ]
    if sum(same) != 1:
      continue
    found = _paired(rows[one], rows[other])
    comparisons.append(
      [
        *(f'{lines[i]["model"]}, {rows[i]["option"]}' for i in (one, other)),
        str(found[0].images),
        ', '.join(str(paired.first_alone) for paired in found),
        ', '.join(str(paired.second_alone) for paired in found),
        _p_values(found),
      ]
    )
  if comparisons:
    yield (
      'p',
      'Paired, repeat by repeat, on the test images that both have: few for '
      'two options, too few to tell them apart (McNemar, exact, not corrected '
      'for the number of tests):',
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


def _unlike_published(row: dict[str, Any]) -> str:
  """In what a backbone's rows differ from the published ones, in words."""
  name = _TITLES[row['model']]
  if name not in {model for model, *_ in published_study.figures()}:
    return f'{name} is not in the published tables.'
  blocks = models.create(row['model'], num_classes=0).backbone.blocks
  theirs = published_study.CONDITIONS | {'blocks': list(blocks)}
  here = row['backbone'] | row['data']
  differences = [
    f'{key.replace("_", " ")} {here[key]} (theirs: {value})'
    for key, value in theirs.items()
    if here[key] != value
  ]
  return (
    f'{name} is not trained as the published rows were, so differences from '
    f'them are of that too: {"; ".join(differences)}.'
  )


def _seen(rows: list[dict[str, Any]]) -> Iterator[report.Block]:
  """What a backbone has learnt of images that its heads are judged by."""
  seen = {}
  for row in rows:
    for part, count in (row['held_out_seen_by_weights'] or {}).items():
      if count:
        title = f'{_TITLES[row["model"]]}, option {row["option"]}: {part}'
        of = sum(row['data']['counts'][part].values())
        seen[title] = f'{title}, {count} of {of}'
  if seen:
    yield (
      'p',
      'The weights of a backbone have learnt from images by which heads are '
      f'chosen or scored ({"; ".join(seen.values())}; copies not counted): '
      'scores of such a part are too good, and a choice by them '
      'favours what learnt them.',
    )


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
  for row in {row['model']: row for row in rows}.values():
    yield 'p', _unlike_published(row)
  yield from _seen(rows)
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
  masks = report.segmentation_blocks(segmenters)
  try:
    wanted = int(np.prod([len(config['study'][axis]) for axis in AXES]))
    images = {row['of']['fingerprint'] for row in rows}
    weights = {(row['model'], row['of']['weights_sha256']) for row in rows}
    if len(images) != 1 or len(weights) != len(dict(weights)):
      raise InputError(
        f'{workdir / files.ROWS} holds rows of different images or weights; '
        'give a new --workdir'
      )
    lines = [summarise(row) for row in rows]
    chosen = winners(lines)
    blocks = [
      *_introduction(rows, wanted),
      *_result(rows, lines, chosen),
      *_comparisons(rows, lines, chosen),
      *_picture(rows, lines),
      *masks,
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
  for block in blocks:
    if isinstance(block, report.Figure):
      files.write(workdir / block.name, block.image)
  files.write(workdir / 'report.html', report.web_page(blocks))
  path = workdir / 'report.md'
  files.write(path, report.markdown(blocks))
  return path
