"""Measures full-size networks at 224 px beside other libraries'.

    python -m reproduce.measure_speed --only 'InceptionResNetV2, bfloat16'
      --compare=timm

runs --mode=benchmark for each, where timm and torch are installed beside this
package, and keeps the results in results/speeds.json by network, dtype and
version of JAX: run it in an environment for each. Ten minutes each on two
cores.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import jax

from reproduce.rows import typed_command
from reproduce.stored import RESULTS, ROOT


def _flags(config: str, batch: int, dtype: str) -> tuple[str, ...]:
  return (
    '--mode=benchmark',
    f'--config=configs/{config}',
    '--config.data.image_size=224',
    f'--config.train.batch_size={batch}',
    f'--config.model.dtype={dtype}',
  )


# By network and dtype: flags, and what is compared.
NETWORKS = {
  f'{title}, {dtype}': (_flags(config, batch, dtype), compare)
  for title, config, batch, compare in (
    ('InceptionResNetV2', 'inception_resnet_v2.py', 8, 'timm,keras'),
    ('NASNetLarge', 'nasnet_large.py', 8, 'timm,keras'),
    ('U-Net', 'unet.py:study', 4, 'torch'),
  )
  for dtype in ('bfloat16', 'float32')
}


def main() -> None:
  """Measures, and stores."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', nargs='*', choices=NETWORKS)
  parser.add_argument('--compare', help='instead of all that could be')
  args = parser.parse_args()
  path = RESULTS / 'speeds.json'
  version = '.'.join(jax.__version__.split('.')[:2])
  for name in args.only or NETWORKS:
    flags, compare = NETWORKS[name]
    flags += (f'--compare={args.compare or compare}',)
    with tempfile.TemporaryDirectory() as folder:
      workdir = pathlib.Path(folder) / 'speed'
      subprocess.run(
        [sys.executable, 'main.py', f'--workdir={workdir}', *flags],
        cwd=ROOT,
        check=True,
      )
      measured = json.loads((workdir / 'benchmark.json').read_text())
    stored = json.loads(path.read_text()) if path.exists() else {}
    command = {'command': typed_command('speed', flags)}
    stored[f'{name}, JAX {version}'] = command | measured
    path.write_text(json.dumps(dict(sorted(stored.items())), indent=2) + '\n')


if __name__ == '__main__':
  main()
