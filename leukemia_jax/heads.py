"""Heads on fixed features: many, trained together, by the loop's own step.

What `train.fit` does with one model at a time is done here with all heads of
one dropout rate: one compiled call takes them through an epoch, and between
epochs each follows the rules of its own plateau and early stopping.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from leukemia_jax import (
  evaluate,
  experiment,
  metrics,
  models,
  optimizer,
  train,
)
from leukemia_jax.data import splits
from leukemia_jax.data.dataset import Dataset


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


class Parts(NamedTuple):
  """A split's rows, in batches for evaluation: ((rows, weights), ...)."""

  train_rows: jax.Array
  batches: tuple[tuple[jax.Array, jax.Array], ...]


def parts_of(rows: list[np.ndarray], batch_size: int) -> Parts:
  """Puts the three parts of a split on the device.

  Args:
    rows: row numbers in the set, for each part.
    batch_size: images a batch.

  Returns:
    What `Heads` takes.
  """
  # Repeated training images count once in scores.
  batches = [evaluate.in_batches(np.unique(part), batch_size) for part in rows]
  return Parts(
    jnp.asarray(rows[0]), tuple(jax.tree.map(jnp.asarray, b) for b in batches)
  )


class Heads:
  """Heads of one dropout rate, compiled once for all features of one shape."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    *,
    class_names: tuple[str, ...],
    dropout_rate: float,
    side_by_side: bool | None = None,
  ):
    """Sets the training up.

    Args:
      config: the study; its `train` and `data.benign_class` are taken.
      class_names: names of the classes.
      dropout_rate: of the heads.
      side_by_side: whether heads take a step together, or an epoch one after
        the other; None chooses by the device, see `_one_epoch`.
    """
    if side_by_side is None:
      side_by_side = jax.default_backend() != 'cpu'
    self._side_by_side = side_by_side
    self._config, self._class_names = config, class_names
    self._model = models.Head(len(class_names), dropout_rate)
    objective = experiment.objective(config)
    self._tx = train.make_optimizer(freeze_backbone=False)
    # The loop's own, on features that nothing scales or augments.
    self._train_step = train.make_train_step(
      apply_fn=self._model.apply,
      tx=self._tx,
      augment=None,
      preprocessing=None,
      objective=objective,
      accumulate=config.train.accumulate,
    )
    self._eval_step = evaluate.make_eval_step(
      apply_fn=self._model.apply, preprocessing=None, objective=objective
    )
    self._begin = jax.jit(self._new_states, static_argnames='width')
    self._epoch = jax.jit(self._one_epoch, donate_argnums=0)
    self._score = jax.jit(self._total)

  def _total(
    self, params: Any, data: Dataset, batches: tuple[jax.Array, jax.Array]
  ) -> evaluate.Sums:
    return evaluate.total(
      self._eval_step,
      {'params': params},
      data,
      *batches,
      num_classes=len(self._class_names),
    )

  def _one_epoch(
    self,
    states: train.TrainState,
    keys: jax.Array,
    active: jax.Array,
    epoch: jax.Array,
    data: Dataset,
    parts: Parts,
  ) -> tuple[train.TrainState, evaluate.Sums]:
    """Takes every active head through an epoch, and to validation.

    On a CPU one after the other: a head and its moments then stay in the cache
    over the steps of an epoch, which is three times faster than all side by
    side, and a head that has stopped costs nothing. On a GPU side by side,
    where one that has stopped is carried along.
    """
    batch_size = self._config.train.batch_size
    steps = -(-len(parts.train_rows) // batch_size)
    take_steps = train.repeat_step(self._train_step, steps)

    def trained(state: train.TrainState, keys: jax.Array) -> Any:
      order = train.epoch_order(
        keys[0], epoch, parts.train_rows, batch_size=batch_size
      )
      state, _ = take_steps(state, keys[1], data, *order)
      return state, self._total(state.params, data, parts.batches[1])

    def stopped(state: train.TrainState, keys: jax.Array) -> Any:
      shapes = jax.eval_shape(trained, state, keys)[1]
      return state, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    return jax.lax.map(
      lambda head: jax.lax.cond(head[2], trained, stopped, *head[:2]),
      (states, keys, active),
      batch_size=len(active) if self._side_by_side else None,
    )

  def _new_states(
    self, keys: jax.Array, rates: jax.Array, width: int
  ) -> train.TrainState:
    """Heads before their first step."""
    return jax.vmap(
      lambda key, rate: train.new_state(
        key, self._model, self._tx, shape=(width,), learning_rate=rate
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
      parts: the rows of a split.
      advance: is told after each epoch how many of all heads are done.

    Returns:
      An outcome a run, by the rules of `train.fit`; of one that is not wanted
      0 epochs.
    """
    rules = self._config.train
    every = [experiment.make_keys(r.seed) for r in runs]
    states = self._begin(
      jnp.stack([keys['init'] for keys in every]),
      jnp.array([run.learning_rate for run in runs], jnp.float32),
      width=data.images.shape[-1],
    )
    # Of order and dropout.
    keys = jax.vmap(jax.random.split)(
      jnp.stack([keys['train'] for keys in every])
    )
    best = jax.tree.map(jnp.copy, states.params)
    seen = [optimizer.Progress() for _ in runs]
    diverged = np.zeros(len(runs), bool)
    active = np.array([run.wanted for run in runs])
    epochs = np.zeros(len(runs), int)
    held_out = float(parts.batches[1][1].sum())
    for epoch in range(rules.epochs):
      states, sums = self._epoch(states, keys, active, epoch, data, parts)
      losses = np.asarray(sums.loss, np.float64) / held_out
      train_losses = np.asarray(states.sums)[:, 0]
      is_best = np.zeros(len(runs), bool)
      lower = np.ones(len(runs), np.float32)
      for i in np.flatnonzero(active):
        epochs[i] += 1
        if not np.isfinite([losses[i], train_losses[i]]).all():
          diverged[i], active[i] = True, False
          continue
        seen[i], decision = optimizer.after_epoch(
          seen[i],
          epoch,
          float(losses[i]),
          plateau_patience=rules.plateau_patience,
          stop_patience=rules.stop_patience,
        )
        is_best[i], active[i] = decision.is_best, not decision.stop
        if decision.lower_rate:
          lower[i] = rules.plateau_factor
      best = _keep(best, states.params, is_best)
      states = states.replace(
        learning_rate=states.learning_rate * lower,
        sums=jnp.zeros_like(states.sums),
      )
      advance(int(epochs.sum()))
      if not active.any():
        break
    return [
      Outcome(
        jax.tree.map(lambda leaf, i=i: leaf[i], best),
        int(epochs[i]),
        seen[i].best_epoch + 1,
        bool(diverged[i]),
      )
      for i in range(len(runs))
    ]

  def run(
    self,
    runs: list[Run],
    data: Dataset,
    parts: Parts,
    advance: Callable[[int], None],
  ) -> list[dict[str, Any]]:
    """Trains heads and scores them; see `fit` for the arguments.

    Returns:
      Of each run that is wanted its course, its scores on the three parts, and
      what it calls each test image: plain numbers, ready for JSON.
    """
    started = time.perf_counter()
    outcomes = self.fit(runs, data, parts, advance)
    seconds = time.perf_counter() - started
    epochs = sum(outcome.epochs for outcome in outcomes)
    return [
      {
        'seed': run.seed,
        'epochs': outcome.epochs,
        'best_epoch': outcome.best_epoch,
        'diverged': outcome.diverged,
        # Its share of what all took, compilation included.
        'seconds': round(seconds * outcome.epochs / epochs, 3),
        **self._scores(outcome.params, data, parts),
      }
      for run, outcome in zip(runs, outcomes, strict=True)
      if run.wanted
    ]

  def _scores(self, params: Any, data: Dataset, parts: Parts) -> dict[str, Any]:
    result = {}
    for part, batches in zip(splits.PARTS, parts.batches, strict=True):
      loss, confusion = jax.device_get(self._score(params, data, batches))
      result[part] = metrics.scores(
        confusion,
        float(loss),
        self._class_names,
        self._config.data.benign_class,
      )
    rows, weight = (leaf.ravel() for leaf in parts.batches[2])
    logits, _ = self._model.apply(
      {'params': params}, data.images[rows], train=False
    )
    called = np.asarray(logits.argmax(-1))[np.asarray(weight) > 0]
    result['test']['called'] = called.tolist()
    return result


@functools.partial(jax.jit, donate_argnums=0)
def _keep(best: Any, params: Any, is_best: jax.Array) -> Any:
  """The heads' best weights so far."""

  def chosen(old: jax.Array, new: jax.Array) -> jax.Array:
    where = is_best.reshape(-1, *(1,) * (new.ndim - 1))
    return jnp.where(where, new, old)

  return jax.tree.map(chosen, best, params)
