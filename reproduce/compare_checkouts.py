"""Compares the numbers of two checkouts on this machine.

    python -m reproduce.compare_checkouts --before=path/to/old --after=.

runs the default experiment, a U-Net, a NASNet-Mobile and a small study on
synthetic smears in each (a quarter of an hour on two cores), and says of each
whether the weights' hash, every epoch's line and every score are the same. Exit
status 1 if something differs.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

_RUNS: dict[str, tuple[str, ...]] = {
  'default': (),
  'unet': ('--config=configs/unet.py', '--config.train.epochs=2'),
  'nasnet_mobile': (
    '--config=configs/nasnet_mobile.py',
    '--config.train.epochs=2',
    '--config.synthetic.scale=0.03',
  ),
}
_STUDY = (
  '--mode=study',
  '--config=configs/study.py',
  '--config.synthetic.scale=0.08',
  '--config.data.image_size=75',
  "--config.study.models=('inception_resnet_v2','nasnet_mobile')",
  '--config.study.inception_resnet_v2.width=0.05',
  '--config.study.inception_resnet_v2.blocks=(1,1,1)',
  '--config.study.nasnet_mobile.width=0.1',
  '--config.study.nasnet_mobile.blocks=(1,1,1)',
  '--config.study.learning_rates=(0.01,0.001)',
  '--config.study.repeats=2',
  '--config.train.epochs=6',
)


def run(checkout: pathlib.Path, folder: pathlib.Path) -> None:
  """Runs every command of a checkout."""
  for name, flags in (_RUNS | {'study': _STUDY}).items():
    # 0.1.0 takes no --config after a key of it.
    where = (f'--workdir={folder / name}', *flags)
    cache = f'--config.data.cache_dir={folder / "cache"}'
    command = [sys.executable, 'main.py', *where, cache]
    subprocess.run(command, cwd=checkout, check=True)


def _numbers(content: Any, path: str = '') -> dict[str, Any]:
  """All numbers of a JSON tree by their place, times aside."""
  members: Iterable[tuple[Any, Any]]
  if isinstance(content, dict):
    members = content.items()
  elif isinstance(content, list):
    members = enumerate(content)
  else:
    return {path: content} if isinstance(content, int | float) else {}
  return {
    place: value
    for key, member in members
    if key not in ('cost', 'seconds', 'format')
    for place, value in _numbers(member, f'{path}/{key}').items()
  }


def differences(before: pathlib.Path, after: pathlib.Path) -> list[str]:
  """What differs between two runs; what only the later one has does not."""
  pair = [folder / 'result.json' for folder in (before, after)]
  if not pair[0].exists():
    tables = []
    for folder in (before, after):
      lines = csv.DictReader((folder / 'results.csv').open())
      tables.append([line | {'seconds': ''} for line in lines])
    return [] if tables[0] == tables[1] else ['results.csv']
  results = [json.loads(path.read_text()) for path in pair]
  hashes = {result['parameters_sha256'] for result in results}
  different = ['parameters_sha256'] if len(hashes) > 1 else []
  logs = [
    [_numbers(json.loads(line)) for line in path.read_text().splitlines()]
    for path in (folder / 'metrics.jsonl' for folder in (before, after))
  ]
  if logs[0] != logs[1]:
    different.append('metrics.jsonl')
  old, new = map(_numbers, results)
  # A score that is gone is no longer the same.
  return different + [key for key in old if old[key] != new.get(key)]


def main() -> None:
  """Runs both checkouts and compares."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--before', type=pathlib.Path, required=True)
  parser.add_argument('--after', type=pathlib.Path, required=True)
  args = parser.parse_args()
  equal = True
  with tempfile.TemporaryDirectory() as folder:
    before, after = (
      pathlib.Path(folder, 'before'),
      pathlib.Path(folder, 'after'),
    )
    run(args.before, before)
    run(args.after, after)
    for name in (*_RUNS, 'study'):
      different = differences(before / name, after / name)
      equal = equal and not different
      print(f'{name}: {", ".join(sorted(different)) or "the same"}')
  sys.exit(not equal)


if __name__ == '__main__':
  main()
