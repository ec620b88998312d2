"""Compiled calls of training steps: how long, and what became of them."""

import dataclasses
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from leukemia_jax import sharding
from leukemia_jax.errors import InputError
from leukemia_jax.training.state import TrainState
from leukemia_jax.training.step import StepMetrics, TrainStep, repeat_step

# Calls that may be under way before the oldest one's losses are looked at.
_AHEAD = 8


class DivergedError(InputError):
  """The loss is no longer a finite number."""


def diverged(what: str, step: int, rate: float) -> DivergedError:
  """The error for what is not finite at a step."""
  return DivergedError(
    f'{what} at step {step} with learning rate {rate:g}; the last good '
    'checkpoint is kept. Lower config.train.learning_rate and use a new '
    '--workdir'
  )


@dataclasses.dataclass
class TrainingCost:
  """What a run took, from its start or from where it was resumed."""

  compile_seconds: float = 0.0  # of the training step
  train_seconds: float = 0.0
  images: int = 0
  resumed: bool = False


def plan(
  step: int, end: int, *, steps_per_call: int, checkpoint_steps: int
) -> Iterator[tuple[int, bool]]:
  """Divides an epoch into calls, of two lengths at most: each is compiled.

  Args:
    step: the first.
    end: of the epoch.
    steps_per_call: steps of every call but the last.
    checkpoint_steps: a checkpoint follows the call that holds such a multiple.

  Yields:
    The steps of a call, and whether a checkpoint follows it; none does at the
    end, where the epoch has its own.
  """
  while step < end:
    count = min(steps_per_call, end - step)
    step += count
    yield count, step % checkpoint_steps < count and step < end


class InflightSteps:
  """Looks at steps' metrics a little late, so that dispatch never waits."""

  def __init__(self, rate: float) -> None:
    self._rate = rate
    self._waiting: deque[tuple[int, StepMetrics]] = deque()
    self.summary = ''

  def add(self, step: int, reported: StepMetrics) -> None:
    """Adds the steps of a call, the first of which is `step`."""
    self._waiting.append((step, reported))
    if len(self._waiting) > _AHEAD:
      self._look()

  def drain(self) -> None:
    """Waits for all steps.

    Raises:
      DivergedError: a loss is not finite.
    """
    while self._waiting:
      self._look()

  def _look(self) -> None:
    step, reported = self._waiting.popleft()
    # Whole: to take one value on the device would be a program of its own.
    losses, accuracies = (
      np.asarray(reported.loss),
      np.asarray(reported.accuracy),
    )
    for i, loss in enumerate(losses):
      if not np.isfinite(loss):
        raise diverged(f'the loss is {loss}', step + i + 1, self._rate)
    self.summary = f'loss {losses[-1]:.3f}  accuracy {accuracies[-1]:.3f}  '


class CompiledSteps:
  """Compiled calls of one or more training steps, and what they took."""

  def __init__(
    self,
    train_step: TrainStep,
    compiler_options: dict[str, str] | None,
    mesh: Mesh,
    cost: TrainingCost,
  ):
    self._train_step, self._options = train_step, compiler_options
    self._mesh = mesh
    self._compiled: dict[int, TrainStep] = {}
    self._cost = cost

  def __call__(
    self, count: int, state: TrainState, *args: Any
  ) -> tuple[TrainState, StepMetrics]:
    """Takes `count` steps in one call."""
    if count not in self._compiled:
      started = time.perf_counter()
      call = jax.jit(
        repeat_step(self._train_step, count),
        donate_argnums=0,
        out_shardings=sharding.on_all(self._mesh),
        compiler_options=self._options,
      )
      self._compiled[count] = call.lower(state, *args).compile()
      self._cost.compile_seconds += time.perf_counter() - started
    return self._compiled[count](state, *args)
