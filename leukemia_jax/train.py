"""The training step, compiled whole, and the loop that outlives a kill."""

import dataclasses
import functools
import json
import math
import pathlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tensorboardX

from leukemia_jax import checkpoint, evaluate, metrics, optimizer, progress
from leukemia_jax import workdir as files
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.errors import InputError

# Steps that may be under way before the oldest one's loss is looked at.
_AHEAD = 8


class DivergedError(InputError):
  """The loss is no longer a finite number."""


@flax.struct.dataclass
class TrainState:
  """All that changes while training, as arrays.

  Attributes:
    step: int32, steps done.
    params: the model's parameters, float32.
    batch_stats: the batch norms' moving statistics, float32.
    opt_state: the optimizer's moments.
    learning_rate: float32; the plateau rule lowers it.
    sums: float32 (3,): loss, right answers and images of this epoch so far.
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


def make_optimizer(freeze_backbone: bool) -> optax.GradientTransformation:
  """Keras' Adam; a frozen backbone gets no updates and no moments."""
  adam = optimizer.scale_by_keras_adam()
  if not freeze_backbone:
    return adam

  def labels(params: Any) -> Any:
    return {
      name: jax.tree.map(lambda _: name == 'backbone', branch)
      for name, branch in params.items()
    }

  return optax.multi_transform({True: optax.set_to_zero(), False: adam}, labels)


def init_state(
  key: jax.Array,
  model: Any,
  tx: optax.GradientTransformation,
  *,
  image_size: int,
  learning_rate: float,
) -> TrainState:
  """Draws the parameters of a new run.

  Args:
    key: PRNG key.
    model: a classifier; see `models.create`.
    tx: from `make_optimizer`.
    image_size: side of the images, px.
    learning_rate: the first one.

  Returns:
    The state before the first step.
  """

  @jax.jit
  def init(key: jax.Array) -> TrainState:
    images = jnp.zeros((1, image_size, image_size, 3))
    variables = model.init(key, images, train=False)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=variables['params'],
      batch_stats=variables['batch_stats'],
      opt_state=tx.init(variables['params']),
      learning_rate=jnp.asarray(learning_rate, jnp.float32),
      sums=jnp.zeros(3),
    )

  return init(key)


def make_train_step(
  *,
  apply_fn: Callable[..., Any],
  tx: optax.GradientTransformation,
  augment: Callable[[jax.Array, jax.Array], jax.Array] | None,
  preprocessing: str,
) -> Callable[..., tuple[TrainState, jax.Array]]:
  """Makes one training step: gather, augment, forward, backward, update.

  Args:
    apply_fn: a model's `apply`, which gives (logits, intermediates).
    tx: makes updates to be scaled by the learning rate.
    augment: maps (key, uint8 image) to an image; None leaves images alone.
    preprocessing: see `evaluate.preprocess`.

  Returns:
    (state, key, dataset, rows, weights) -> (state, loss), where rows and
    weights, of shape (steps an epoch, batch size), are the epoch's order.
  """

  def train_step(
    state: TrainState,
    key: jax.Array,
    dataset: Dataset,
    rows: jax.Array,
    weights: jax.Array,
  ) -> tuple[TrainState, jax.Array]:
    at = state.step % rows.shape[0]
    row, weight = rows[at], weights[at]
    augment_key, dropout_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    images, labels = dataset.images[row], dataset.labels[row]
    if augment is not None:
      keys = jax.random.split(augment_key, len(row))
      images = jax.vmap(augment)(keys, images)
    images = evaluate.preprocess(images, preprocessing)

    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
      (logits, _), updated = apply_fn(
        {'params': params, 'batch_stats': state.batch_stats},
        images,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': dropout_key},
      )
      loss = (metrics.cross_entropy(logits, labels) * weight).sum()
      return loss / weight.sum(), (logits, updated['batch_stats'])

    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, (logits, batch_stats)), grads = gradient(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: -state.learning_rate * u, updates)
    right = ((logits.argmax(-1) == labels) * weight).sum()
    count = weight.sum()
    return state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      sums=state.sums + jnp.stack([loss * count, right, count]),
    ), loss

  return train_step


def repeat_step(
  train_step: Callable[..., tuple[TrainState, jax.Array]], count: int
) -> Callable[..., tuple[TrainState, jax.Array]]:
  """Runs a step `count` times in one call; gives the losses, shape (count,)."""
  if count == 1:
    # No loop: on a CPU gradients of convolutions are slow inside one.
    def once(state: TrainState, *args: Any) -> tuple[TrainState, jax.Array]:
      state, loss = train_step(state, *args)
      return state, loss[None]

    return once

  def several(state: TrainState, *args: Any) -> tuple[TrainState, jax.Array]:
    return jax.lax.scan(
      lambda state, _: train_step(state, *args), state, length=count
    )

  return several


@functools.partial(jax.jit, static_argnames='batch_size')
def epoch_order(
  key: jax.Array, epoch: int, rows: jax.Array, *, batch_size: int
) -> tuple[jax.Array, jax.Array]:
  """Shuffles a part for an epoch: a function of key and epoch alone.

  Args:
    key: PRNG key of the run's order.
    epoch: from 0.
    rows: int32, shape (n,), the part's row numbers.
    batch_size: images a step.

  Returns:
    Row numbers and weights, of shape (steps, batch_size). The last batch is
    filled up with the epoch's first images, at weight 0 in the loss.
  """
  count = rows.shape[0]
  steps = -(-count // batch_size)
  rows = jax.random.permutation(jax.random.fold_in(key, epoch), rows)
  weights = (jnp.arange(steps * batch_size) < count).astype(jnp.float32)
  rows = jnp.resize(rows, (steps, batch_size))
  return rows, weights.reshape(steps, batch_size)


@dataclasses.dataclass
class Cost:
  """What a run took: seconds and images, by what they were spent on."""

  compile_seconds: float = 0.0
  train_seconds: float = 0.0
  images: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
  """A finished training: the best weights, the epochs' log and the cost."""

  variables: dict[str, Any]
  history: list[dict[str, Any]]
  best_epoch: int
  cost: Cost


def _read_history(path: pathlib.Path, epochs: int) -> list[dict[str, Any]]:
  """The first epochs' lines; later ones are of an epoch that is done again."""
  if not path.exists():
    return []
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  return lines[:epochs]


class _Losses:
  """Looks at losses a few steps late, so that dispatch never waits."""

  def __init__(self) -> None:
    self._waiting: deque[tuple[int, jax.Array, float]] = deque()
    self.last = math.nan

  def add(self, step: int, losses: jax.Array, rate: float) -> None:
    self._waiting.append((step, losses, rate))
    if len(self._waiting) > _AHEAD:
      self._look()

  def drain(self) -> None:
    while self._waiting:
      self._look()

  def _look(self) -> None:
    step, losses, rate = self._waiting.popleft()
    for i, loss in enumerate(np.asarray(losses)):
      if not np.isfinite(loss):
        raise DivergedError(
          f'the loss is {loss} at step {step + i + 1} with learning rate '
          f'{rate:g}; the last good checkpoint is kept. Lower '
          'config.train.learning_rate and use a new --workdir'
        )
      self.last = float(loss)


def fit(
  state: TrainState,
  train_step: Callable[..., tuple[TrainState, jax.Array]],
  eval_step: Callable[..., evaluate.Sums],
  dataset: Dataset,
  *,
  train_rows: np.ndarray,
  validation_rows: np.ndarray,
  num_classes: int,
  key: jax.Array,
  settings: Any,
  workdir: pathlib.Path,
) -> Outcome:
  """Trains until the last epoch or until validation stops improving.

  Goes on from the newest checkpoint in the workdir, to the same bits as a run
  that was never stopped.

  Args:
    state: before the first step.
    train_step: from `make_train_step`.
    eval_step: from `evaluate.make_eval_step`.
    dataset: the set.
    train_rows: row numbers of the training part, repeated where balanced so.
    validation_rows: row numbers of the validation part.
    num_classes: number of classes.
    key: PRNG key of order, augmentation and dropout.
    settings: `config.train`.
    workdir: where checkpoints, metrics.jsonl and TensorBoard scalars go.

  Returns:
    The outcome, with the weights of the epoch of lowest validation loss.

  Raises:
    DivergedError: the loss is not finite.
    InputError: a checkpoint can't be written or read.
  """
  order_key, step_key = jax.random.split(key)
  train_rows = jnp.asarray(train_rows, jnp.int32)
  batch_size, steps = settings.batch_size, -(-len(train_rows) // settings.batch_size)
  latest = checkpoint.open_manager(workdir / files.LATEST)
  best = checkpoint.open_manager(workdir / files.BEST)
  seen, stopped = optimizer.Progress(), False
  restored = checkpoint.restore(latest, state)
  if restored is not None:
    state, notes = restored
    seen, stopped = optimizer.Progress(**notes['progress']), notes['stopped']
  step = int(state.step)
  history = _read_history(workdir / files.METRICS, step // steps)
  cost, compiled = Cost(), {}

  def save_latest() -> None:
    notes = {'progress': seen._asdict(), 'stopped': stopped}
    checkpoint.save(latest, step, state, notes)

  losses = _Losses()
  board = tensorboardX.SummaryWriter(
    str(workdir / 'tensorboard'), purge_step=len(history)
  )
  with progress.bar('note') as shown, board:
    task = shown.add_task(
      'Training', total=settings.epochs * steps, completed=step, note=''
    )
    while not stopped and step < settings.epochs * steps:
      epoch, rate = step // steps, float(state.learning_rate)
      rows, weights = epoch_order(
        order_key, epoch, train_rows, batch_size=batch_size
      )
      started, compile_before = time.perf_counter(), cost.compile_seconds
      images_before = cost.images
      while step < (epoch + 1) * steps:
        to_save = settings.checkpoint_steps - step % settings.checkpoint_steps
        count = min(
          settings.steps_per_call, (epoch + 1) * steps - step, to_save
        )
        args = (state, step_key, dataset, rows, weights)
        if count not in compiled:
          before = time.perf_counter()
          call = jax.jit(repeat_step(train_step, count), donate_argnums=0)
          compiled[count] = call.lower(*args).compile()
          cost.compile_seconds += time.perf_counter() - before
        state, new_losses = compiled[count](*args)
        losses.add(step, new_losses, rate)
        step += count
        cost.images += count * batch_size
        if step % settings.checkpoint_steps == 0 and step % steps:
          losses.drain()
          save_latest()
        elapsed = time.perf_counter() - started
        elapsed -= cost.compile_seconds - compile_before
        speed = (cost.images - images_before) / max(elapsed, 1e-9)
        note = f'epoch {epoch + 1} loss {losses.last:.3f} {speed:.0f} images/s'
        shown.update(task, completed=step, note=note)
      losses.drain()
      elapsed = time.perf_counter() - started
      elapsed -= cost.compile_seconds - compile_before
      cost.train_seconds += elapsed
      loss_sum, confusion = evaluate.run(
        eval_step,
        state.variables(),
        dataset,
        validation_rows,
        batch_size=batch_size,
        num_classes=num_classes,
      )
      total, right, seen_images = (float(s) for s in state.sums)
      line = {
        'epoch': epoch + 1,
        'learning_rate': rate,
        'train_loss': total / seen_images,
        'train_accuracy': right / seen_images,
        'validation_loss': loss_sum / len(validation_rows),
        'validation_accuracy': float(np.trace(confusion)) / len(validation_rows),
        'seconds': round(elapsed, 3),
      }
      seen, decision = optimizer.after_epoch(
        seen,
        epoch,
        line['validation_loss'],
        plateau_patience=settings.plateau_patience,
        stop_patience=settings.stop_patience,
      )
      stopped = decision.stop
      if decision.is_best:
        checkpoint.save(best, epoch, state.variables(), {'epoch': epoch})
        # Never a latest state that remembers a best one which isn't on disk.
        checkpoint.finish(best)
      if decision.lower_rate:
        rate *= settings.plateau_factor
      state = state.replace(
        sums=jnp.zeros(3), learning_rate=jnp.asarray(rate, jnp.float32)
      )
      history.append(line)
      text = ''.join(json.dumps(row) + '\n' for row in history)
      files.write(workdir / files.METRICS, text)
      for name, value in line.items():
        if name != 'epoch':
          board.add_scalar(name, value, epoch)
      save_latest()
      shown.console.print(
        f'epoch {line["epoch"]:3d}  train loss {line["train_loss"]:.4f} '
        f'accuracy {line["train_accuracy"]:.4f}  validation loss '
        f'{line["validation_loss"]:.4f} accuracy '
        f'{line["validation_accuracy"]:.4f}  {elapsed:.1f} s'
      )
  checkpoint.finish(latest)
  restored = checkpoint.restore(best, state.variables())
  if restored is None:
    raise DivergedError(
      'no epoch had a finite validation loss; lower config.train.learning_rate '
      'and use a new --workdir'
    )
  latest.close()
  best.close()
  return Outcome(restored[0], history, seen.best_epoch, cost)
