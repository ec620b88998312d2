"""Measures how cost grows with images, their size, the batch and devices.

    python -m reproduce.measure_growth

benchmarks the default network at several sizes of image and batch, and trains
it for an epoch on sets of several sizes, held in memory and streamed, and on
several simulated devices. Keeps in results/growth.json for each of them points,
and the line through them by least squares. Half an hour on two cores;
--only='images of a batch' measures one.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from leukemia_jax import devices
from reproduce.processes import environment
from reproduce.stored import ROOT, add

# Of the default set.
_SETS = (0.2, 0.4, 0.8)
_SIZES = (80, 112, 160, 224)
_BATCHES = (4, 8, 16, 32, 64)
_DEVICES = (1, 2, 4, 8)
_OF_AN_EPOCH = ('seconds', 'memory_bytes')


def _run(flags: Iterable[str], content: str, count: int = 1) -> dict[str, Any]:
  """A command's file of results."""
  with tempfile.TemporaryDirectory() as workdir:
    subprocess.run(
      [
        *(sys.executable, 'main.py', f'--workdir={workdir}/run', *flags),
        f'--config.data.cache_dir={workdir}/cache',
      ],
      cwd=ROOT,
      check=True,
      env=environment(
        XLA_FLAGS=f'--xla_force_host_platform_device_count={count}'
      ),
    )
    own: dict[str, Any] = json.loads(
      pathlib.Path(workdir, 'run', content).read_text()
    )
    return own


def _epoch(*flags: str, count: int = 1) -> dict[str, float]:
  """What an epoch takes, and what the whole command held."""
  common = ('--config.train.epochs=1', '--config.report.shortcuts=False')
  own = _run((*common, *flags), 'result.json', count)
  counts = own['data']['counts']
  return {
    'images': sum(counts['train'].values()),
    'set': own['data']['images'],
    'seconds': own['cost']['train_seconds'],
    'memory_bytes': own['cost']['peak_memory_bytes'],
  }


def _step(size: int, batch: int) -> dict[str, float]:
  """What a training step takes, and an image's prediction."""
  own = _run(
    (
      '--mode=benchmark',
      f'--config.data.image_size={size}',
      f'--config.train.batch_size={batch}',
    ),
    'benchmark.json',
  )
  rates = {
    what: own[what]['images_per_second']['median']
    for what in ('training', 'inference')
  }
  return {
    'pixels': size**2,
    'batch': batch,
    'step_seconds': batch / rates['training'],
    'image_seconds': 1 / rates['training'],
    'inference_seconds': 1 / rates['inference'],
    'memory_bytes': own['training']['temporary_bytes'],
  }


def _grown(
  points: list[dict[str, float]], by: str, what: Iterable[str]
) -> dict[str, Any]:
  """Points, and for each cost the line through them over `by`."""
  x = np.array([point[by] for point in points], float)
  lines = {}
  for name in what:
    y = np.array([point[name] for point in points], float)
    slope, fixed = np.polyfit(x, y, 1)
    off = np.abs(fixed + slope * x - y) / y
    lines[name] = {
      'fixed': float(fixed),
      'slope': float(slope),
      'largest_error': float(off.max()),
    }
  return {'by': by, 'points': points, 'lines': lines}


def _by_set(*flags: str) -> dict[str, Any]:
  points = [_epoch(f'--config.synthetic.scale={own}', *flags) for own in _SETS]
  return _grown(points, 'images', _OF_AN_EPOCH)


def _by_devices() -> dict[str, Any]:
  flags = ('--config.mesh.devices=0', f'--config.synthetic.scale={_SETS[0]}')
  points = [
    _epoch(*flags, count=count) | {'devices': count} for count in _DEVICES
  ]
  return _grown(points, 'devices', _OF_AN_EPOCH)


def _by_pixels() -> dict[str, Any]:
  costs = ('image_seconds', 'inference_seconds', 'memory_bytes')
  return _grown([_step(size, 32) for size in _SIZES], 'pixels', costs)


def _by_batch() -> dict[str, Any]:
  costs = ('step_seconds', 'memory_bytes')
  return _grown([_step(112, batch) for batch in _BATCHES], 'batch', costs)


_PARTS: dict[str, Callable[[], dict[str, Any]]] = {
  'pixels of an image': _by_pixels,
  'images of a batch': _by_batch,
  'images held in memory': _by_set,
  'images streamed': lambda: _by_set('--config.data.stream=True'),
  'simulated devices': _by_devices,
}


def main() -> None:
  """Measures, and stores."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', nargs='*', choices=_PARTS)
  args = parser.parse_args()
  for name in args.only or _PARTS:
    measured = _PARTS[name]()
    common = {
      'command': 'python -m reproduce.measure_growth',
      'device': devices.describe(),
      'jax': jax.__version__,
    }
    add('growth', name, common | measured)


if __name__ == '__main__':
  main()
