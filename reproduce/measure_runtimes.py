"""Measures what networks of the published sizes reach in other programs.

    python -m reproduce.measure_runtimes

runs InceptionResNetV2 and NASNetLarge at 224 px in JAX (float32, bfloat16), in
OpenVINO as --runtime=openvino does, and in ONNX Runtime as exported, turn by
turn, and compares their answers. Keeps the results in results/runtimes.json by
network and version of JAX; needs the extras onnx and openvino, a quarter of an
hour and 12 GB on two cores.
"""

import argparse
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from leukemia_jax import devices, memory, parallel
from leukemia_jax.benchmark import turns
from leukemia_jax.inference import exported, openvino_runtime
from leukemia_jax.inference.classifier import Classifier
from reproduce import full_size
from reproduce.stored import RESULTS

NETWORKS = ('inception_resnet_v2', 'nasnet_large')
_IMAGES, _TURNS = 32, 5
# Of ONNX Runtime, which has all cores at work on one.
_BATCH = 8
_PACKAGES = ('jax', 'jax2onnx', 'onnxruntime', 'openvino')


def _in_threads(own: Classifier, images: np.ndarray) -> Callable[[], Any]:
  """All images in small steps side by side, as predictions are made."""
  size, at_once = devices.step_batching(_IMAGES, own.dtype)
  batches = images.reshape(-1, size, *images.shape[1:])

  def step(batch: np.ndarray) -> list[np.ndarray]:
    return [np.asarray(part) for part in own.step(own.variables, batch)]

  # What is compiled once.
  step(batches[0])

  def run() -> list[np.ndarray]:
    jobs = [lambda batch=batch: step(batch) for batch in batches]
    done = list(parallel.in_order(jobs, at_once, 2 * at_once))
    return [np.concatenate(parts) for parts in zip(*done, strict=True)]

  return run


def _in_onnxruntime(
  own: Classifier, images: np.ndarray
) -> Callable[[], list[np.ndarray]]:
  stored = exported.run_onnx(exported.to_onnx(exported.of_classifier(own)))
  batches = images.reshape(-1, _BATCH, *images.shape[1:])

  def run() -> list[np.ndarray]:
    done = [stored(batch) for batch in batches]
    return [np.concatenate(parts) for parts in zip(*done, strict=True)]

  return run


def measure(name: str) -> dict[str, Any]:
  """Images a second, and how far answers are from those of JAX in float32."""
  rng = np.random.default_rng(0)
  smears = exported.smears(full_size.SIZE)
  images = np.resize(smears, (_IMAGES, *smears.shape[1:]))
  images = np.clip(images + rng.integers(-9, 9, images.shape), 0, 255)
  images = images.astype(np.uint8)
  own = full_size.classifier(name)
  runs = {
    'jax_float32': _in_threads(own, images),
    'jax_bfloat16': _in_threads(full_size.classifier(name, 'bfloat16'), images),
    'openvino': _in_threads(openvino_runtime.of_classifier(own), images),
    'onnxruntime': _in_onnxruntime(own, images),
  }
  rates: dict[str, list[float]] = {which: [] for which in runs}
  answers = {}
  for _ in range(_TURNS):
    for which, run in runs.items():

      def answer(which: str = which, run: Callable[[], Any] = run) -> None:
        answers[which] = run()

      rates[which].append(turns.measure_rate(answer, _IMAGES))
  expected = answers['jax_float32']
  spread = np.ptp(expected[1])
  return {
    'command': 'python -m reproduce.measure_runtimes',
    'device': devices.describe(),
    'versions': {name: importlib.metadata.version(name) for name in _PACKAGES},
    'images_per_second': {
      which: float(np.median(values)) for which, values in rates.items()
    },
    # To float32: probabilities, and features by their own range.
    'differences': {
      which: {
        'probabilities': float(np.abs(got[0] - expected[0]).max()),
        'features': float(np.abs(got[1] - expected[1]).max() / spread),
      }
      for which, got in answers.items()
      if which in ('jax_bfloat16', 'openvino')
    },
  }


def main() -> None:
  """Measures, and stores."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', nargs='*', choices=NETWORKS)
  # As commands do.
  memory.keep_freed()
  path = RESULTS / 'runtimes.json'
  version = '.'.join(jax.__version__.split('.')[:2])
  for name in parser.parse_args().only or NETWORKS:
    measured = measure(name)
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored[f'{name}, JAX {version}'] = measured
    path.write_text(json.dumps(dict(sorted(stored.items())), indent=2) + '\n')


if __name__ == '__main__':
  main()
