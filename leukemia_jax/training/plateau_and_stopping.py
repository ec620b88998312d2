"""Rules for lowering the learning rate and for stopping; most are Keras'."""

import math
from typing import NamedTuple

# Absolute improvement that the plateau rule asks for, Keras' default.
MIN_DELTA = 1e-4


class Rules(NamedTuple):
  """When to lower the rate and when to stop; see `config.train`.

  Attributes:
    plateau_factor: what the learning rate is multiplied by.
    plateau_patience: epochs without improvement before that.
    stop_patience: epochs without a new best before training stops.
    cosine_epochs: epochs in which the rate falls to zero along half a cosine
      (Loshchilov and Hutter, arXiv:1608.03983, without restarts), in place of
      the plateau rule; 0 for that rule.
  """

  plateau_factor: float
  plateau_patience: int
  stop_patience: int
  cosine_epochs: int = 0


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
  """What to do after an epoch; the learning rate is multiplied by a factor."""

  is_best: bool
  rate_factor: float
  stop: bool


def after_epoch(
  progress: Progress, epoch: int, loss: float, rules: Rules
) -> tuple[Progress, Decision]:
  """Applies Keras' ReduceLROnPlateau and EarlyStopping to one epoch's loss.

  `optax.contrib.reduce_on_plateau` with rtol=0 and atol=1e-4 follows the same
  plateau rule, but scales updates. Here the rate is a value of the state, where
  it is logged, saved and restored.

  Args:
    progress: from the epochs before.
    epoch: this epoch's number, from 0.
    loss: its validation loss.
    rules: the patience of both.

  Returns:
    The new progress and what to do.
  """
  rate_factor = 1.0
  if loss < progress.plateau_best - MIN_DELTA:
    progress = progress._replace(plateau_best=loss, plateau_wait=0)
  else:
    wait = progress.plateau_wait + 1
    if wait >= rules.plateau_patience:
      wait, rate_factor = 0, rules.plateau_factor
    progress = progress._replace(plateau_wait=wait)
  if rules.cosine_epochs:
    before, after = (
      1 + math.cos(math.pi * min(done / rules.cosine_epochs, 1))
      for done in (epoch, epoch + 1)
    )
    rate_factor = after / before if before else 0.0
  is_best = loss < progress.best
  if is_best:
    progress = progress._replace(best=loss, best_epoch=epoch, stop_wait=0)
  else:
    progress = progress._replace(stop_wait=progress.stop_wait + 1)
  stop = progress.stop_wait >= rules.stop_patience and epoch > 0
  return progress, Decision(is_best, rate_factor, stop)
