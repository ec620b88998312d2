"""Measures full-size networks at 224 px beside other libraries'.

    python -m reproduce.measure_speed

runs --mode=benchmark for each network and dtype, where timm, torch and keras
are installed beside this package, and keeps the results in results/speeds.json
by network, dtype and version of JAX: run it in an environment for each. Five to
ten minutes each on two cores; --only='NASNetLarge, bfloat16' measures one.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import jax

from reproduce.rows import typed_command
from reproduce.stored import ROOT, add


def _flags(
  config: str, batch: int, dtype: str, compare: str
) -> tuple[str, ...]:
  return (
    '--mode=benchmark',
    f'--config=configs/{config}',
    '--config.data.image_size=224',
    f'--config.train.batch_size={batch}',
    f'--config.model.dtype={dtype}',
    f'--compare={compare}',
  )


_INCEPTION = 'inception_resnet_v2.py', 8
_NASNET = 'nasnet_large.py', 8
_UNET = 'unet.py:study', 4
# Flags by network and dtype. Beside NASNetLarge all take more than 24 GB.
NETWORKS = {
  'InceptionResNetV2, bfloat16': _flags(*_INCEPTION, 'bfloat16', 'timm,keras'),
  'InceptionResNetV2, float32': _flags(*_INCEPTION, 'float32', 'timm'),
  'NASNetLarge, bfloat16': _flags(*_NASNET, 'bfloat16', 'timm'),
  'NASNetLarge, bfloat16, beside Keras': _flags(
    *_NASNET, 'bfloat16', 'keras_jax'
  ),
  'NASNetLarge, float32': _flags(*_NASNET, 'float32', 'timm'),
  'U-Net, bfloat16': _flags(*_UNET, 'bfloat16', 'torch'),
  'U-Net, float32': _flags(*_UNET, 'float32', 'torch'),
}


def main() -> None:
  """Measures, and stores."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', nargs='*', choices=NETWORKS)
  args = parser.parse_args()
  version = '.'.join(jax.__version__.split('.')[:2])
  for name in args.only or NETWORKS:
    flags = NETWORKS[name]
    with tempfile.TemporaryDirectory() as folder:
      workdir = pathlib.Path(folder) / 'speed'
      subprocess.run(
        [sys.executable, 'main.py', f'--workdir={workdir}', *flags],
        cwd=ROOT,
        check=True,
      )
      measured = json.loads((workdir / 'benchmark.json').read_text())
    command = {'command': typed_command('speed', flags)}
    add('speeds', f'{name}, JAX {version}', command | measured)


if __name__ == '__main__':
  main()
