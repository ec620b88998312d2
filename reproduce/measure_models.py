"""Measures the ports beside Keras: speed, compilation, import of weights.

    python -m reproduce.measure_models

takes about ten minutes on two cores and needs the test extra (Keras on JAX).
Each part runs in a process of its own; models.json keeps what they print.
"""

import argparse
import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ['KERAS_BACKEND'] = 'jax'

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import models, parallel
from leukemia_jax.build import Network
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.metrics import classification, losses
from leukemia_jax.models import layers, nasnet
from leukemia_jax.models.batch_norm import BatchNorm
from leukemia_jax.pretrained import keras_weights
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import TrainState
from leukemia_jax.training.step import make_train_step
from reproduce.stored import RESULTS

_SIZE = 224


def _inputs(batch: int) -> jax.Array:
  return jax.random.uniform(
    jax.random.key(0), (batch, _SIZE, _SIZE, 3), minval=-1.0
  )


def _variables(model: Any) -> Any:
  """Some weights, without compiling what would draw them."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), _inputs(1), train=False)
  )
  return jax.tree.map(
    lambda leaf: rng.uniform(0.01, 0.05, leaf.shape).astype(leaf.dtype), shapes
  )


def inference(batch: int = 16, rounds: int = 5) -> dict[str, Any]:
  """NASNetLarge and Keras' own, same weights, turn by turn."""
  import keras

  theirs = keras.applications.NASNetLarge(
    include_top=False, weights=None, input_shape=(_SIZE, _SIZE, 3)
  )
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'w.weights.h5'
    theirs.save_weights(path)
    variables = jax.device_put(keras_weights.load_weights(path, 'nasnet_large'))
  weights = [
    [v.value for v in part]
    for part in (theirs.trainable_variables, theirs.non_trainable_variables)
  ]
  model, images = models.create('nasnet_large', num_classes=0), _inputs(batch)
  # Arguments, not constants: XLA would work half of it out while compiling.
  calls = {
    'ours': functools.partial(
      jax.jit(lambda v, x: model.apply(v, x, train=False)[0]), variables
    ),
    'keras': functools.partial(
      jax.jit(lambda w, x: theirs.stateless_call(*w, x, training=False)[0]),
      weights,
    ),
  }
  outputs = {name: np.asarray(call(images)) for name, call in calls.items()}
  seconds: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(rounds):
    for name, call in calls.items():
      started = time.perf_counter()
      jax.block_until_ready(call(images))
      seconds[name].append(time.perf_counter() - started)
  rates = {n: batch / float(np.median(s)) for n, s in seconds.items()}
  difference = np.abs(outputs['ours'] - outputs['keras']).max()
  return {
    'batch': batch,
    'images_per_second': rates,
    'ratio': rates['ours'] / rates['keras'],
    'relative_difference': float(difference / np.abs(outputs['keras']).max()),
  }


def _compiled(function: Any, *args: Any) -> dict[str, Any]:
  started = time.perf_counter()
  lowered = jax.jit(function).lower(*args)
  traced = time.perf_counter()
  compiled = lowered.compile()
  seconds = time.perf_counter() - traced
  memory = compiled.memory_analysis()
  assert memory is not None
  return {
    'trace_seconds': round(traced - started, 1),
    'compile_seconds': round(seconds, 1),
    'temporary_bytes': memory.temp_size_in_bytes,
  }


def training(batch: int = 8) -> dict[str, Any]:
  """What compiling NASNetLarge's training step takes."""
  model = models.create('nasnet_large', num_classes=4)
  tx = make_optimizer(False)
  variables = jax.device_put(_variables(model))
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=tx.init(variables['params']),
    learning_rate=jnp.float32(1e-3),
    sums=jnp.zeros(3),
  )
  network = Network(
    model, 'unit', losses.class_objective, classification.confusion_matrix, 4
  )
  step = make_train_step(network, tx=tx, augment=None)
  data = Dataset(
    jnp.zeros((batch, _SIZE, _SIZE, 3), jnp.uint8), jnp.arange(batch) % 4
  )
  batches = jnp.arange(batch)[None], jnp.ones((1, batch))
  return _compiled(step, state, jax.random.key(0), data, *batches)


def scan(scanned: bool, batch: int = 8) -> dict[str, Any]:
  """NASNetLarge's gradient with its equal cells in one loop, or unrolled."""
  model = models.create('nasnet_large', num_classes=0).backbone
  variables = jax.device_put(
    _variables(models.create('nasnet_large', num_classes=0))
  )
  params, stats = (
    variables[kind]['backbone'] for kind in ('params', 'batch_stats')
  )
  filters = model.penultimate_filters // 24
  norm = functools.partial(BatchNorm, train=False, use_scale=True)
  join = functools.partial(layers.concatenate, dtype=jnp.float32, train=False)

  def apply(cell: Any, factor: float, weights: Any, last: Any, before: Any):
    module = nasnet.NASNetCell(
      cell, int(filters * factor), norm, join, jnp.float32
    )
    names = ('params', 'batch_stats')
    return module.apply(dict(zip(names, weights, strict=True)), last, before)

  def loss(params: Any, images: jax.Array) -> jax.Array:
    stem = layers.Conv(model.stem_filters, (3, 3), strides=2, padding='VALID')
    last = stem.apply({'params': params['stem_conv']}, images)
    before: Any = None
    todo = nasnet.cells(model.blocks)
    while todo:
      name, cell, factor = todo.pop(0)
      # From the third on, the cells of a stage have the same shapes.
      group = [name]
      if scanned and name.startswith('normal') and name.endswith('_2'):
        while todo and todo[0][0].startswith('normal'):
          group.append(todo.pop(0)[0])
      weights = [(params[name], stats[name]) for name in group]
      if len(group) > 1:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)

        def step(carry: Any, w: Any, cell: Any = cell, f: float = factor):
          return (apply(cell, f, w, *carry), carry[0]), None

        (last, before), _ = jax.lax.scan(step, (last, before), stacked)
        continue
      output = apply(cell, factor, weights[0], last, before)
      if not name.startswith('reduction'):
        before = last
      last = output
    return jnp.square(last).mean()

  images = _inputs(batch)
  gradient = jax.grad(loss)
  result = _compiled(gradient, params, images)
  call = jax.jit(gradient)
  jax.block_until_ready(call(params, images))
  started = time.perf_counter()
  jax.block_until_ready(call(params, images))
  return result | {'images_per_second': batch / (time.perf_counter() - started)}


def load(path: str) -> dict[str, Any]:
  """What reading InceptionResNetV2's weights takes."""
  started = time.perf_counter()
  keras_weights.load_weights(path, 'inception_resnet_v2')
  # Linux counts kilobytes.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return {
    'file_bytes': pathlib.Path(path).stat().st_size,
    'seconds': round(time.perf_counter() - started, 1),
    'peak_memory_bytes': peak,
  }


def export(path: str) -> dict[str, Any]:
  """Writes the file that `load` reads."""
  model = models.create('inception_resnet_v2', num_classes=0)
  variables = _variables(model)
  keras_weights.export_weights(variables, path, 'inception_resnet_v2')
  return {}


_PARTS = {
  'inference': inference,
  'training': training,
  'scanned': lambda: scan(True),
  'unrolled': lambda: scan(False),
  'load': load,
  'export': export,
}


def main() -> None:
  """Runs all parts, or, in their own processes, one."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--part', choices=_PARTS, help=argparse.SUPPRESS)
  parser.add_argument('--path', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.part:
    paths = (args.path,) if args.path else ()
    print(json.dumps(_PARTS[args.part](*paths)))
    return

  def part(name: str, cache: str = '', path: str = '') -> dict[str, Any]:
    print(f'{name} ...', flush=True)
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'reproduce.measure_models'),
        *(f'--part={name}', f'--path={path}'),
      ],
      env=os.environ | ({'JAX_COMPILATION_CACHE_DIR': cache} if cache else {}),
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])

  result = {
    'command': 'python -m reproduce.measure_models',
    'device': f'{jax.devices()[0].device_kind}, {parallel.cores()} cores',
    'inference': part('inference'),
  }
  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/w.h5'
    part('export', path=path)
    result['load'] = part('load', path=path)
    result['training'] = part('training', cache=folder)
    result['training_cached'] = part('training', cache=folder)
  result |= {name: part(name) for name in ('unrolled', 'scanned')}
  (RESULTS / 'models.json').write_text(json.dumps(result, indent=2) + '\n')
  print(json.dumps(result, indent=2))


if __name__ == '__main__':
  main()
