"""Makes the README's tables and pictures again.

    python results/regenerate.py --data=path/to/leukemia.zip

runs main.py for each row of the results tables and for the studies (an hour and
a half or more on two cores), keeps each result.json here, with the command that
made it, and renders them into README.md between its markers. --only=NAME ...
runs some of them, --render none; the measure_*.py beside it make what is said
of speed and memory. Nothing of an image is kept but the synthetic picture.
"""

import argparse
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import tables
from PIL import Image
from rows import (
  BACKBONES,
  RUNS,
  SEGMENTATION,
  STUDIES,
  command,
  shown_command,
)

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

_PROBE_SEEDS = 3


def keep(name: str, content: dict[str, Any]) -> None:
  """Writes one result file."""
  text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  (HERE / f'{name}.json').write_text(text)


def keep_picture(name: str, image: Image.Image) -> None:
  """Writes one picture, in a hundred colours: noise packs badly."""
  path = HERE / f'{name}.png'
  image.convert('RGB').quantize(100).save(path, optimize=True)


def run(name: str, data: pathlib.Path | None, folder: pathlib.Path) -> None:
  """Trains one row of the table and keeps its result."""
  _, flags = (RUNS | SEGMENTATION | BACKBONES)[name]
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
  """Trains the backbones, then all rows of each study; keeps the tables."""
  for name in BACKBONES:
    run(name, data, folder)
  for name in SEGMENTATION:
    # What is kept of a run stands in for it.
    (folder / name).mkdir(exist_ok=True)
    shutil.copy(HERE / f'{name}.json', folder / name / 'result.json')
  for name, (_, flags) in STUDIES.items():
    execute(name, flags, data, folder)
    shutil.copy(folder / name / 'results.csv', HERE / f'{name}.csv')
    page = (folder / name / 'report.md').read_text()
    page = page.replace('(rates.png)', f'({name}.png)')
    (HERE / f'{name}.md').write_text(page)
    with Image.open(folder / name / 'rates.png') as drawn:
      keep_picture(name, drawn)
    rows = [
      json.loads(path.read_text())
      for path in sorted((folder / name / 'rows').glob('*.json'))
    ]
    keep(
      name,
      {
        'command': shown_command(name, flags),
        'rows': len(rows),
        'data': rows[0]['data'],
        'fingerprint': rows[0]['of']['fingerprint'],
        'weights_sha256': {r['model']: r['of']['weights_sha256'] for r in rows},
        'environment': rows[0]['environment'],
      },
    )


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
    keep_picture('cleaning', drawn)


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
    keep_picture('smears', sheet)


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
  readme.write_text(tables.render(readme.read_text()))


if __name__ == '__main__':
  main()
