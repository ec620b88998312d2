"""The README's marked blocks, filled from the result files."""

import csv
import functools
import json
import pathlib
from typing import Any

from rows import BACKBONES, RUNS, SEGMENTATION, STUDIES

from leukemia_jax import published_study, report, study_report

HERE = pathlib.Path(__file__).parent
# Of masks; `report` has their headings.
_SCORES = (
  'dice',
  'iou',
  'border_f1',
  'hausdorff_95',
  'one_empty',
  'cell_f1',
  'cell_count_error',
)


@functools.cache
def read(name: str) -> dict[str, Any]:
  """One result file."""
  return json.loads((HERE / f'{name}.json').read_text())


def percent(value: float) -> str:
  """A share as a percentage with one digit."""
  return f'{100 * value:.1f}'


def render_table() -> str:
  """The results table."""
  rows = []
  for name, (title, _) in RUNS.items():
    got = read(name)
    test, cost = got['test'], got['cost']
    rows.append(
      [
        f'[{title}](results/{name}.json)',
        f'{got["model"]["name"]}, {got["model"]["parameters"] / 1e6:.1f} M',
        percent(test['accuracy']),
        percent(test['worst_class_recall']),
        percent(got['baselines']['colour_3_nearest_neighbours']),
        str(test['images']),
        str(got['epochs']),
        f'{cost["seconds"] / 60:.1f}',
        f'{cost["images_per_second"]:.0f}',
      ]
    )
  header = [
    'data and split',
    'model',
    'test accuracy, %',
    'worst class recall, %',
    'colour 3-NN, %',
    'test images',
    'epochs',
    'minutes',
    'images/s',
  ]
  return report.table(header, rows)


def _scores_row(title: str, masks: str, got: dict[str, Any]) -> list[str]:
  digits = {'hausdorff_95': 1, 'cell_count_error': 1}
  values = [report.number(got[n], digits.get(n, 3)) for n in _SCORES]
  return [title, masks, *values]


def render_segmentation() -> str:
  """Each run's whole test part, beside the baselines."""
  rows = []
  for name, (title, _) in SEGMENTATION.items():
    got = read(name)
    minutes = got['cost']['seconds'] / 60
    row = _scores_row(f'[{title}](results/{name}.json)', 'U-Net', got['test'])
    rows.append([*row, f'{minutes:.1f}'])
    for kind, baseline in got['baselines'].items():
      row = _scores_row('', report.BASELINES[kind], baseline)
      rows.append([*row, ''])
  header = [
    'data',
    'masks by',
    *(report.MASK_COLUMNS[s] for s in _SCORES),
    'minutes',
  ]
  return report.table(header, rows)


def render_segmentation_soft() -> str:
  """The study's own forms of the scores beside its figures."""
  soft = read('unet_real')['test']['soft']
  dice, iou = published_study.SOFT_SCORES['unet']
  others = published_study.SOFT_SCORES['unet_fpn']
  return (
    "By the study's forms, which take probabilities as they are, the small "
    f'U-Net reaches a Dice of {soft["dice"]:.3f} and an IoU of '
    f'{soft["iou"]:.3f} on the masks as released; the study printed {dice:.3f} '
    f'and {iou:.3f} for 34.5 million parameters at 224 px, {others[0]:.3f} and '
    f'{others[1]:.3f} with feature pyramids (masks by grey>128).\n'
  )


def render_segmentation_classes() -> str:
  """The real images' test part by class."""
  header = ['class', 'masks', 'share of cells, %', 'empty', 'U-Net', 'rule']
  rows = []
  for name in ('unet_real', 'unet_real_cleaned'):
    got = read(name)
    masks = got['data']['masks']
    for title, facts in masks['by_class'].items():
      dice = [
        scores['by_class'][title]['dice']
        for scores in (got['test'], got['baselines']['colour_rule'])
      ]
      rows.append(
        [
          title,
          'cleaned' if masks['cleaned'] else 'as released',
          percent(facts['mean']),
          f'{facts["empty"]} of {facts["masks"]}',
          *(f'{value:.3f}' for value in dice),
        ]
      )
  return report.table(header, rows)


def render_probe() -> str:
  """What the trace probe finds, in a sentence."""
  got = read('probe')
  seeds = len(got['split_then_balance']['by_seed'])
  ours, theirs = (
    percent(got[order]['balanced_accuracy'])
    for order in ('split_then_balance', 'balance_then_split')
  )
  return (
    f'With the labels of the {got["images"]:,} real images dealt out at '
    f'random (chance: {percent(got["chance"])} %), a linear model on 22 '
    f'numbers about JPEG blocks, blur and corners still finds {theirs} % in '
    f"the study's order and {ours} % in the default one (mean of {seeds} "
    'deals, [results/probe.json](results/probe.json)).\n'
  )


def render_first() -> str:
  """What the first command trains on and takes."""
  got = read('synthetic')
  data, seconds = got['data'], got['cost']['seconds']
  return (
    f'They are {data["images"]:,} images of {data["groups"]} patients (the '
    "study's table times `config.synthetic.scale`); it takes "
    f'{seconds / 60:.1f} minutes on two cores after installation:\n'
  )


def render_set() -> str:
  """What the published set holds."""
  data = read('real_split_then_balance')['data']
  copies = data['images'] - data['groups']
  return (
    f'The published set ({data["images"]:,} images, [Ghaderzadeh et al., 2022]'
    '(https://doi.org/10.1002/int.22753)) has no patient ids and holds '
    f'{copies} exact duplicates.\n'
  )


def _study_lines(name: str) -> list[dict[str, Any]]:
  """The lines of a study's table, numbers as numbers."""
  with (HERE / f'{name}.csv').open() as stream:
    lines = list(csv.DictReader(stream))
  return [
    {k: v if k == 'model' or not v else float(v) for k, v in line.items()}
    for line in lines
  ]


def render_study() -> str:
  """The best rows of the studies."""
  rows = []
  for name, (title, _) in STUDIES.items():
    lines = _study_lines(name)
    for i in study_report.winners(lines):
      line = lines[i]
      scores = [
        f'{line[f"test_{score}"]:.1f} ± {line[f"test_{score}_std"]:.1f}'
        for score in ('worst_class_recall', 'accuracy')
      ]
      rows.append(
        [
          f'[{title}](results/{name}.md)',
          line['model'],
          f'{line["loading_option"]:.0f}',
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
    'worst class recall, %',
    'test accuracy, %',
  ]
  return report.table(header, rows)


def render_study_loss() -> str:
  """What the published loss does to heads."""
  lost, heads, spans = [], 0.0, []
  for name in ('study_keras_clipped', 'study_balance_then_split'):
    lines = _study_lines(name)
    heads = sum(line['repeats'] for line in lines)
    lost.append(sum(line['class_lost'] for line in lines))
    scores = [
      line['test_accuracy'] for line in lines if line['learning_rate'] == 0.1
    ]
    spans.append(f'{min(scores):.1f} to {max(scores):.1f} %')
  return (
    f'With the published loss {lost[0]:.0f} of {heads:.0f} heads never find '
    'some class, with the stable form of the same cross-entropy '
    f'{lost[1]:.0f}. Of the test part the rows of rate 0.1 reach {spans[0]} '
    f'with the one and {spans[1]} with the other.\n'
  )


def render_study_cost() -> str:
  """What the whole study takes at full size."""
  got = read('study_cost')
  models = ' and '.join(
    f'{facts["images_per_second"]:.1f} images/s, then '
    f'{facts["heads_seconds"]:.0f} s for its {facts["heads"]} heads ({name})'
    for name, facts in got['models'].items()
  )
  return (
    f'On two cores the whole study, {got["images"]:,} images at 224 px through '
    'both published backbones and 48 heads on them, takes '
    f'{got["seconds"] / 60:.0f} minutes and '
    f'{got["peak_memory_bytes"] / 1e9:.1f} GB: {models}. With the backbone in '
    'every step, as it was first done, the same epochs would take '
    f'{got["every_epoch_seconds"] / 3600:.0f} hours ({got["steps_timed"]} '
    'steps timed and multiplied out), '
    f'{got["ratio"]:.0f} times as long; '
    f'{got["ratio_at_our_pace"]:.0f} times if each epoch ran it as fast as the '
    'features are made here. Random weights: what is measured is time '
    '(`python results/measure_study.py --data=leukemia.zip`, '
    '[results/study_cost.json](results/study_cost.json)).\n'
  )


def render_commands() -> str:
  """The command of each row."""
  names = RUNS | SEGMENTATION | BACKBONES | STUDIES
  lines = [read(name)['command'] for name in names]
  return '```sh\n' + '\n'.join(lines) + '\n```\n'


def render_models() -> str:
  """What was measured beside Keras."""
  got = read('models')
  speed, loaded = got['inference'], got['load']
  ours, theirs = (speed['images_per_second'][n] for n in ('ours', 'keras'))
  compiled, cached = (
    got[name]['trace_seconds'] + got[name]['compile_seconds']
    for name in ('training', 'training_cached')
  )
  unrolled, scanned = (
    f'{got[name]["trace_seconds"] + got[name]["compile_seconds"]:.0f} s, '
    f'{got[name]["temporary_bytes"] / 1e9:.1f} GB and '
    f'{got[name]["images_per_second"]:.1f} images/s'
    for name in ('unrolled', 'scanned')
  )
  return (
    f'On two cores NASNet-Large runs {ours:.1f} images/s at 224 px, Keras on '
    f'JAX {theirs:.1f} (batch {speed["batch"]}, same weights, same run: '
    f'{speed["ratio"]:.1f} times). Its training step takes {compiled:.0f} s to '
    f'trace and compile, {cached:.0f} s when `JAX_COMPILATION_CACHE_DIR` names '
    'a folder that has seen it, and '
    f'{got["training"]["temporary_bytes"] / 1e9:.1f} GB beside its state at '
    'batch 8. A loop over its equal cells gains nothing there: their gradient '
    f'takes {unrolled} unrolled, and {scanned} in `lax.scan`. '
    f'InceptionResNetV2 is read from its {loaded["file_bytes"] / 1e6:.0f} MB '
    f'in {loaded["seconds"]:.1f} s, at most '
    f'{loaded["peak_memory_bytes"] / 1e9:.1f} GB in all '
    '([results/models.json](results/models.json)).\n'
  )


def render_memory() -> str:
  """What a U-Net's training step keeps."""
  got = read('memory')
  kept, compiled = (
    {k: f'{v / 1e9:.1f} GB' for k, v in got[account].items()}
    for account in ('kept_bytes', 'temporary_bytes')
  )
  return (
    'A training step of the full-size U-Net (`configs/unet.py:study`, 224 px, '
    f'batch 32) keeps {kept["plain"]} of feature maps for the way back by '
    f"JAX's count, {kept['checkpoint']} with `--config.model.checkpoint=True` "
    f'(XLA compiles the step to {compiled["plain"]} and '
    f'{compiled["checkpoint"]} of temporary memory), '
    f'{kept["accumulate 4"]} with `--config.train.accumulate=4`, '
    f'{kept["checkpoint, accumulate 4"]} with both, {kept["bfloat16"]} in '
    'bfloat16 (`python results/measure_memory.py`, '
    '[results/memory.json](results/memory.json)).\n'
  )


RENDERED = {
  'memory': render_memory,
  'segmentation': render_segmentation,
  'segmentation soft': render_segmentation_soft,
  'segmentation classes': render_segmentation_classes,
  'study': render_study,
  'study loss': render_study_loss,
  'study cost': render_study_cost,
  'first': render_first,
  'set': render_set,
  'table': render_table,
  'probe': render_probe,
  'commands': render_commands,
  'models': render_models,
}


def render(text: str) -> str:
  """Fills the README's marked blocks from the result files."""
  for name, make in RENDERED.items():
    start, end = f'<!-- {name} -->\n', f'<!-- end of {name} -->'
    head, rest = text.split(start)
    _, tail = rest.split(end)
    text = head + start + make() + end + tail
  return text
