"""Measures how cost grows with images, their size, the batch and devices.

    python -m reproduce.measure_growth

trains the default network for an epoch on sets of several sizes, held in memory
and streamed, on several simulated devices, and benchmarks it at several sizes
of image and batch. Writes results/growth.json: points, and the line through
them by least squares. Twenty minutes on two cores.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from leukemia_jax import devices
from reproduce.processes import environment
from reproduce.stored import ROOT, store

# Of the default set; and of a set, how many images.
_SETS = (0.2, 0.4, 0.8, 1.6)
_SIZES = (56, 112, 168, 224)
_BATCHES = (4, 8, 16, 32, 64)
_DEVICES = (1, 2, 4, 8)


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


def main() -> None:
  """Measures, and stores."""
  held = [_epoch(f'--config.synthetic.scale={own}') for own in _SETS]
  streamed = [
    _epoch(f'--config.synthetic.scale={own}', '--config.data.stream=True')
    for own in _SETS
  ]
  shared = [
    _epoch('--config.mesh.devices=0', count=count) | {'devices': count}
    for count in _DEVICES
  ]
  costs = ('seconds', 'memory_bytes')
  content = {
    'command': 'python -m reproduce.measure_growth',
    'device': devices.describe(),
    'jax': jax.__version__,
    'images held in memory': _grown(held, 'images', costs),
    'images streamed': _grown(streamed, 'images', costs),
    'pixels of an image': _grown(
      [_step(size, 32) for size in _SIZES],
      'pixels',
      ('image_seconds', 'inference_seconds', 'memory_bytes'),
    ),
    'images of a batch': _grown(
      [_step(112, batch) for batch in _BATCHES],
      'batch',
      ('step_seconds', 'memory_bytes'),
    ),
    'simulated devices': _grown(shared, 'devices', costs),
  }
  store('growth', content)


if __name__ == '__main__':
  main()
