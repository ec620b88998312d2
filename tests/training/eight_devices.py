r"""Trains on all of eight simulated devices, and on one.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 \
      python tests/training/eight_devices.py MODEL

Prints a line of JSON: losses of twenty steps on each, and the difference of the
first one's gradients, relative to their norm.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from leukemia_jax.configs import default, unet

from leukemia_jax import build, sharding, tasks
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.training.calls import CompiledSteps, TrainingCost
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import init_state
from leukemia_jax.training.step import compiler_options, make_train_step

STEPS, BATCH = 20, 16
# Adam's first steps are little more than the signs of gradients, and those near
# zero have that of their rounding: the larger the rate, the sooner runs part.
RATE = 1e-4
# Few pixels: where rounding of a batch norm's statistics takes the input of a
# ReLU across zero, that pixel's gradient changes whole.
SIZES = {'inception_resnet_v2': 96, 'unet': 32, 'unet_fpn': 32}


def small_config(model):
  """A small network of a kind, with all that a step may hold."""
  masks = model.startswith('unet')
  config = (unet if masks else default).get_config()
  config.model.name, config.model.width = model, 0.125
  config.model.preprocess = 'unit'
  if masks:
    config.model.depth, config.model.batch_norm = 2, model == 'unet'
  return config


def bright_set(size, masks):
  """Two batches of it: noise whose brightest channel is its class."""
  rng, count = np.random.default_rng(0), 2 * BATCH
  labels = rng.integers(0, 3, count).astype(np.int32)
  images = rng.integers(0, 120, (count, size, size, 3), np.uint8)
  images[np.arange(count), :, :, labels] += 60
  cells = (images[..., :1] > 90).astype(np.uint8)
  return Dataset(
    jnp.asarray(images),
    jnp.asarray(labels),
    jnp.asarray(cells) if masks else None,
  )


def train(config, devices):
  """Losses of all steps, and the first one's gradient, on some devices."""
  size = SIZES[config.model.name]
  task = tasks.for_model(config.model.name)
  inputs = build.inputs(config, task.targets)
  network = tasks.make_network(task, config, task.num_outputs(3))
  mesh, tx = sharding.make_mesh(devices, BATCH), make_optimizer(False)
  state = init_state(
    *(inputs.keys.init, network.model, tx),
    shape=(size, size, 3),
    learning_rate=RATE,
  )
  state, key, data = jax.device_put(
    (state, inputs.keys.train, bright_set(size, task.targets == 'masks')),
    sharding.on_all(mesh),
  )
  indices = jnp.arange(2 * BATCH, dtype=jnp.int32).reshape(2, BATCH)
  # The last batch is filled up.
  weights = jnp.ones((2, BATCH)).at[1, 13:].set(0)
  order = jax.device_put((indices, weights), sharding.by_batch(mesh, axis=1))
  pieces = 2 if config.model.name == 'unet_fpn' else 1
  step = make_train_step(network, tx=tx, augment=None, accumulate=pieces)
  take_steps = CompiledSteps(
    step,
    compiler_options(config.model.name, pieces),
    mesh,
    TrainingCost(),
  )
  losses, moments = [], None
  for _ in range(STEPS):
    state, metrics = take_steps(1, state, key, data, *order)
    losses.append(float(metrics.loss[0]))
    if moments is None:
      # Adam's first moment is the gradient then, but for a factor.
      moments = jax.device_get(optax.tree.get(state.opt_state, 'mu'))
  return losses, ravel_pytree(moments)[0]


def main():
  """Compares."""
  config = small_config(sys.argv[1])
  (one, gradient), (eight, summed) = (train(config, n) for n in (1, 0))
  apart = float(jnp.linalg.norm(gradient - summed) / jnp.linalg.norm(gradient))
  print(json.dumps({'one': one, 'eight': eight, 'gradient': apart}))


if __name__ == '__main__':
  main()
