"""Measures what a full-size U-Net's training step keeps in memory.

    python results/measure_memory.py

writes results/memory.json: for the step at 224 px and batch 32, plain, with
gradient checkpointing and with accumulation, the bytes of the feature maps that
JAX keeps for the way back (the same on every device), and XLA's own account of
the temporary memory of the compiled step, plain and with checkpointing. XLA's
pass that undoes checkpointing on a CPU is left out. Nothing is trained.
"""

import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import experiment, train
from leukemia_jax.data.dataset import Dataset

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

_VARIANTS: dict[str, dict[str, Any]] = {
  'plain': {},
  'checkpoint': {'model.checkpoint': True},
  'accumulate 4': {'train.accumulate': 4},
  'bfloat16': {'model.dtype': 'bfloat16'},
  'checkpoint, accumulate 4': {
    'model.checkpoint': True,
    'train.accumulate': 4,
  },
}


# Those that XLA compiles too. It takes the pieces of a batch side by side on a
# CPU, so that its account says nothing of accumulation.
_COMPILED = ('plain', 'checkpoint')


def _config(changes: dict[str, Any]) -> Any:
  from configs import unet

  config = unet.get_config('study')
  config.update_from_flattened_dict(changes)
  return config


def kept_bytes(changes: dict[str, Any]) -> int:
  """Feature maps kept from the way there for the way back."""
  config = _config(changes)
  model, objective = experiment.make_model(config, 1), experiment.objective
  size = config.data.image_size
  piece = config.train.batch_size // config.train.accumulate
  images = jax.ShapeDtypeStruct((piece, size, size, 3), jnp.float32)
  masks = jnp.zeros((piece, size, size, 1), jnp.uint8)

  def residuals(params: Any, images: jax.Array) -> Any:
    def loss(params: Any) -> jax.Array:
      logits, _ = model.apply({'params': params}, images, train=True)
      return objective(config)(logits, masks)[0].mean()

    return jax.vjp(loss, params)[1]

  params = jax.eval_shape(
    lambda x: model.init(jax.random.key(0), x, train=False), images
  )['params']
  kept = jax.tree.leaves(jax.eval_shape(residuals, params, images))
  weights = {leaf.shape for leaf in jax.tree.leaves(params)}
  return sum(
    int(np.prod(leaf.shape)) * leaf.dtype.itemsize
    for leaf in kept
    if leaf.shape not in weights
  )


# On a CPU this pass drops the barriers that keep what is to be computed again
# apart from what was computed; devices keep them.
_KEEP_CHECKPOINTS = {'xla_disable_hlo_passes': 'cse_barrier_expander'}


def temporary_bytes(changes: dict[str, Any]) -> int:
  """XLA's temporary memory of one training step."""
  config = _config(changes)
  model = experiment.make_model(config, 1)
  tx = train.make_optimizer(False)
  size, batch = config.data.image_size, config.train.batch_size
  state = train.init_state(
    jax.random.key(0), model, tx, shape=(size, size, 3), learning_rate=1e-3
  )
  step = train.make_train_step(
    apply_fn=model.apply,
    tx=tx,
    augment=None,
    preprocessing='unit',
    objective=experiment.objective(config),
  )
  shape = jax.ShapeDtypeStruct
  data = Dataset(
    shape((batch, size, size, 3), jnp.uint8),
    shape((batch,), jnp.int32),
    shape((batch, size, size, 1), jnp.uint8),
  )
  rows, weights = shape((1, batch), jnp.int32), shape((1, batch), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  lowered = jax.jit(step, donate_argnums=0).lower(
    state, key, data, rows, weights
  )
  compiled = lowered.compile(compiler_options=_KEEP_CHECKPOINTS)
  return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
  """Measures every variant."""
  result = {
    'command': 'python results/measure_memory.py',
    'device': jax.devices()[0].device_kind,
    'model': 'unet, 224 px, batch 32',
    'kept_bytes': {k: kept_bytes(v) for k, v in _VARIANTS.items()},
    'temporary_bytes': {
      name: temporary_bytes(_VARIANTS[name]) for name in _COMPILED
    },
  }
  text = json.dumps(result, indent=2) + '\n'
  (HERE / 'memory.json').write_text(text)
  print(text)


if __name__ == '__main__':
  main()
