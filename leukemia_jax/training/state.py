"""All that changes while training, as one pytree of arrays."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


class TrainState(flax.struct.PyTreeNode):
  """All that changes while training, as arrays.

  Attributes:
    step: int32, steps done.
    params: the model's parameters, float32.
    batch_stats: the batch norms' moving statistics, float32.
    opt_state: the optimizer's moments.
    learning_rate: float32; it falls between epochs.
    sums: float32 (3,): loss, correct answers and images of this epoch so
      far.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  learning_rate: jax.Array
  sums: jax.Array

  def variables(self) -> dict[str, Any]:
    """What `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def new_state(
  key: jax.Array,
  model: Any,
  tx: optax.GradientTransformation,
  *,
  shape: tuple[int, ...],
  learning_rate: float | jax.Array,
) -> TrainState:
  """Draws the parameters of a new run.

  Args:
    key: PRNG key.
    model: see `models.create`; or a head.
    tx: from `make_optimizer`.
    shape: of an image, or of a head's features.
    learning_rate: the first one.

  Returns:
    The state before the first step.
  """
  variables = model.init(key, jnp.zeros((1, *shape)), train=False)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables.get('batch_stats', {}),
    opt_state=tx.init(variables['params']),
    learning_rate=jnp.asarray(learning_rate, jnp.float32),
    sums=jnp.zeros(3),
  )


def init_state(key: jax.Array, *args: Any, **fields: Any) -> TrainState:
  """`new_state`, compiled without optimisation: it runs once.

  Optimising this code takes 12 s, running it as it is, none.
  """
  draw = jax.jit(
    lambda key: new_state(key, *args, **fields),
    compiler_options={'xla_backend_optimization_level': 0},
  )
  return draw(key)
