"""Makes the tables of README.md and docs/ again, and pictures but a report's.

    python -m reproduce.regenerate --data=path/to/leukemia.zip

runs main.py for each row of the results tables and for the studies (an hour and
a half or more on two cores), keeps each result.json here, with the command that
made it, in results/, and renders them into the pages between their markers.
--only NAME ... runs some of them, --render none; the measure_*.py beside it
make what is said of speed and memory. No image is stored but the synthetic
pictures.
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

import jax
import numpy as np
from leukemia_jax.configs import default
from PIL import Image

from leukemia_jax import build
from leukemia_jax.audit import baselines
from leukemia_jax.data import input_pipeline, masks, synthetic, synthetic_cells
from leukemia_jax.reporting import figures
from reproduce import balancing_trace, tables
from reproduce.rows import (
  AUDITS,
  BACKBONES,
  COUNTER_MEASURES,
  CROSS_VALIDATION,
  RUNS,
  SEGMENTATION,
  STUDIES,
  command,
  typed_command,
)
from reproduce.stored import RESULTS, ROOT, store

_PROBE_SEEDS = 3


def store_picture(name: str, image: Image.Image) -> None:
  """Writes one picture, in a hundred colours: noise packs badly."""
  path = RESULTS / f'{name}.png'
  image.convert('RGB').quantize(100).save(path, optimize=True)


def run(name: str, data: pathlib.Path | None, folder: pathlib.Path) -> None:
  """Trains one row of the table and stores its result."""
  runs = RUNS | CROSS_VALIDATION | COUNTER_MEASURES | SEGMENTATION | BACKBONES
  _, flags = runs[name]
  execute(name, flags, data, folder)
  result = json.loads((folder / name / 'result.json').read_text())
  store(name, {'command': typed_command(name, flags)} | result)


def audit(data: pathlib.Path | None, folder: pathlib.Path) -> None:
  """Audits the real images, as they are and behind each counter-measure."""
  audits = {}
  for name, (_, flags) in AUDITS.items():
    execute(name, flags, data, folder)
    content = json.loads((folder / name / 'audit.json').read_text())
    audits[name] = {'command': typed_command(name, flags)} | content
  store('audits', audits)


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
  """Trains the backbones, then all rows of each study; stores the tables."""
  for name in BACKBONES:
    run(name, data, folder)
  for name in SEGMENTATION:
    # What is stored of a run stands in for it.
    (folder / name).mkdir(exist_ok=True)
    shutil.copy(RESULTS / f'{name}.json', folder / name / 'result.json')
  for name, (_, flags) in STUDIES.items():
    execute(name, flags, data, folder)
    shutil.copy(folder / name / 'results.csv', RESULTS / f'{name}.csv')
    page = (folder / name / 'report.md').read_text()
    page = page.replace('(rates.svg)', f'({name}.svg)')
    (RESULTS / f'{name}.md').write_text(page)
    shutil.copy(folder / name / 'rates.svg', RESULTS / f'{name}.svg')
    rows = [
      json.loads(path.read_text())
      for path in sorted((folder / name / 'rows').glob('*.json'))
    ]
    store(
      name,
      {
        'command': typed_command(name, flags),
        'num_rows': len(rows),
        'data': rows[0]['data'],
        'fingerprint': rows[0]['provenance']['fingerprint'],
        'weights_sha256': {
          r['model']: r['provenance']['weights_sha256'] for r in rows
        },
        'environment': rows[0]['environment'],
      },
    )


def probe(data: pathlib.Path) -> None:
  """How far balancing alone marks the class, in both protocols."""
  config = default.get_config()
  config.data.source, config.data.image_size = str(data), 96
  started = time.perf_counter()
  keys, spec, augment = build.inputs(config, 'classes')
  images, catalogue = input_pipeline.load(spec)
  result: dict[str, Any] = {
    'command': 'python -m reproduce.regenerate --only probe '
    '--data=leukemia.zip',
    'images': len(catalogue.ids),
    'fingerprint': catalogue.fingerprint,
    'chance': 1 / len(catalogue.class_names),
  }
  for name in ('split_then_balance', 'balance_then_split'):
    scores = [
      balancing_trace.balancing_trace(
        catalogue,
        images,
        spec=spec._replace(protocol=spec.protocol._replace(name=name)),
        augment=augment,
        keys=(keys.split, keys.copies, keys.train),
        seed=seed,
      )
      for seed in range(_PROBE_SEEDS)
    ]
    result[name] = {
      'balanced_accuracy': float(np.mean(scores)),
      'by_seed': scores,
    }
  result['cost'] = {'seconds': round(time.perf_counter() - started, 1)}
  store('probe', result)


def cleaning() -> None:
  """Draws what cleaning makes of masks that a colour rule made."""
  panels = []
  key, spec = jax.random.key(0), synthetic_cells.SmearSpec()
  for label in (1, 2):
    image, truth = synthetic.render_image(key, label, label, label, spec=spec)
    rule = baselines.fit_colour_rule([(image, truth > 0)])
    predicted = baselines.apply_colour_rule(image, rule)
    cut_outs = [
      np.where(mask[..., None], image, 0).astype(np.uint8)
      for mask in (predicted, masks.clean(predicted, minimum_area=60))
    ]
    panels.append((synthetic.CLASSES[label], [image, *cut_outs]))
  sheet = figures.contact_sheet(panels, '')
  with Image.open(io.BytesIO(sheet)) as drawn:
    store_picture('cleaning', drawn)


def picture(folder: pathlib.Path) -> None:
  """Draws the pictures of synthetic smears."""
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
    small = sheet.convert('RGB')
    small.thumbnail((760, 760))
    store_picture('smears', small)


def main() -> None:
  """Runs what is asked for, then renders."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data', type=pathlib.Path, help='leukemia.zip')
  every = [*RUNS, *CROSS_VALIDATION, *COUNTER_MEASURES, *SEGMENTATION]
  every += ['audits', 'study', 'probe', 'picture']
  parser.add_argument('--only', nargs='*', choices=every)
  parser.add_argument('--render', action='store_true', help='run nothing')
  args = parser.parse_args()
  names = [] if args.render else args.only or every
  real = [n for n in names if 'real' in n or n in ('audits', 'probe', 'study')]
  if real and not args.data:
    parser.error(f'--data=path/to/leukemia.zip is needed for {", ".join(real)}')
  data = args.data and args.data.resolve()
  with tempfile.TemporaryDirectory() as folder:
    for name in names:
      if name == 'probe':
        probe(data)
      elif name == 'audits':
        audit(data, pathlib.Path(folder))
      elif name == 'study':
        study(data, pathlib.Path(folder))
      elif name == 'picture':
        picture(pathlib.Path(folder))
      else:
        run(name, data, pathlib.Path(folder))
  for path in tables.PAGES:
    path.write_text(tables.render(path.read_text(), path))


if __name__ == '__main__':
  main()
