"""Heads on fixed features: many, trained together, by the loop's own step.

What `training.loop.fit` does with one model at a time is done here with all
heads of one dropout rate: one compiled call takes them through an epoch, and
between epochs each follows the rules of its own plateau and early stopping.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import build
from leukemia_jax.build import Network
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.data.splits import PARTS
from leukemia_jax.evaluation import eval_step
from leukemia_jax.training.loop import Schedule
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.plateau_and_stopping import (
  Progress,
  Rules,
  after_epoch,
)
from leukemia_jax.training.state import TrainState, new_state
from leukemia_jax.training.step import (
  epoch_order,
  make_train_step,
  repeat_step,
)


class Run(NamedTuple):
  """A head to be trained: its rate, and whose draws it takes.

  Attributes:
    learning_rate: the first one.
    seed: of its weights, order and dropout.
    wanted: whether to train it. One that is not keeps its place among the
      others: on a GPU a head's last bits depend on how many stand beside it.
  """

  learning_rate: float
  seed: int
  wanted: bool = True


class Outcome(NamedTuple):
  """A trained head.

  Attributes:
    params: of its best epoch.
    epochs: how many it was trained for.
    best_epoch: that of the lowest validation loss, from 1; 0 if no loss was
      finite.
    diverged: whether a loss was not finite.
  """

  params: Any
  epochs: int
  best_epoch: int
  diverged: bool


class TrainedHead(NamedTuple):
  """A trained head with what it gives.

  Attributes:
    seed: of its run.
    outcome: of its training.
    seconds: that its training took.
    sums: losses and counts by part, see `eval_step.Sums`.
    predicted: int, shape (n,), class of each test image.
  """

  seed: int
  outcome: Outcome
  seconds: float
  sums: dict[str, eval_step.Sums]
  predicted: np.ndarray


@dataclasses.dataclass
class _Course:
  """How far each head is, and which of them train on."""

  progress: list[Progress]
  diverged: np.ndarray
  active: np.ndarray
  epochs: np.ndarray

  @classmethod
  def begin(cls, runs: list[Run]) -> '_Course':
    """Before the first epoch."""
    return cls(
      progress=[Progress() for _ in runs],
      diverged=np.zeros(len(runs), bool),
      active=np.array([run.wanted for run in runs]),
      epochs=np.zeros(len(runs), int),
    )

  def end_epoch(
    self,
    epoch: int,
    *,
    train_losses: np.ndarray,
    losses: np.ndarray,
    rules: Rules,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Applies the rules to every active head.

    Returns:
      Whether each is at its best, and what its rate is multiplied by.
    """
    is_best = np.zeros(len(losses), bool)
    factors = np.ones(len(losses), np.float32)
    for i in np.flatnonzero(self.active):
      self.epochs[i] += 1
      if not np.isfinite([losses[i], train_losses[i]]).all():
        self.diverged[i], self.active[i] = True, False
        continue
      self.progress[i], decision = after_epoch(
        self.progress[i], epoch, float(losses[i]), rules
      )
      is_best[i], self.active[i] = decision.is_best, not decision.stop
      factors[i] = decision.rate_factor
    return is_best, factors


class Parts(NamedTuple):
  """A split's indices; in batches for evaluation, with sample weights."""

  train_indices: jax.Array
  batches: tuple[tuple[jax.Array, jax.Array], ...]


def parts_of(indices: list[np.ndarray], batch_size: int) -> Parts:
  """Puts the three parts of a split on the device.

  Args:
    indices: of the images of each part.
    batch_size: images a batch.

  Returns:
    What `Heads` takes.
  """
  # Repeated training images count once in scores.
  batches = [
    eval_step.in_batches(np.unique(part), batch_size) for part in indices
  ]
  return Parts(
    jnp.asarray(indices[0]),
    tuple(jax.tree.map(jnp.asarray, b) for b in batches),
  )


class Heads:
  """Heads of one dropout rate, compiled once for all features of one shape.

  Attributes:
    side_by_side: whether heads that are trained together share a step.
  """

  def __init__(
    self,
    network: Network,
    schedule: Schedule,
    *,
    accumulate: int = 1,
    side_by_side: bool | None = None,
  ):
    """Sets the training up.

    Args:
      network: a head on features that nothing scales.
      schedule: how long.
      accumulate: see `make_train_step`.
      side_by_side: whether heads take a step together, or an epoch one after
        the other; None chooses by the device, see `_one_epoch`.
    """
    if side_by_side is None:
      side_by_side = jax.default_backend() != 'cpu'
    self.side_by_side = side_by_side
    self._network, self._schedule = network, schedule
    self._tx = make_optimizer(freeze_backbone=False)
    # The loop's own, on features that nothing augments.
    self._train_step = make_train_step(
      network, tx=self._tx, augment=None, accumulate=accumulate
    )
    self._eval_step = eval_step.make_eval_step(network)
    self._begin = jax.jit(self._new_states, static_argnames='width')
    self._epoch = jax.jit(self._one_epoch, donate_argnums=0)
    self._score = jax.jit(self._total)

  def _total(
    self, params: Any, data: Dataset, batches: tuple[jax.Array, jax.Array]
  ) -> eval_step.Sums:
    return eval_step.total(
      self._eval_step,
      {'params': params},
      data,
      *batches,
      num_classes=self._network.num_classes,
    )

  def _one_epoch(
    self,
    states: TrainState,
    keys: jax.Array,
    active: jax.Array,
    epoch: jax.Array,
    data: Dataset,
    parts: Parts,
  ) -> tuple[TrainState, eval_step.Sums]:
    """Takes every active head through an epoch, and to validation.

    On a CPU one after the other: a head and its moments then stay in the cache
    over the steps of an epoch, which is three times faster than all side by
    side, and a head that has stopped costs nothing; several calls at once, of
    a head each, keep the cores busy. On a GPU side by side, where one that has
    stopped is carried along.
    """
    batch_size = self._schedule.batch_size
    steps = -(-len(parts.train_indices) // batch_size)
    take_steps = repeat_step(self._train_step, steps)

    def trained(state: TrainState, keys: jax.Array) -> Any:
      order = epoch_order(
        keys[0], epoch, parts.train_indices, batch_size=batch_size
      )
      state, _ = take_steps(state, keys[1], data, *order)
      return state, self._total(state.params, data, parts.batches[1])

    def stopped(state: TrainState, keys: jax.Array) -> Any:
      shapes = jax.eval_shape(trained, state, keys)[1]
      return state, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    return jax.lax.map(
      lambda head: jax.lax.cond(head[2], trained, stopped, *head[:2]),
      (states, keys, active),
      batch_size=len(active) if self.side_by_side else None,
    )

  def _new_states(
    self, keys: jax.Array, rates: jax.Array, width: int
  ) -> TrainState:
    """Heads before their first step."""
    return jax.vmap(
      lambda key, rate: new_state(
        key, self._network.model, self._tx, shape=(width,), learning_rate=rate
      )
    )(keys, rates)

  def fit(
    self,
    runs: list[Run],
    data: Dataset,
    parts: Parts,
    advance: Callable[[int], None],
  ) -> list[Outcome]:
    """Trains heads until the last epoch or until each stops improving.

    Args:
      runs: the heads.
      data: features as images, and labels.
      parts: the indices of a split.
      advance: is told how many epochs of all heads there are fewer to make.

    Returns:
      An outcome a run, by the rules of `training.loop.fit`; of one that is not
      wanted 0 epochs.
    """
    every = [build.make_keys(run.seed) for run in runs]
    states = self._begin(
      jnp.stack([keys.init for keys in every]),
      jnp.array([run.learning_rate for run in runs], jnp.float32),
      width=data.images.shape[-1],
    )
    # Of order and dropout.
    keys = jax.vmap(jax.random.split)(jnp.stack([keys.train for keys in every]))
    best = jax.tree.map(jnp.copy, states.params)
    course = _Course.begin(runs)
    held_out = float(parts.batches[1][1].sum())
    for epoch in range(self._schedule.epochs):
      trained = int(course.active.sum())
      states, sums = self._epoch(
        states, keys, course.active, epoch, data, parts
      )
      is_best, factors = course.end_epoch(
        epoch,
        train_losses=np.asarray(states.sums)[:, 0],
        losses=np.asarray(sums.loss, np.float64) / held_out,
        rules=self._schedule.rules,
      )
      best = _keep(best, states.params, is_best)
      states = states.replace(
        learning_rate=states.learning_rate * factors,
        sums=jnp.zeros_like(states.sums),
      )
      advance(trained)
      if not course.active.any():
        break
    wanted = sum(run.wanted for run in runs)
    advance(wanted * self._schedule.epochs - int(course.epochs.sum()))
    return [
      Outcome(
        jax.tree.map(lambda leaf, i=i: leaf[i], best),
        int(course.epochs[i]),
        course.progress[i].best_epoch + 1,
        bool(course.diverged[i]),
      )
      for i in range(len(runs))
    ]

  def run(
    self,
    runs: list[Run],
    data: Dataset,
    parts: Parts,
    advance: Callable[[int], None],
  ) -> list[TrainedHead]:
    """Trains heads; see `fit` for the arguments.

    Returns:
      Of each run that is wanted its course and what it gives on the three
      parts.
    """
    started = time.perf_counter()
    outcomes = self.fit(runs, data, parts, advance)
    seconds = time.perf_counter() - started
    epochs = sum(outcome.epochs for outcome in outcomes)
    return [
      TrainedHead(
        run.seed,
        outcome,
        # Its share of what all took, compilation included.
        round(seconds * outcome.epochs / epochs, 3),
        *self._predict(outcome.params, data, parts),
      )
      for run, outcome in zip(runs, outcomes, strict=True)
      if run.wanted
    ]

  def _predict(
    self, params: Any, data: Dataset, parts: Parts
  ) -> tuple[dict[str, eval_step.Sums], np.ndarray]:
    """Losses and confusion by part, and predictions of the test part."""
    sums = {
      part: jax.device_get(self._score(params, data, batches))
      for part, batches in zip(PARTS, parts.batches, strict=True)
    }
    indices, sample_weight = (leaf.ravel() for leaf in parts.batches[2])
    logits, _ = self._network.model.apply(
      {'params': params}, data.images[indices], train=False
    )
    predicted = np.asarray(logits.argmax(-1))[np.asarray(sample_weight) > 0]
    return sums, predicted


@functools.partial(jax.jit, donate_argnums=0)
def _keep(best: Any, params: Any, is_best: jax.Array) -> Any:
  """The heads' best weights so far."""

  def chosen(old: jax.Array, new: jax.Array) -> jax.Array:
    where = is_best.reshape(-1, *(1,) * (new.ndim - 1))
    return jnp.where(where, new, old)

  return jax.tree.map(chosen, best, params)
