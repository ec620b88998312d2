"""Makes every number and picture of the README again.

    python results/regenerate.py --data=path/to/leukemia.zip

runs main.py for each row of the results tables and for the studies (an hour and
a half or more on two cores), keeps each result.json here, with the command that
made it, and renders them into README.md between its markers. --only=NAME ...
runs some of them, --render none. Nothing of an image is kept but the synthetic
picture.
"""

import argparse
import csv
import functools
import io
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from PIL import Image

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))


def _small(name: str, width: float) -> tuple[str, ...]:
  """The published network, made small enough for two cores."""
  return (
    f'--config=configs/{name}.py',
    '--config.data.source={data}',
    '--config.data.image_size=96',
    f'--config.model.width={width}',
    '--config.model.blocks=(1,1,1)',
    '--config.model.momentum=0.9',
    '--config.model.dtype=float32',
    '--config.train.epochs=20',
  )


_SMALL = _small('inception_resnet_v2', 0.25)
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
  'synthetic': ('synthetic smears, new patients', ()),
  'real_split_then_balance': ('real images, split then balanced', _SMALL),
  'real_nasnet_mobile': (
    'real images, split then balanced',
    _small('nasnet_mobile', 0.5),
  ),
  'real_balance_then_split': (
    "real images, balanced then split (the study's order)",
    (*_SMALL, '--config.data.order=balance_then_split'),
  ),
  'real_blocks': (
    'real images, blocks of 40 file numbers held out',
    (*_SMALL, '--config.data.grouping=blocks'),
  ),
}
# Their masks are a function of exact colours: flips alone keep them true.
_REAL_UNET = (
  '--config=configs/unet.py',
  '--config.data.source={data}',
  '--config.train.epochs=20',
  '--config.augment.brightness_delta=0.0',
  '--config.augment.contrast_delta=0.0',
  '--config.augment.rotation=0.0',
  '--config.augment.jpeg_quality=()',
)
SEGMENTATION: dict[str, tuple[str, tuple[str, ...]]] = {
  'unet_synthetic': (
    'synthetic smears, new patients',
    ('--config=configs/unet.py',),
  ),
  'unet_real': ('real images, masks as released', _REAL_UNET),
  'unet_real_cleaned': (
    'real images, masks cleaned',
    (*_REAL_UNET, '--config.data.clean_masks=True'),
  ),
}
# Trained on no image that a test part of the study holds, in either order.
BACKBONES: dict[str, tuple[str, ...]] = {
  f'outside_{name}': (
    *_small(name, width),
    '--config.data.order=outside_study',
  )
  for name, width in (('inception_resnet_v2', 0.25), ('nasnet_mobile', 0.5))
}
_STUDY = (
  '--mode=study',
  '--config=configs/study.py',
  '--config.data.source={data}',
  '--config.data.image_size=96',
  "--config.study.models=('inception_resnet_v2','nasnet_mobile')",
  '--config.study.inception_resnet_v2.weights='
  '{runs}/outside_inception_resnet_v2',
  '--config.study.nasnet_mobile.weights={runs}/outside_nasnet_mobile',
  '--config.study.repeats=3',
  "--config.study.segmentation=('{runs}/unet_real','{runs}/unet_real_cleaned')",
)
STUDIES: dict[str, tuple[str, tuple[str, ...]]] = {
  'study_balance_then_split': (
    "balanced then split (the study's order)",
    _STUDY,
  ),
  'study_split_then_balance': (
    'split then balanced',
    (*_STUDY, '--config.data.order=split_then_balance'),
  ),
  'study_keras_clipped': (
    "balanced then split, the study's clipped loss",
    (*_STUDY, '--config.train.loss=keras_clipped'),
  ),
}
_PROBE_SEEDS = 3


def command(
  name: str, flags: tuple[str, ...], data: str, runs: str
) -> list[str]:
  """The command of a run, without the interpreter."""
  filled = [flag.format(data=data, runs=runs) for flag in flags]
  return ['main.py', f'--workdir={runs}/{name}', *filled]


def shown_command(name: str, flags: tuple[str, ...]) -> str:
  """The command of a run, for a person to type."""
  parts = command(name, flags, 'leukemia.zip', 'runs')
  return f'python {" ".join(map(shlex.quote, parts))}'


def keep(name: str, content: dict[str, Any]) -> None:
  """Writes one result file."""
  text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  (HERE / f'{name}.json').write_text(text)


def run(name: str, data: pathlib.Path | None, folder: pathlib.Path) -> None:
  """Trains one row of the table and keeps its result."""
  _, flags = (RUNS | SEGMENTATION)[name]
  execute(name, flags, data, folder)
  result = json.loads((folder / name / 'result.json').read_text())
  keep(name, {'command': shown_command(name, flags)} | result)


def execute(
  name: str,
  flags: tuple[str, ...],
  data: pathlib.Path | None,
  folder: pathlib.Path,
) -> None:
  """Runs main.py."""
  subprocess.run(
    [sys.executable, *command(name, flags, str(data), str(folder))],
    cwd=ROOT,
    check=True,
  )


def study(data: pathlib.Path, folder: pathlib.Path) -> None:
  """Trains the backbones, then all rows in both orders; keeps the tables."""
  for name, flags in BACKBONES.items():
    execute(name, flags, data, folder)
  for name in SEGMENTATION:
    # What is kept of a run stands in for it.
    (folder / name).mkdir(exist_ok=True)
    shutil.copy(HERE / f'{name}.json', folder / name / 'result.json')
  for name, (_, flags) in STUDIES.items():
    execute(name, flags, data, folder)
    for suffix, file in (('csv', 'results.csv'), ('md', 'report.md')):
      text = (folder / name / file).read_text()
      (HERE / f'{name}.{suffix}').write_text(text)


def probe(data: pathlib.Path) -> None:
  """How far balancing alone marks the class, in both orders."""
  import numpy as np

  from configs import default
  from leukemia_jax import experiment

  config = default.get_config()
  config.data.source, config.data.image_size = str(data), 96
  started = time.perf_counter()
  images, catalogue = experiment.load(config)
  result: dict[str, Any] = {
    'command': 'python results/regenerate.py --only probe --data=leukemia.zip',
    'images': len(catalogue.ids),
    'fingerprint': catalogue.fingerprint,
    'chance': 1 / len(catalogue.class_names),
  }
  for order in ('split_then_balance', 'balance_then_split'):
    config.data.order = order
    scores = [
      experiment.balancing_trace(config, catalogue, images, seed=seed)
      for seed in range(_PROBE_SEEDS)
    ]
    result[order] = {
      'balanced_accuracy': float(np.mean(scores)),
      'by_seed': scores,
    }
  result['cost'] = {'seconds': round(time.perf_counter() - started, 1)}
  keep('probe', result)


def cleaning() -> None:
  """Draws what cleaning makes of masks that a colour rule made."""
  import jax
  import numpy as np

  from leukemia_jax import figures
  from leukemia_jax.data import audit, masks, synthetic

  rows = []
  key, spec = jax.random.key(0), synthetic.SmearSpec()
  for label in (1, 2):
    image, truth = synthetic.render_image(key, label, label, label, spec=spec)
    rule = audit.fit_colour_rule([(image, truth > 0)])
    made = audit.apply_colour_rule(image, rule)
    shown = [
      np.where(mask[..., None], image, 0).astype(np.uint8)
      for mask in (made, masks.clean(made, minimum_area=60))
    ]
    rows.append((synthetic.CLASSES[label], [image, *shown]))
  sheet = figures.contact_sheet(rows, '')
  with Image.open(io.BytesIO(sheet)) as drawn:
    drawn.convert('RGB').quantize(100).save(
      HERE / 'cleaning.png', optimize=True
    )


def picture(folder: pathlib.Path) -> None:
  """Draws the README's pictures of synthetic smears."""
  cleaning()
  subprocess.run(
    [
      sys.executable,
      'main.py',
      f'--workdir={folder / "picture"}',
      '--mode=prepare',
      '--config.data.image_size=224',
    ],
    cwd=ROOT,
    check=True,
  )
  with Image.open(folder / 'picture/classes.png') as sheet:
    sheet = sheet.convert('RGB')
    sheet.thumbnail((760, 760))
    # Sensor noise packs badly: a hundred colours show all there is to see.
    sheet.quantize(100).save(HERE / 'smears.png', optimize=True)


@functools.cache
def read(name: str) -> dict[str, Any]:
  """One result file."""
  return json.loads((HERE / f'{name}.json').read_text())


def percent(value: float) -> str:
  """A share as a percentage with one digit."""
  return f'{100 * value:.1f}'


def render_table() -> str:
  """The results table."""
  from leukemia_jax import report

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
  from leukemia_jax import report

  digits = {'hausdorff_95': 1, 'cell_count_error': 1}
  values = [report.number(got[n], digits.get(n, 3)) for n in _SCORES]
  return [title, masks, *values]


def render_segmentation() -> str:
  """Each run's whole test part, beside the baselines."""
  from leukemia_jax import report

  rows = []
  for name, (title, _) in SEGMENTATION.items():
    got = read(name)
    minutes = got['cost']['seconds'] / 60
    row = _scores_row(f'[{title}](results/{name}.json)', 'U-Net', got['test'])
    rows.append([*row, f'{minutes:.1f}'])
    for kind, baseline in got['baselines'].items():
      row = _scores_row('', report.BASELINES[kind], baseline)
      rows.append([*row, ''])
  header = ['data', 'masks by', *_SCORES.values(), 'minutes']
  return report.table(header, rows)


_SCORES = {
  'dice': 'Dice',
  'iou': 'IoU',
  'border_f1': 'border F1',
  'hausdorff_95': '95 % Hausdorff, px',
  'one_empty': 'one mask empty',
  'cell_f1': 'cell F1',
  'cell_count_error': 'cell count error',
}


def render_segmentation_soft() -> str:
  """The study's own forms of the scores beside its figures."""
  from leukemia_jax import published_study

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
  from leukemia_jax import report

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
  from leukemia_jax import report, study_report

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
    f'{got["every_epoch_seconds"] / 3600:.0f} hours (three steps timed and '
    f'multiplied out), {got["ratio"]:.0f} times as long (random weights: '
    'what is measured is time; `python results/measure_study.py`, '
    '[results/study_cost.json](results/study_cost.json)).\n'
  )


def render_commands() -> str:
  """The command of each row."""
  lines = [read(name)['command'] for name in RUNS | SEGMENTATION]
  lines += [shown_command(name, flags) for name, flags in BACKBONES.items()]
  lines += [shown_command(name, flags) for name, (_, flags) in STUDIES.items()]
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


def main() -> None:
  """Runs what is asked for, then renders."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data', type=pathlib.Path, help='leukemia.zip')
  every = [*RUNS, *SEGMENTATION, 'study', 'probe', 'picture']
  parser.add_argument('--only', nargs='*', choices=every)
  parser.add_argument('--render', action='store_true', help='run nothing')
  given = parser.parse_args()
  names = [] if given.render else given.only or every
  real = [n for n in names if 'real' in n or n in ('probe', 'study')]
  if real and not given.data:
    parser.error(f'--data=path/to/leukemia.zip is needed for {", ".join(real)}')
  data = given.data and given.data.resolve()
  with tempfile.TemporaryDirectory() as folder:
    for name in names:
      if name == 'probe':
        probe(data)
      elif name == 'study':
        study(data, pathlib.Path(folder))
      elif name == 'picture':
        picture(pathlib.Path(folder))
      else:
        run(name, data, pathlib.Path(folder))
  readme = ROOT / 'README.md'
  readme.write_text(render(readme.read_text()))


if __name__ == '__main__':
  main()
