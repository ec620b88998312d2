"""Keras' Adam, and its rules for lowering the rate and for stopping.

The study's results depend on these forms, and optax has none of them: its
Adam adds epsilon inside the bias correction, its plateau rule is relative.
"""

from typing import NamedTuple

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
    zeros = jax.tree.map(jnp.zeros_like, params)
    count = jnp.zeros((), jnp.int32)
    return optax.ScaleByAdamState(count=count, mu=zeros, nu=zeros)

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
    scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
    step = jax.tree.map(
      lambda m, v: scale * m / (jnp.sqrt(v) + epsilon), mu, nu
    )
    return step, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(init, update)


class Progress(NamedTuple):
  """What the two rules remember between epochs; losses are of validation.

  Attributes:
    plateau_best: lowest loss that counted as an improvement on the plateau.
    plateau_wait: epochs since then, or since the rate was lowered.
    best: lowest loss of all.
    best_epoch: its epoch, from 0; -1 before the first.
    stop_wait: epochs since then.
  """

  plateau_best: float = float('inf')
  plateau_wait: int = 0
  best: float = float('inf')
  best_epoch: int = -1
  stop_wait: int = 0


class Decision(NamedTuple):
  """What to do after an epoch."""

  is_best: bool
  lower_rate: bool
  stop: bool


def after_epoch(
  progress: Progress,
  epoch: int,
  loss: float,
  *,
  plateau_patience: int,
  stop_patience: int,
  min_delta: float = 1e-4,
) -> tuple[Progress, Decision]:
  """Applies Keras' ReduceLROnPlateau and EarlyStopping to one epoch's loss.

  Args:
    progress: from the epochs before.
    epoch: this epoch's number, from 0.
    loss: its validation loss.
    plateau_patience: epochs without improvement before the rate is lowered.
    stop_patience: epochs without a new best before training stops.
    min_delta: absolute improvement that the plateau rule asks for.

  Returns:
    The new progress and what to do.
  """
  lower_rate = False
  if loss < progress.plateau_best - min_delta:
    progress = progress._replace(plateau_best=loss, plateau_wait=0)
  else:
    wait = progress.plateau_wait + 1
    lower_rate = wait >= plateau_patience
    progress = progress._replace(plateau_wait=0 if lower_rate else wait)
  is_best = loss < progress.best
  if is_best:
    progress = progress._replace(best=loss, best_epoch=epoch, stop_wait=0)
  else:
    progress = progress._replace(stop_wait=progress.stop_wait + 1)
  stop = progress.stop_wait >= stop_patience and epoch > 0
  return progress, Decision(is_best, lower_rate, stop)
