"""Measures what networks reach in other programs, and whether they agree.

    python -m reproduce.measure_runtimes --run=runs/first

runs InceptionResNetV2 and NASNetLarge at 224 px in JAX (float32, bfloat16), in
OpenVINO as --runtime=openvino does, and in ONNX Runtime as exported, turn by
turn; then compares what the finished run of the README's first command says of
new patients in JAX and in OpenVINO. Keeps the results in results/runtimes.json
by network and version of JAX; needs the extras onnx and openvino, a quarter of
an hour and 12 GB on two cores.
"""

import argparse
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from PIL import Image

from leukemia_jax import devices, memory, parallel, timing
from leukemia_jax.data import decode
from leukemia_jax.inference import (
  classifier,
  exported,
  loading,
  openvino_runtime,
)
from leukemia_jax.inference.classifier import Classifier
from leukemia_jax.metrics import outliers
from leukemia_jax.workdir import saved
from reproduce import drawn_fields, full_size
from reproduce.stored import add

NETWORKS = ('inception_resnet_v2', 'nasnet_large')
_IMAGES, _TURNS = 32, 5
# Of ONNX Runtime, which has all cores at work on one.
_BATCH = 8
# Of each class, whose answers are compared.
_PATIENTS = 16
_PACKAGES = ('jax', 'jax2onnx', 'onnxruntime', 'openvino')


def _in_threads(own: Classifier, images: np.ndarray) -> Callable[[], Any]:
  """All images in small steps side by side, as predictions are made."""
  size, at_once = devices.step_batching(_IMAGES, own.cpu_batch)
  batches = images.reshape(-1, size, *images.shape[1:])

  def run() -> list[np.ndarray]:
    jobs = [
      lambda batch=batch: [
        np.asarray(part) for part in own.step(own.variables, batch)
      ]
      for batch in batches
    ]
    done = list(parallel.in_order(jobs, at_once, 2 * at_once))
    return [np.concatenate(parts) for parts in zip(*done, strict=True)]

  return run


def _in_onnxruntime(
  own: Classifier, images: np.ndarray
) -> Callable[[], object]:
  stored = exported.run_onnx(exported.to_onnx(exported.of_classifier(own)))
  batches = images.reshape(-1, _BATCH, *images.shape[1:])
  return lambda: [stored(batch) for batch in batches]


def speeds(name: str) -> dict[str, float]:
  """Images a second of a network of random weights, in each program."""
  images = np.resize(
    exported.smears(full_size.SIZE),
    (_IMAGES, full_size.SIZE, full_size.SIZE, 3),
  )
  own = full_size.classifier(name)
  step = openvino_runtime.compile_network(own.step, dtype=devices.fast_dtype())
  calls = {
    'jax_float32': _in_threads(own, images),
    'jax_bfloat16': _in_threads(full_size.classifier(name, 'bfloat16'), images),
    'openvino': _in_threads(
      own._replace(step=step, cpu_batch=openvino_runtime.BATCH), images
    ),
    'onnxruntime': _in_onnxruntime(own, images),
  }
  # Only now: converting clears what JAX compiled. Then JAX' own.
  for which in ('openvino', 'onnxruntime', 'jax_float32', 'jax_bfloat16'):
    calls[which]()
  rates: dict[str, list[float]] = {which: [] for which in calls}
  for _ in range(_TURNS):
    for which, call in calls.items():
      rates[which].append(timing.measure_rate(call, _IMAGES))
  return {which: float(np.median(own)) for which, own in rates.items()}


def agreement(run: pathlib.Path) -> dict[str, Any]:
  """What a run says of new patients in OpenVINO, beside JAX."""
  trained = saved.load_trained(run)
  fields = drawn_fields.of_new_patients(_PATIENTS).images
  answers, distances = [], []
  for runtime in (loading.JAX, loading.OPENVINO):
    loaded = loading.load([trained], [run], trained.config, runtime=runtime)
    (own,) = loaded.models.classifiers
    images = np.stack(
      [
        decode.to_scale(Image.fromarray(field), own.image_size, 1.0)
        for field in fields
      ]
    )
    outputs = _in_threads(own, images)()
    answers.append(classifier.answer([own], [outputs]))
    distances.append(
      outliers.distances(own.detector, outputs[1]) / own.farthest
    )
  first, second = (a.probabilities for a in answers)
  labels, flags = (
    [a.probabilities.argmax(1) for a in answers],
    [np.array(a.flags()) for a in answers],
  )
  return {
    'images': len(fields),
    'same_class': float((labels[0] == labels[1]).mean()),
    'same_flags': float((flags[0] == flags[1]).mean()),
    'flagged': [float((own != classifier.OK).mean()) for own in flags],
    'largest_probability': float(np.abs(first - second).max()),
    'largest_distance': float(np.abs(distances[0] - distances[1]).max()),
  }


def main() -> None:
  """Measures, and stores."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--run', type=pathlib.Path, required=True)
  parser.add_argument('--only', nargs='*', choices=NETWORKS, default=NETWORKS)
  args = parser.parse_args()
  # As commands do.
  memory.keep_freed()
  memory.collect_rarely()
  version = '.'.join(jax.__version__.split('.')[:2])
  common = {
    'command': 'python -m reproduce.measure_runtimes --run=runs/first',
    'device': devices.describe(),
    'versions': {name: importlib.metadata.version(name) for name in _PACKAGES},
  }
  agreed = agreement(args.run)
  add('runtimes', f'agreement, JAX {version}', common | agreed)
  for name in args.only:
    rates = {'images_per_second': speeds(name)}
    add('runtimes', f'{name}, JAX {version}', common | rates)


if __name__ == '__main__':
  main()
