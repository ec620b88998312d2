"""Measures what the whole study takes, beside the way it was first done.

    python -m reproduce.measure_study --data=path/to/leukemia.zip

runs configs/study.py on the real images with both published backbones, random
and calibrated: 48 heads, from an empty cache. Then it times a few training
steps that run a frozen backbone on every batch, as the study did, and
multiplies them out over the epochs that the 48 heads took. Writes
results/study_cost.json; half an hour on two cores. With --dtype=bfloat16 it
runs the study alone in it, and writes results/study_cost_bfloat16.json.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from leukemia_jax.configs import study as study_config

from leukemia_jax import devices, tasks
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.evaluation import eval_step
from leukemia_jax.study.grid import model_config
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import init_state
from leukemia_jax.training.step import make_train_step
from leukemia_jax.workdir.result import peak_memory_bytes
from reproduce.stored import ROOT, measured_here, store

_STEPS = 3
_NAMES = {'float32': 'study_cost', 'bfloat16': 'study_cost_bfloat16'}
_FLAGS = ('--mode=study', '--config=configs/study.py')


def run_study(
  data: pathlib.Path, folder: pathlib.Path, dtype: str
) -> dict[str, Any]:
  """The whole study by its command: seconds, memory, rows."""
  flags = [
    *_FLAGS,
    f'--workdir={folder}/study',
    f'--config.data.source={data}',
    f'--config.data.cache_dir={folder}/cache',
    f'--config.model.dtype={dtype}',
  ]
  started = time.perf_counter()
  printed = subprocess.run(
    [sys.executable, 'main.py', *flags],
    cwd=ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  ).stdout
  seconds = time.perf_counter() - started
  print(printed)
  peak = peak_memory_bytes(of_children=True)
  rows = [
    json.loads(path.read_text())
    for path in sorted((folder / 'study/rows').glob('*.json'))
  ]
  models = {}
  for name in dict.fromkeys(row['model'] for row in rows):
    of_model = [row for row in rows if row['model'] == name]
    runs = [run for row in of_model for run in row['repeats']]
    models[name] = {
      **of_model[0]['backbone'],
      'heads': len(runs),
      'heads_seconds': float(
        re.search(rf'^{name}: .* trained in (.*) s$', printed, re.M)[1]
      ),
      'epochs': sum(run['epochs'] for run in runs),
    }
  return {
    'seconds': round(seconds, 1),
    'peak_memory_bytes': peak,
    'num_rows': len(rows),
    'images': sum(
      sum(by_class.values()) for by_class in rows[0]['data']['counts'].values()
    ),
    'counts': rows[0]['data']['counts'],
    'fingerprint': rows[0]['provenance']['fingerprint'],
    'models': models,
    'test_accuracies': [
      [run['test']['accuracy'] for run in row['repeats']] for row in rows
    ],
  }


def step_seconds(name: str) -> dict[str, float]:
  """A step that runs a frozen backbone, in training and in validation."""
  config = model_config(study_config.get_config(), name)
  size, batch = config.data.image_size, config.train.batch_size
  network = tasks.make_network(tasks.CLASSIFY, config, 4)
  tx = make_optimizer(freeze_backbone=True)
  state = init_state(
    jax.random.key(0),
    network.model,
    tx,
    shape=(size, size, 3),
    learning_rate=1e-3,
  )
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
  data = Dataset(jnp.asarray(pixels), jnp.arange(batch) % 4)
  step = jax.jit(make_train_step(network, tx=tx, augment=None))
  scorer = eval_step.make_eval_step(network)
  indices, sample_weight = jnp.arange(batch), jnp.ones(batch)
  sums = eval_step.zero_sums(4)
  calls = {
    'train': lambda: step(
      state, jax.random.key(1), data, indices[None], sample_weight[None]
    ),
    'validation': lambda: scorer(
      state.variables(), data, indices, sample_weight, sums
    ),
  }
  taken = {}
  for part, call in calls.items():
    jax.block_until_ready(call())
    started = time.perf_counter()
    for _ in range(_STEPS):
      jax.block_until_ready(call())
    taken[part] = round((time.perf_counter() - started) / _STEPS, 3)
  return taken


def compared(result: dict[str, Any]) -> dict[str, Any]:
  """Adds what a backbone in every epoch takes, by steps and at our pace."""
  batch = study_config.get_config().train.batch_size
  counts = {
    part: sum(result['counts'][part].values())
    for part in ('train', 'validation')
  }
  by_steps = at_our_pace = 0.0
  for name, facts in result['models'].items():
    facts['step_seconds'] = step_seconds(name)
    by_steps += facts['epochs'] * sum(
      -(-count // batch) * facts['step_seconds'][part]
      for part, count in counts.items()
    )
    images = facts['epochs'] * sum(counts.values())
    at_our_pace += images / facts['images_per_second']
  return {
    **result,
    'steps_timed': _STEPS,
    'every_epoch_seconds': round(by_steps),
    'ratio': round(by_steps / result['seconds'], 1),
    # As if every epoch ran the backbone as fast as the features were made.
    'every_epoch_seconds_at_our_pace': round(at_our_pace),
    'ratio_at_our_pace': round(at_our_pace / result['seconds'], 1),
  }


def main() -> None:
  """Measures both ways."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--dtype', choices=_NAMES, default='float32')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    result = run_study(args.data.resolve(), pathlib.Path(folder), args.dtype)
  if args.dtype == 'float32':
    result = compared(result)
  command = 'python -m reproduce.measure_study --data=leukemia.zip'
  content = {
    'command': f'{command} --dtype={args.dtype}',
    'device': devices.describe(),
    **result,
  }
  store(measured_here(_NAMES[args.dtype]), content)


if __name__ == '__main__':
  main()
