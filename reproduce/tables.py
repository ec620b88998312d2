"""Tables and numbers of the pages, filled from the files in results/.

A page holds a table between `<!-- table NAME -->` and `<!-- end -->`, and a
number between `<!--NAME-->` and `<!---->`. The words around them are written by
people.
"""

import functools
import pathlib
import re
from collections.abc import Callable

import pandas as pd

from leukemia_jax import models
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.reporting import mask_page, pages
from leukemia_jax.study import published, summary
from leukemia_jax.workdir.records import Result
from reproduce import (
  outlier_table,
  shortcut_tables,
  speed_table,
  use_numbers,
)
from reproduce.rows import (
  BACKBONES,
  COUNTER_MEASURES,
  CROSS_VALIDATION,
  RUNS,
  SEGMENTATION,
  STUDIES,
)
from reproduce.stored import RESULTS, ROOT, link, read, read_run, with_interval

PAGES = (
  ROOT / 'README.md',
  ROOT / 'docs/results.md',
  ROOT / 'docs/models.md',
  ROOT / 'docs/speed.md',
)
# The runs of which the README has a row.
_OVERVIEW = (
  'real_split_then_balance',
  'real_balance_then_split',
  'real_contiguous_folds',
  'real_all_measures',
  'unet_real',
  'unet_real_cleaned',
)
_MASK_SCORES = (
  'dice',
  'iou',
  'border_f1',
  'hausdorff_95',
  'one_mask_empty',
  'cell_f1',
  'cell_count_error',
)
_MARKED_TABLE = re.compile(r'<!-- table (.+?) -->\n.*?<!-- end -->', re.DOTALL)
_MARKED_NUMBER = re.compile(r'<!--([a-z][\w. ,]*)-->.*?<!---->', re.DOTALL)


def _model(run: Result) -> str:
  title = models.TITLES[run.model.name]
  return f'{title}, {run.model.parameters / 1e6:.1f} M'


def classification(page: pathlib.Path) -> str:
  """Each run's test part, beside what colours reach."""
  cells = []
  for name, (title, _) in RUNS.items():
    run = read_run(name)
    test = run.class_scores('test')
    cells.append(
      [
        link(f'{name}.json', title, page),
        _model(run),
        pages.percent(test.accuracy),
        pages.percent(run.baselines.colour_3_nearest_neighbours),
        pages.percent(test.worst_class_recall),
        str(test.images),
        str(run.epochs),
        f'{run.cost.seconds / 60:.1f}',
        f'{run.cost.images_per_second:.0f}',
      ]
    )
  header = [
    'data and split',
    'model',
    'test accuracy, %',
    'colour 3-NN, %',
    'worst class recall, %',
    'test images',
    'epochs',
    'minutes',
    'images/s',
  ]
  return pages.table(header, cells)


def cross_validation(page: pathlib.Path) -> str:
  """Folds together, with intervals over groups, beside what colours reach."""
  cells = []
  for name, (title, _) in CROSS_VALIDATION.items():
    run = read_run(name)
    record = run.cross_validation
    assert record is not None and run.intervals is not None
    colour = run.baselines
    cells.append(
      [
        link(f'{name}.json', title, page),
        _model(run),
        with_interval(run, 'balanced_accuracy'),
        with_interval(run, 'accuracy'),
        with_interval(run, 'macro_f1'),
        pages.percent(record.standard_deviation['balanced_accuracy']),
        pages.percent(colour.colour_balanced_accuracy),
        f'{run.intervals.groups} ({run.intervals.group})',
        f'{run.cost.seconds / 60:.0f}',
      ]
    )
  header = [
    'data and folds',
    'model',
    'balanced accuracy, %',
    'accuracy, %',
    'macro F1, %',
    'SD of folds',
    'colour 3-NN, balanced, %',
    'groups',
    'minutes',
  ]
  return pages.table(header, cells)


def overview(page: pathlib.Path) -> str:
  """Some real rows with their baselines: classes, then masks."""
  cells = []
  runs = RUNS | CROSS_VALIDATION | COUNTER_MEASURES | SEGMENTATION
  for name in _OVERVIEW:
    title, run = runs[name][0], read_run(name)
    minutes = f'{run.cost.seconds / 60:.1f}'
    if name in COUNTER_MEASURES:
      # Timed while other work went on beside it.
      title, minutes = f'the same, {title}', '-'
    if run.cross_validation:
      score = with_interval(run, 'balanced_accuracy')
      row = ['balanced accuracy, %', score]
      row += [shortcut_tables.best_behind(name), str(run.test.images)]
    elif run.task == 'classification':
      test = run.class_scores('test')
      baseline = run.baselines.colour_3_nearest_neighbours
      row = ['accuracy, %', pages.percent(test.accuracy)]
      row += [f'colour 3-NN: {pages.percent(baseline)}', str(test.images)]
    else:
      masks, rule = run.mask_scores('test'), run.baselines.colour_rule
      assert rule is not None
      row = ['Dice', pages.number(masks.dice, 3)]
      row += [f'colour rule: {rule.dice:.3f}', str(masks.images)]
    target = link(f'{name}.json', title, page)
    cells.append([target, _model(run), *row, minutes])
  header = [
    'data',
    'model',
    'score',
    'test part',
    'baseline',
    'test images',
    'minutes',
  ]
  return pages.table(header, cells)


def _mask_row(title: str, masks: str, scores: MaskScores) -> list[str]:
  digits = {'hausdorff_95': 1, 'cell_count_error': 1}
  values = [
    pages.number(getattr(scores, name), digits.get(name, 3))
    for name in _MASK_SCORES
  ]
  return [title, masks, *values]


def segmentation(page: pathlib.Path) -> str:
  """Each run's whole test part, beside the baselines."""
  cells = []
  for name, (title, _) in SEGMENTATION.items():
    run = read_run(name)
    minutes = f'{run.cost.seconds / 60:.1f}'
    target = link(f'{name}.json', title, page)
    cells.append(
      [*_mask_row(target, 'U-Net', run.mask_scores('test')), minutes]
    )
    cells += [
      [*_mask_row('', baseline, scores), '']
      for baseline, scores in mask_page.baselines(run.baselines).items()
    ]
  columns = [mask_page.COLUMNS[name] for name in _MASK_SCORES]
  return pages.table(['data', 'masks by', *columns, 'minutes'], cells)


def segmentation_classes(_: pathlib.Path) -> str:
  """The real images' test part by class."""
  cells = []
  for name in ('unet_real', 'unet_real_cleaned'):
    run = read_run(name)
    masks, rule = run.data.masks, run.baselines.colour_rule
    assert masks is not None and rule is not None
    for title, coverage in masks.by_class.items():
      dice = [
        (scores.by_class or {})[title].dice
        for scores in (run.mask_scores('test'), rule)
      ]
      cells.append(
        [
          title,
          'cleaned' if masks.cleaned else 'as released',
          pages.percent(coverage.mean),
          f'{coverage.empty} of {coverage.masks}',
          *(f'{value:.3f}' for value in dice),
        ]
      )
  header = ['class', 'masks', 'share of cells, %', 'empty', 'U-Net', 'rule']
  return pages.table(header, cells)


def study_lines(name: str) -> list[summary.Line]:
  """The lines of a study's table."""
  lines = pd.read_csv(RESULTS / f'{name}.csv')
  return lines.to_dict('records')


def study(page: pathlib.Path) -> str:
  """The best rows of the studies."""
  cells = []
  for name, (title, _) in STUDIES.items():
    lines = study_lines(name)
    for line in (lines[i] for i in summary.winners(lines)):
      scores = [
        f'{line[f"test_{score}"]:.1f} ± {line[f"test_{score}_std"]:.1f}'
        for score in ('accuracy', 'worst_class_recall')
      ]
      cells.append(
        [
          link(f'{name}.md', title, page),
          line['model'],
          str(line['loading_option']),
          f'{line["learning_rate"]:g}',
          f'{line["dropout"]:g}',
          *scores,
        ]
      )
  header = [
    'study',
    'backbone',
    'option',
    'rate',
    'dropout',
    'test accuracy, %',
    'worst class recall, %',
  ]
  return pages.table(header, cells)


def commands(_: pathlib.Path) -> str:
  """The command of each row."""
  names = RUNS | CROSS_VALIDATION | COUNTER_MEASURES | SEGMENTATION | BACKBONES
  lines = [read(name)['command'] for name in names | STUDIES]
  lines += [audit['command'] for audit in read('audits').values()]
  return '```sh\n' + '\n'.join(lines) + '\n```\n'


TABLES: dict[str, Callable[[pathlib.Path], str]] = {
  'overview': overview,
  'classification': classification,
  'cross-validation': cross_validation,
  'shortcuts': shortcut_tables.shortcuts,
  'counter-measures': shortcut_tables.counter_measures,
  'outliers': outlier_table.outliers,
  'segmentation': segmentation,
  'segmentation by class': segmentation_classes,
  'study': study,
  **speed_table.TABLES,
  'commands': commands,
}


def _study_loss(name: str) -> dict[str, str]:
  """What a loss does to heads."""
  lines = study_lines(name)
  accuracies = [
    line['test_accuracy'] for line in lines if line['learning_rate'] == 0.1
  ]
  return {
    'lost': str(sum(line['class_lost'] for line in lines)),
    'heads': str(sum(line['repeats'] for line in lines)),
    'low': f'{min(accuracies):.0f}',
    'high': f'{max(accuracies):.0f}',
  }


def _study_cost(name: str) -> dict[str, str]:
  """What a study takes; also with a backbone in each step, if that is known."""
  cost = read(name)
  numbers = {
    'images': f'{cost["images"]:,}',
    'minutes': f'{cost["seconds"] / 60:.0f}',
    'memory': f'{cost["peak_memory_bytes"] / 1e9:.1f}',
  }
  if 'ratio' in cost:
    numbers |= {
      'hours': f'{cost["every_epoch_seconds"] / 3600:.0f}',
      'ratio': f'{cost["ratio"]:.0f}',
      'ratio at our pace': f'{cost["ratio_at_our_pace"]:.0f}',
      'steps': str(cost['steps_timed']),
    }
  for name, facts in cost['models'].items():
    numbers[f'{name} speed'] = f'{facts["images_per_second"]:.1f}'
    numbers[f'{name} heads'] = f'{facts["heads_seconds"]:.0f}'
  return numbers


def _models() -> dict[str, str]:
  measured = read('models')
  speed, loaded = measured['inference'], measured['load']
  numbers = {
    'ours': f'{speed["images_per_second"]["ours"]:.1f}',
    'keras': f'{speed["images_per_second"]["keras"]:.1f}',
    'ratio': f'{speed["ratio"]:.1f}',
    'batch': str(speed['batch']),
    'step memory': f'{measured["training"]["temporary_bytes"] / 1e9:.1f}',
    'file': f'{loaded["file_bytes"] / 1e6:.0f}',
    'load seconds': f'{loaded["seconds"]:.1f}',
    'load memory': f'{loaded["peak_memory_bytes"] / 1e9:.1f}',
  }
  for name in ('training', 'training_cached', 'unrolled', 'scanned'):
    part = measured[name]
    numbers[f'{name} seconds'] = (
      f'{part["trace_seconds"] + part["compile_seconds"]:.0f}'
    )
  for name in ('unrolled', 'scanned'):
    part = measured[name]
    numbers[f'{name} memory'] = f'{part["temporary_bytes"] / 1e9:.1f}'
    numbers[f'{name} speed'] = f'{part["images_per_second"]:.1f}'
  return numbers


def _patients() -> dict[str, str]:
  """What keeping patients together changes."""
  measured = read('patients')
  low, high = measured['difference_interval_95']
  return {
    'images': f'{measured["images"]:,}',
    'number': str(measured['patients']),
    'seeds': str(measured['seeds']),
    'difference': f'{100 * measured["difference"]:+.1f}',
    'low': f'{100 * low:+.1f}',
    'high': f'{100 * high:+.1f}',
    **{
      way: pages.percent(value)
      for way, value in measured['balanced_accuracy'].items()
    },
    **{
      f'{way} interval': ' to '.join(map(pages.percent, ends))
      for way, ends in measured['interval_95'].items()
    },
  }


@functools.cache
def numbers() -> dict[str, str]:
  """All numbers by name."""
  first, real, probe = (
    read_run('synthetic'),
    read_run('real_split_then_balance'),
    read('probe'),
  )
  soft = read_run('unet_real').mask_scores('test').soft
  assert soft is not None
  unet, fpn = (published.SOFT_SCORES[name] for name in ('unet', 'unet_fpn'))
  memory = read('memory')
  groups = {
    'first': {
      'images': f'{first.data.images:,}',
      'patients': str(first.data.groups),
      'minutes': f'{first.cost.seconds / 60:.1f}',
      'memory': f'{first.cost.peak_memory_bytes / 1e9:.1f}',
      'accuracy': pages.percent(first.class_scores('test').accuracy),
    },
    'set': {
      'images': f'{real.data.images:,}',
      'duplicates': str(real.data.images - real.data.groups),
    },
    'probe': {
      'permutations': str(len(probe['split_then_balance']['by_seed'])),
      'chance': pages.percent(probe['chance']),
      **{
        name: pages.percent(probe[name]['balanced_accuracy'])
        for name in ('split_then_balance', 'balance_then_split')
      },
    },
    'soft': {
      'dice': f'{soft.dice:.3f}',
      'iou': f'{soft.iou:.3f}',
      'unet dice': f'{unet[0]:.3f}',
      'unet iou': f'{unet[1]:.3f}',
      'fpn dice': f'{fpn[0]:.3f}',
      'fpn iou': f'{fpn[1]:.3f}',
    },
    'clipped': _study_loss('study_keras_clipped'),
    'stable': _study_loss('study_balance_then_split'),
    'cost': _study_cost('study_cost'),
    'bfloat16': _study_cost('study_cost_bfloat16') | speed_table.study_dtypes(),
    'amd': _study_cost('study_cost_bfloat16_amd_epyc'),
    'patients': _patients(),
    'twins': shortcut_tables.twins(),
    'models': _models(),
    'cells': use_numbers.cells(),
    'explanations': use_numbers.explanations(),
    'predict': use_numbers.predict(),
    'serving': use_numbers.serving(),
    'runtimes': speed_table.agreement(),
    'growth': speed_table.million(),
    'stored': {k: f'{v / 1e9:.1f}' for k, v in memory['stored_bytes'].items()},
    'temporary': {
      k: f'{v / 1e9:.1f}' for k, v in memory['temporary_bytes'].items()
    },
  }
  return {
    f'{group}.{name}': value
    for group, members in groups.items()
    for name, value in members.items()
  }


def render(text: str, page: pathlib.Path) -> str:
  """Fills a page's marked tables and numbers."""
  text = _MARKED_TABLE.sub(
    lambda m: f'<!-- table {m[1]} -->\n{TABLES[m[1]](page)}<!-- end -->',
    text,
  )
  return _MARKED_NUMBER.sub(
    lambda m: f'<!--{m[1]}-->{numbers()[m[1]]}<!---->', text
  )
