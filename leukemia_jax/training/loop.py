"""The training loop: epochs of compiled steps, resumed after a kill."""

import contextlib
import dataclasses
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from leukemia_jax import progress, sharding
from leukemia_jax.data import streaming
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.evaluation import eval_step
from leukemia_jax.evaluation.eval_step import EvalStep
from leukemia_jax.training.calls import (
  CompiledSteps,
  InflightSteps,
  TrainingCost,
  diverged,
  plan,
)
from leukemia_jax.training.metric_writer import MetricWriter
from leukemia_jax.training.plateau_and_stopping import (
  Progress,
  Rules,
  after_epoch,
)
from leukemia_jax.training.state import TrainState
from leukemia_jax.training.step import TrainStep, epoch_order
from leukemia_jax.workdir.checkpoint import RunCheckpoints


class Schedule(NamedTuple):
  """How long to train; see `config.train`.

  Attributes:
    epochs: at most.
    batch_size: images a step.
    scored_at_once: images a step of validation.
    checkpoint_steps: steps between checkpoints, besides each epoch's.
    steps_per_call: steps in one compiled call; 1 for a set on disk, where what
      is read is one step's.
    rules: when to lower the rate and when to stop.
  """

  epochs: int
  batch_size: int
  scored_at_once: int
  checkpoint_steps: int
  steps_per_call: int
  rules: Rules


@dataclasses.dataclass(frozen=True)
class Outcome:
  """A finished training.

  Attributes:
    variables: of the best epoch.
    epochs: that were trained.
    best_epoch: that of the lowest validation loss, from 1.
    cost: what it took.
  """

  variables: dict[str, Any]
  epochs: int
  best_epoch: int
  cost: TrainingCost


def _feed(
  dataset: Dataset,
  order: tuple[jax.Array, jax.Array],
  mesh: Mesh,
  *,
  first: int,
) -> Iterator[tuple[Any, ...]]:
  """What each call takes of the set, from step `first` of an epoch on."""
  if not dataset.is_on_disk:
    placed = sharding.put(order, sharding.by_batch(mesh, axis=1))
    yield from itertools.repeat((dataset, *placed))
  indices, sample_weight = (np.asarray(leaf)[first:] for leaf in order)
  for batch, _, weight in streaming.shared_batches(
    dataset, indices, sample_weight, mesh
  ):
    yield batch, None, weight[None]


def _train_epoch(
  state: TrainState,
  take_steps: CompiledSteps,
  key: jax.Array,
  feed: Iterator[tuple[Any, ...]],
  *,
  images: int,
  schedule: Schedule,
  cost: TrainingCost,
  save: Callable[[TrainState], None],
  show: Callable[[int, str], None],
) -> TrainState:
  """Trains to the end of the epoch that `state` is in."""
  steps = -(-images // schedule.batch_size)
  step, epoch = int(state.step), int(state.step) // steps
  end = (epoch + 1) * steps
  started, compiled = time.perf_counter(), cost.compile_seconds
  inflight, first, done = InflightSteps(float(state.learning_rate)), step, 0
  remaining = images - (step - epoch * steps) * schedule.batch_size

  def seconds() -> float:
    spent_compiling = cost.compile_seconds - compiled
    return max(time.perf_counter() - started - spent_compiling, 1e-9)

  for count, saves in plan(
    *(step, end),
    steps_per_call=schedule.steps_per_call,
    checkpoint_steps=schedule.checkpoint_steps,
  ):
    state, reported = take_steps(count, state, key, *next(feed))
    inflight.add(step, reported)
    step += count
    # The last batch is filled up with images that count for nothing.
    done = min((step - first) * schedule.batch_size, remaining)
    if saves:
      # Only a state that is known to be good may replace the last one.
      inflight.drain()
      save(state)
    show(
      step,
      f'epoch {epoch + 1}  {inflight.summary}{done / seconds():.0f} images/s',
    )
  inflight.drain()
  cost.train_seconds += seconds()
  cost.images += done
  return state


@jax.jit
def is_finite(variables: Any) -> jax.Array:
  """Whether all values are."""
  return jnp.stack(
    [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)]
  ).all()


class Learner(NamedTuple):
  """What the loop calls.

  Attributes:
    train_step: from `step.make_train_step`.
    eval_step: from `eval_step.make_eval_step`.
    num_classes: number of classes; 2 with masks, background and cells.
    extra_scores: maps the validation part's confusion matrix to further scores
      of the log.
    compiler_options: of the training step, for XLA.
  """

  train_step: TrainStep
  eval_step: EvalStep
  num_classes: int
  extra_scores: Callable[[np.ndarray], dict[str, float]]
  compiler_options: dict[str, str] | None = None


class TrainingData(NamedTuple):
  """A set with the indices of two parts; repeated where it is balanced so."""

  dataset: Dataset
  train: np.ndarray
  validation: np.ndarray


@dataclasses.dataclass
class _Session:
  """What an epoch's end changes and writes.

  Attributes:
    checkpoints: of the run.
    writer: of the epochs' lines.
    progress: what the rules remember.
    stopped: whether they say that training ends.
  """

  checkpoints: RunCheckpoints
  writer: MetricWriter
  progress: Progress
  stopped: bool

  def save(self, state: TrainState) -> None:
    """Saves the latest state, if it is a good one."""
    if not is_finite(state.variables()):
      step, rate = int(state.step), float(state.learning_rate)
      raise diverged('parameters are not finite', step, rate)
    notes = {'progress': self.progress._asdict(), 'stopped': self.stopped}
    self.checkpoints.save(int(state.step), state, notes)

  def end_epoch(
    self,
    state: TrainState,
    line: dict[str, Any],
    rules: Rules,
  ) -> TrainState:
    """Applies the rules, then writes all of the epoch."""
    epoch, loss = line['epoch'] - 1, line['validation_loss']
    if not math.isfinite(loss):
      what = f'the validation loss is {loss}'
      raise diverged(what, int(state.step), line['learning_rate'])
    self.progress, decision = after_epoch(self.progress, epoch, loss, rules)
    self.stopped = decision.stop
    if decision.is_best:
      # Before the latest state, which must not remember a best one that isn't
      # on disk.
      self.checkpoints.save_best(epoch, state.variables())
    rate = state.learning_rate * decision.rate_factor
    state = state.replace(sums=jnp.zeros_like(state.sums), learning_rate=rate)
    self.writer.write(line)
    self.save(state)
    return state


@contextlib.contextmanager
def _open_session(
  state: TrainState, workdir: pathlib.Path, steps: int
) -> Iterator[tuple[TrainState, _Session]]:
  """A run's files, and the newest state in them, or the given one."""
  with contextlib.closing(RunCheckpoints(workdir)) as checkpoints:
    best, stopped = Progress(), False
    if (restored := checkpoints.restore(state)) is not None:
      state, notes = restored
      best, stopped = (
        Progress(**notes['progress']),
        notes['stopped'],
      )
    # Best weights of an epoch that is trained again are saved again.
    checkpoints.drop_best_after(best.best_epoch)
    epochs = int(state.step) // steps
    with contextlib.closing(MetricWriter(workdir, epochs)) as writer:
      yield state, _Session(checkpoints, writer, best, stopped)


def _place(
  state: TrainState, data: TrainingData, mesh: Mesh
) -> tuple[TrainState, TrainingData]:
  """Lays a state, and a set in memory, on every device."""
  everywhere = sharding.on_all(mesh)
  if not data.dataset.is_on_disk:
    data = data._replace(dataset=sharding.put(data.dataset, everywhere))
  return sharding.put(state, everywhere), data


def fit(
  state: TrainState,
  learner: Learner,
  data: TrainingData,
  *,
  key: jax.Array,
  schedule: Schedule,
  workdir: pathlib.Path,
  mesh: Mesh,
) -> Outcome:
  """Trains until the last epoch or until validation stops improving.

  Resumes from the newest checkpoint in the workdir, with the same bits as a run
  that was never stopped.

  Args:
    state: before the first step.
    learner: what is called.
    data: the set and its parts.
    key: PRNG key of order, augmentation and dropout.
    schedule: how long.
    workdir: where checkpoints, metrics.jsonl and TensorBoard scalars go.
    mesh: devices that share each batch, from `sharding.make_mesh`.

  Returns:
    The outcome, with the weights of the epoch of lowest validation loss.

  Raises:
    DivergedError: the loss is not finite.
    InputError: a checkpoint can't be written or read.
  """
  order_key, step_key = jax.random.split(key)
  indices = jnp.asarray(data.train, jnp.int32)
  steps, cost = -(-len(indices) // schedule.batch_size), TrainingCost()
  total = schedule.epochs * steps
  options = learner.compiler_options
  take_steps = CompiledSteps(learner.train_step, options, mesh, cost)
  state, data = _place(state, data, mesh)
  with (
    _open_session(state, workdir, steps) as (state, session),
    progress.bar('note') as bar,
  ):
    cost.resumed = int(state.step) > 0
    task = bar.add_task('Training', total=total, note='')
    while not session.stopped and int(state.step) < total:
      epoch, before = int(state.step) // steps, cost.train_seconds
      order = epoch_order(
        order_key, epoch, indices, batch_size=schedule.batch_size
      )
      state = _train_epoch(
        state,
        take_steps,
        step_key,
        _feed(data.dataset, order, mesh, first=int(state.step) % steps),
        images=len(indices),
        schedule=schedule,
        cost=cost,
        save=session.save,
        show=lambda step, note: bar.update(task, completed=step, note=note),
      )
      line: dict[str, Any] = {'epoch': epoch + 1}
      line |= _validate(state, learner, data, schedule.scored_at_once, mesh)
      line['seconds'] = round(cost.train_seconds - before, 3)
      state = session.end_epoch(state, line, schedule.rules)
      if sharding.leads():
        bar.console.print(_one_line(line), soft_wrap=True, highlight=False)
    variables = session.checkpoints.best(state.variables())
  variables = sharding.bring_home(variables)
  epochs, best_epoch = int(state.step) // steps, session.progress.best_epoch + 1
  return Outcome(variables, epochs, best_epoch, cost)


def _validate(
  state: TrainState,
  learner: Learner,
  data: TrainingData,
  batch_size: int,
  mesh: Mesh,
) -> dict[str, Any]:
  """An epoch's scores; training scores are those while training."""
  train_loss, correct, images = (float(s) for s in state.sums)
  loss, confusion = eval_step.run(
    learner.eval_step,
    state.variables(),
    data.dataset,
    data.validation,
    batch_size=batch_size,
    num_classes=learner.num_classes,
    mesh=mesh,
  )
  held_out = float(confusion.sum())
  return {
    'learning_rate': float(state.learning_rate),
    'train_loss': train_loss / images,
    'train_accuracy': correct / images,
    'validation_loss': loss / held_out,
    'validation_accuracy': float(np.trace(confusion)) / held_out,
    **learner.extra_scores(confusion),
  }


def _one_line(line: dict[str, Any]) -> str:
  dice = line.get('validation_dice')
  return (
    f'epoch {line["epoch"]:3d}  train: loss {line["train_loss"]:.4f} accuracy '
    f'{line["train_accuracy"]:.4f}  validation: loss '
    f'{line["validation_loss"]:.4f} accuracy '
    f'{line["validation_accuracy"]:.4f}  '
    + (f'Dice {dice:.4f}  ' if dice is not None else '')
    + f'{line["seconds"]:.1f} s'
  )
