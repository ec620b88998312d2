"""Keras' Adam: its epsilon is outside the bias correction, optax' is inside."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_keras_adam(
  b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
  """Adam as Keras computes it, without the learning rate.

  The step is sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon): epsilon
  lies outside the bias correction (Kingma and Ba, arXiv:1412.6980, the
  formulation before section 2.1).

  Args:
    b1: decay of the first moment.
    b2: decay of the second moment.
    epsilon: added to the root of the second moment.

  Returns:
    An optax transformation, its state an `optax.ScaleByAdamState`.
  """

  def init(params: optax.Params) -> optax.ScaleByAdamState:
    # Arrays of their own: a step that is given both overwrites them.
    mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    count = jnp.zeros((), jnp.int32)
    return optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    del params
    count = state.count + 1
    mu = jax.tree.map(lambda m, g: m + (g - m) * (1 - b1), state.mu, updates)
    nu = jax.tree.map(
      lambda v, g: v + (g * g - v) * (1 - b2), state.nu, updates
    )
    correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
    step = jax.tree.map(
      lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu
    )
    return step, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(init, update)


def make_optimizer(freeze_backbone: bool) -> optax.GradientTransformation:
  """Keras' Adam; a frozen backbone gets no updates and no moments."""
  adam = scale_by_keras_adam()
  if not freeze_backbone:
    return adam

  def labels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
      lambda path, _: path[0].key == 'backbone', params
    )

  return optax.multi_transform({True: optax.set_to_zero(), False: adam}, labels)
