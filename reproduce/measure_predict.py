"""Measures how much of a prediction's time is the network's own.

    python -m reproduce.measure_predict --run=runs/first

runs the full-size InceptionResNetV2 at 224 px over JPEG files held in memory,
as --mode=predict does, in turns with the network alone on the same batches;
then --mode=predict with the finished run of the README's first command on
10,000 files, whose memory is followed, beside decoding alone. Writes
results/predict.json; a quarter of an hour on two cores.
"""

import concurrent.futures
import io
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
from PIL import Image

from leukemia_jax import devices, memory, parallel
from leukemia_jax.data import decode, synthetic, synthetic_cells
from leukemia_jax.inference import inputs, prediction
from leukemia_jax.inference.prediction import Models
from leukemia_jax.workdir import saved
from reproduce import full_size
from reproduce.processes import resident_bytes
from reproduce.stored import ROOT, measure_run

_BATCH, _IMAGES, _TURNS = 32, 64, 7
_FILES, _DIFFERENT = 10_000, 50


def _files(count: int, side: int) -> list[bytes]:
  """JPEG files of synthetic smears, of a camera's size."""
  drawn = []
  for i in range(count):
    image, _ = synthetic.render_image(
      jax.random.key(3), i, i % 4, i, spec=synthetic_cells.SmearSpec()
    )
    stream = io.BytesIO()
    large = Image.fromarray(image).resize((side, side))
    large.save(stream, 'JPEG', quality=90)
    drawn.append(stream.getvalue())
  return drawn


def _whole() -> dict[str, Any]:
  """Images a second of the whole way, and of the network alone, in turns."""
  # As the command does.
  memory.keep_freed()
  own = full_size.classifier('inception_resnet_v2')
  files = _files(_IMAGES, 512)
  listed = [inputs.Image(str(i), lambda x=x: x) for i, x in enumerate(files)]
  both = Models([own], None, decode.DEFAULT, 1.0)
  size, _ = devices.step_batching(_BATCH, own.cpu_batch)
  squares = np.stack([decode.read(x, full_size.SIZE) for x in files])
  batches = squares.reshape(-1, size, *squares.shape[1:])
  prediction.compile_steps(both, size)

  def alone(batch: np.ndarray) -> None:
    jax.block_until_ready(own.step(own.variables, batch))

  speeds: dict[str, list[float]] = {'predict': [], 'network': []}
  for _ in range(_TURNS):
    began = time.perf_counter()
    # As many batches at once as `predict` has under way.
    with concurrent.futures.ThreadPoolExecutor(parallel.cores()) as pool:
      list(pool.map(alone, batches))
    speeds['network'].append(_IMAGES / (time.perf_counter() - began))
    began = time.perf_counter()
    for _ in prediction.predict(both, listed, batch_size=_BATCH):
      pass
    speeds['predict'].append(_IMAGES / (time.perf_counter() - began))
  # By turns: a machine that others use is slower at times.
  ratios = np.divide(speeds['predict'], speeds['network'])
  return {
    'images_per_second': {
      name: float(np.median(values)) for name, values in speeds.items()
    },
    'ratio': float(np.median(ratios)),
    'batch': size,
  }


def _many(run: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
  """10,000 files through the command."""
  files = _files(_DIFFERENT, 512)
  images = folder / 'images'
  images.mkdir()
  for i in range(_FILES):
    (images / f'{i:05}.jpg').write_bytes(files[i % _DIFFERENT])
  began = time.perf_counter()
  process = subprocess.Popen(
    [
      *(sys.executable, 'main.py', '--mode=predict'),
      f'--checkpoint={run.resolve()}',
      f'--input={images}',
      f'--workdir={folder / "w"}',
    ],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  table, memory = folder / 'w/predictions.csv', {}
  while process.poll() is None:
    if table.exists():
      with table.open('rb') as stream:
        done = sum(1 for _ in stream) - 1
      # What is compiled and opened once is there by then.
      if done > _FILES // 10:
        memory[done] = resident_bytes(process.pid)
    time.sleep(1)
  assert process.returncode == 0
  seconds = time.perf_counter() - began
  size = saved.read_config(run).data.image_size
  began = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(parallel.cores()) as pool:
    list(pool.map(lambda x: decode.read(x, size), files * 10))
  decoding = (time.perf_counter() - began) / (10 * _DIFFERENT)
  half = [own for done, own in memory.items() if done < _FILES / 2]
  return {
    'images': _FILES,
    'seconds': round(seconds, 1),
    'images_per_second': _FILES / seconds,
    'decoding_share': decoding * _FILES / seconds,
    'memory_bytes': {
      'first_half': max(half),
      'whole': max(own for own in memory.values()),
    },
  }


def measure(run: pathlib.Path) -> dict[str, Any]:
  """Both."""
  with tempfile.TemporaryDirectory() as folder:
    return {
      'command': 'python -m reproduce.measure_predict --run=runs/first',
      'full_size': _whole(),
      'default': _many(run, pathlib.Path(folder)),
    }


if __name__ == '__main__':
  measure_run(__doc__, 'predict', measure)
