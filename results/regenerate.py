"""Makes every number and picture of the README again.

    python results/regenerate.py --data=path/to/leukemia.zip

runs main.py for each row of the results table (about half an hour on two
cores), keeps each result.json here, with the command that made it, and renders
them into README.md between its markers. --only=NAME ... runs some of them,
--render none. Nothing of an image is kept but the synthetic picture.
"""

import argparse
import functools
import json
import pathlib
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
_PROBE_SEEDS = 3


def command(flags: tuple[str, ...], data: str, workdir: str) -> list[str]:
  """The command of a run, without the interpreter."""
  filled = [flag.format(data=data) for flag in flags]
  return ['main.py', f'--workdir={workdir}', *filled]


def keep(name: str, content: dict[str, Any]) -> None:
  """Writes one result file."""
  text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  (HERE / f'{name}.json').write_text(text)


def run(name: str, data: pathlib.Path | None, folder: pathlib.Path) -> None:
  """Trains one row of the table and keeps its result."""
  _, flags = RUNS[name]
  workdir = folder / name
  subprocess.run(
    [sys.executable, *command(flags, str(data), str(workdir))],
    cwd=ROOT,
    check=True,
  )
  result = json.loads((workdir / 'result.json').read_text())
  shown = command(flags, 'leukemia.zip', f'runs/{name}')
  shown = [f"'{part}'" if '(' in part else part for part in shown]
  keep(name, {'command': f'python {" ".join(shown)}'} | result)


def probe(data: pathlib.Path) -> None:
  """How far balancing alone marks the class, in both orders."""
  import numpy as np

  from configs import default
  from leukemia_jax import experiment
  from leukemia_jax.data import splits

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
  for order in splits.ORDERS:
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


def picture(folder: pathlib.Path) -> None:
  """Draws the README's contact sheet of synthetic smears."""
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


def render_commands() -> str:
  """The command of each row."""
  lines = [read(name)['command'] for name in RUNS]
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


RENDERED = {
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
  parser.add_argument('--only', nargs='*', choices=[*RUNS, 'probe', 'picture'])
  parser.add_argument('--render', action='store_true', help='run nothing')
  given = parser.parse_args()
  names = [] if given.render else given.only or [*RUNS, 'probe', 'picture']
  real = [n for n in names if n.startswith('real') or n == 'probe']
  if real and not given.data:
    parser.error(f'--data=path/to/leukemia.zip is needed for {", ".join(real)}')
  data = given.data and given.data.resolve()
  with tempfile.TemporaryDirectory() as folder:
    for name in names:
      if name == 'probe':
        probe(data)
      elif name == 'picture':
        picture(pathlib.Path(folder))
      else:
        run(name, data, pathlib.Path(folder))
  readme = ROOT / 'README.md'
  readme.write_text(render(readme.read_text()))


if __name__ == '__main__':
  main()
