"""Measures what a full-size U-Net's training step stores in memory.

    python -m reproduce.measure_memory

writes results/memory.json: for the step at 224 px and batch 32, plain, with
rematerialisation and with accumulation, the bytes of the activations that JAX
stores for the backward pass (the same on every device), and XLA's own account
of the temporary memory of the compiled step. Nothing is trained.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from leukemia_jax.configs import unet

from leukemia_jax import tasks
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import init_state
from leukemia_jax.training.step import compiler_options, make_train_step
from reproduce.stored import RESULTS

_VARIANTS: dict[str, dict[str, Any]] = {
  'plain': {},
  'remat': {'model.remat': True},
  'accumulate 4': {'train.accumulate': 4},
  'bfloat16': {'model.dtype': 'bfloat16'},
  'remat, accumulate 4': {
    'model.remat': True,
    'train.accumulate': 4,
  },
}
# Those that XLA compiles too.
_COMPILED = ('plain', 'remat', 'accumulate 4')


def _config(changes: dict[str, Any]) -> Any:
  config = unet.get_config('study')
  config.update_from_flattened_dict(changes)
  return config


def stored_bytes(changes: dict[str, Any]) -> int:
  """Activations stored by the forward pass for the backward pass."""
  config = _config(changes)
  network = tasks.make_network(tasks.SEGMENT, config, 1)
  size = config.data.image_size
  piece = config.train.batch_size // config.train.accumulate
  images = jax.ShapeDtypeStruct((piece, size, size, 3), jnp.float32)
  masks = jnp.zeros((piece, size, size, 1), jnp.uint8)

  def residuals(params: Any, images: jax.Array) -> Any:
    def loss(params: Any) -> jax.Array:
      logits, _ = network.model.apply({'params': params}, images, train=True)
      return network.objective(logits, masks)[0].mean()

    return jax.vjp(loss, params)[1]

  params = jax.eval_shape(
    lambda x: network.model.init(jax.random.key(0), x, train=False), images
  )['params']
  stored = jax.tree.leaves(jax.eval_shape(residuals, params, images))
  shapes = {leaf.shape for leaf in jax.tree.leaves(params)}
  return sum(
    int(np.prod(leaf.shape)) * leaf.dtype.itemsize
    for leaf in stored
    if leaf.shape not in shapes
  )


def temporary_bytes(changes: dict[str, Any]) -> int:
  """XLA's temporary memory of one training step."""
  config = _config(changes)
  network = tasks.make_network(tasks.SEGMENT, config, 1)
  tx = make_optimizer(False)
  size, batch = config.data.image_size, config.train.batch_size
  state = init_state(
    jax.random.key(0),
    network.model,
    tx,
    shape=(size, size, 3),
    learning_rate=1e-3,
  )
  # Random weights: images are scaled to [0, 1].
  step = make_train_step(
    network._replace(preprocessing='unit'),
    tx=tx,
    augment=None,
    accumulate=config.train.accumulate,
  )
  shape = jax.ShapeDtypeStruct
  data = Dataset(
    shape((batch, size, size, 3), jnp.uint8),
    shape((batch,), jnp.int32),
    shape((batch, size, size, 1), jnp.uint8),
  )
  indices, sample_weight = (
    shape((1, batch), jnp.int32),
    shape((1, batch), jnp.float32),
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  lowered = jax.jit(step, donate_argnums=0).lower(
    state, key, data, indices, sample_weight
  )
  compiled = lowered.compile(
    compiler_options(config.model.name, config.train.accumulate)
  )
  return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
  """Measures every variant."""
  result = {
    'command': 'python -m reproduce.measure_memory',
    'device': jax.devices()[0].device_kind,
    'model': 'unet, 224 px, batch 32',
    'stored_bytes': {k: stored_bytes(v) for k, v in _VARIANTS.items()},
    'temporary_bytes': {
      name: temporary_bytes(_VARIANTS[name]) for name in _COMPILED
    },
  }
  text = json.dumps(result, indent=2) + '\n'
  (RESULTS / 'memory.json').write_text(text)
  print(text)


if __name__ == '__main__':
  main()
