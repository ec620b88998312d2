"""The training step, compiled whole, and the loop that outlives a kill."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from leukemia_jax import evaluate, journal, metrics, optimizer, progress
from leukemia_jax.data.dataset import Dataset

# Steps that may be under way before the oldest one's loss is looked at.
_AHEAD = 8


class StepMetrics(NamedTuple):
  """What a training step reports of its batch: float32 scalars."""

  loss: jax.Array
  accuracy: jax.Array


class TrainState(flax.struct.PyTreeNode):
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
    return jax.tree_util.tree_map_with_path(
      lambda path, _: path[0].key == 'backbone', params
    )

  return optax.multi_transform({True: optax.set_to_zero(), False: adam}, labels)


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


def init_state(key: jax.Array, *args: Any, **settings: Any) -> TrainState:
  """`new_state`, compiled in a hurry.

  Drawn once: optimising this code takes 12 s, running it as it is, none.
  """
  draw = jax.jit(
    lambda key: new_state(key, *args, **settings),
    compiler_options={'xla_backend_optimization_level': 0},
  )
  return draw(key)


# Maps (params, batch_stats, key, images, targets, weights, count) to gradients,
# (loss, right answers), and new batch_stats; the loss is summed by weight and
# divided by the count.
_Gradient = Callable[..., tuple[Any, jax.Array, Any]]


def _make_gradient(
  *,
  apply_fn: Callable[..., Any],
  preprocessing: str | None,
  objective: Callable[..., tuple[jax.Array, jax.Array]],
) -> _Gradient:
  """The gradient of a batch, or of a piece of one."""

  def gradient(
    params: Any,
    batch_stats: Any,
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    count: jax.Array,
  ) -> tuple[Any, jax.Array, Any]:
    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
      (logits, _), updated = apply_fn(
        {'params': params, 'batch_stats': batch_stats},
        evaluate.preprocess(images, preprocessing),
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': key},
      )
      losses, accuracies = objective(logits, targets)
      loss = (losses * weights).sum() / count
      right = (accuracies * weights).sum()
      return loss, (right, updated.get('batch_stats', {}))

    value, grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    loss, (right, updated) = value
    return grads, jnp.stack([loss, right]), updated

  return gradient


def _in_pieces(gradient: _Gradient, pieces: int) -> _Gradient:
  """A batch's gradient as the sum of its pieces', one after the other."""
  if pieces == 1:
    return gradient

  def accumulated(
    params: Any,
    batch_stats: Any,
    key: jax.Array,
    *batch: jax.Array,
  ) -> tuple[Any, jax.Array, Any]:
    *leaves, count = batch

    def add(carry: Any, piece: Any) -> tuple[Any, None]:
      grads, sums, batch_stats = carry
      more_grads, more_sums, batch_stats = gradient(
        params, batch_stats, *piece, count
      )
      grads = jax.tree.map(jnp.add, grads, more_grads)
      return (grads, sums + more_sums, batch_stats), None

    cut = [leaf.reshape(pieces, -1, *leaf.shape[1:]) for leaf in leaves]
    zero = jax.tree.map(jnp.zeros_like, params)
    # On a CPU gradients of convolutions crawl inside a loop.
    total, _ = jax.lax.scan(
      add,
      (zero, jnp.zeros(2), batch_stats),
      (jax.random.split(key, pieces), *cut),
      unroll=jax.default_backend() == 'cpu',
    )
    return total

  return accumulated


def make_train_step(
  *,
  apply_fn: Callable[..., Any],
  tx: optax.GradientTransformation,
  augment: Callable[..., Any] | None,
  preprocessing: str | None,
  objective: Callable[..., tuple[jax.Array, jax.Array]],
  accumulate: int = 1,
) -> Callable[..., tuple[TrainState, StepMetrics]]:
  """Makes one training step: gather, augment, forward, backward, update.

  Args:
    apply_fn: a model's `apply`, which gives (logits, intermediates).
    tx: makes updates to be scaled by the learning rate.
    augment: maps (key, uint8 image) to an image, and (key, image, mask) to
      both; None leaves images alone.
    preprocessing: see `evaluate.preprocess`.
    objective: maps (logits, labels, or masks if the set has them) to losses
      and accuracies of shape (batch,).
    accumulate: equal pieces that a batch is cut into, whose gradients are
      summed before the one update: less memory, the same step but for dropout's
      draws and batch norms, which see a piece at a time.

  Returns:
    (state, key, dataset, rows, weights) -> (state, StepMetrics), where rows
    and weights, of shape (steps an epoch, batch size), are the epoch's order.
  """
  gradient = _in_pieces(
    _make_gradient(
      apply_fn=apply_fn, preprocessing=preprocessing, objective=objective
    ),
    accumulate,
  )

  def train_step(
    state: TrainState,
    key: jax.Array,
    dataset: Dataset,
    rows: jax.Array,
    weights: jax.Array,
  ) -> tuple[TrainState, StepMetrics]:
    at = state.step % rows.shape[0]
    row, weight = rows[at], weights[at]
    augment_key, dropout_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    images, targets = dataset.images[row], dataset.labels[row]
    if dataset.masks is not None:
      targets = dataset.masks[row]
    if augment is not None:
      keys = jax.random.split(augment_key, len(row))
      if dataset.masks is None:
        images = jax.vmap(augment)(keys, images)
      else:
        images, targets = jax.vmap(augment)(keys, images, targets)
    count = weight.sum()
    grads, (loss, right), batch_stats = gradient(
      state.params,
      state.batch_stats,
      dropout_key,
      images,
      targets,
      weight,
      count,
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    updates = jax.tree.map(lambda u: -state.learning_rate * u, updates)
    return state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      sums=state.sums + jnp.stack([loss * count, right, count]),
    ), StepMetrics(loss, right / count)

  return train_step


def repeat_step(
  train_step: Callable[..., tuple[TrainState, StepMetrics]], count: int
) -> Callable[..., tuple[TrainState, StepMetrics]]:
  """Runs a step `count` times in one call; metrics get shape (count,)."""
  if count == 1:

    def once(state: TrainState, *args: Any) -> tuple[TrainState, StepMetrics]:
      state, reported = train_step(state, *args)
      return state, jax.tree.map(lambda value: value[None], reported)

    return once

  def several(state: TrainState, *args: Any) -> tuple[TrainState, StepMetrics]:
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
  """What a run took, from its start or from where it went on."""

  compile_seconds: float = 0.0  # of the training step
  train_seconds: float = 0.0
  images: int = 0
  resumed: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
  """A finished training: the best weights, the epochs' log and the cost."""

  variables: dict[str, Any]
  history: list[dict[str, Any]]
  best_epoch: int
  cost: Cost


class _Watch:
  """Looks at steps' metrics a little late, so that dispatch never waits."""

  def __init__(self, rate: float) -> None:
    self._rate = rate
    self._waiting: deque[tuple[int, StepMetrics]] = deque()
    self.loss = self.accuracy = math.nan

  def add(self, step: int, reported: StepMetrics) -> None:
    self._waiting.append((step, reported))
    if len(self._waiting) > _AHEAD:
      self._look()

  def drain(self) -> None:
    while self._waiting:
      self._look()

  def _look(self) -> None:
    step, reported = self._waiting.popleft()
    losses = np.asarray(reported.loss)
    for i, loss in enumerate(losses):
      if not np.isfinite(loss):
        raise journal.diverged(f'the loss is {loss}', step + i + 1, self._rate)
    self.loss = float(losses[-1])
    self.accuracy = float(reported.accuracy[-1])


class _Steps:
  """Compiled calls of one or more training steps, and what they took."""

  def __init__(self, train_step: Callable[..., Any], cost: Cost):
    self._train_step = train_step
    self._compiled: dict[int, Callable[..., Any]] = {}
    self._cost = cost

  def __call__(
    self, count: int, state: TrainState, *args: Any
  ) -> tuple[TrainState, StepMetrics]:
    if count not in self._compiled:
      started = time.perf_counter()
      call = jax.jit(repeat_step(self._train_step, count), donate_argnums=0)
      self._compiled[count] = call.lower(state, *args).compile()
      self._cost.compile_seconds += time.perf_counter() - started
    return self._compiled[count](state, *args)


def _train_epoch(
  state: TrainState,
  take_steps: _Steps,
  args: tuple[Any, ...],
  *,
  steps: int,
  images: int,
  settings: Any,
  cost: Cost,
  save: Callable[[TrainState], None],
  show: Callable[[int, str], None],
) -> TrainState:
  """Trains to the end of the epoch that `state` is in."""
  step, epoch = int(state.step), int(state.step) // steps
  end = (epoch + 1) * steps
  started, compiled = time.perf_counter(), cost.compile_seconds
  watch, first, done = _Watch(float(state.learning_rate)), step, 0
  remaining = images - (step - epoch * steps) * settings.batch_size
  # On a CPU never a loop over steps: gradients of convolutions crawl in it.
  on_cpu = jax.default_backend() == 'cpu'
  per_call = 1 if on_cpu else settings.steps_per_call

  def seconds() -> float:
    spent_compiling = cost.compile_seconds - compiled
    return max(time.perf_counter() - started - spent_compiling, 1e-9)

  while step < end:
    to_save = settings.checkpoint_steps - step % settings.checkpoint_steps
    count = min(per_call, end - step, to_save)
    state, reported = take_steps(count, state, *args)
    watch.add(step, reported)
    step += count
    # The last batch is filled up with images that count for nothing.
    done = min((step - first) * settings.batch_size, remaining)
    if step % settings.checkpoint_steps == 0 and step < end:
      # Only a state that is known to be good may replace the last one.
      watch.drain()
      save(state)
    show(
      step,
      f'epoch {epoch + 1}  loss {watch.loss:.3f}  accuracy '
      f'{watch.accuracy:.3f}  {done / seconds():.0f} images/s',
    )
  watch.drain()
  cost.train_seconds += seconds()
  cost.images += done
  return state


def fit(
  state: TrainState,
  train_step: Callable[..., tuple[TrainState, StepMetrics]],
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
    num_classes: number of classes; 2 with masks, ground and cells.
    key: PRNG key of order, augmentation and dropout.
    settings: `config.train`.
    workdir: where checkpoints, metrics.jsonl and TensorBoard scalars go.

  Returns:
    The outcome, with the weights of the epoch of lowest validation loss.

  Raises:
    journal.DivergedError: the loss is not finite.
    InputError: a checkpoint can't be written or read.
  """
  order_key, step_key = jax.random.split(key)
  rows = jnp.asarray(train_rows, jnp.int32)
  steps = -(-len(rows) // settings.batch_size)
  total = settings.epochs * steps
  kept, cost = journal.Journal(workdir, settings), Cost()
  state = kept.restore(state, steps)
  cost.resumed = int(state.step) > 0
  take_steps = _Steps(train_step, cost)
  with contextlib.closing(kept), progress.bar('note') as shown:
    task = shown.add_task('Training', total=total, note='')
    while not kept.stopped and int(state.step) < total:
      epoch, before = int(state.step) // steps, cost.train_seconds
      order = epoch_order(
        order_key, epoch, rows, batch_size=settings.batch_size
      )
      state = _train_epoch(
        state,
        take_steps,
        (step_key, dataset, *order),
        steps=steps,
        images=len(rows),
        settings=settings,
        cost=cost,
        save=kept.save,
        show=lambda step, note: shown.update(task, completed=step, note=note),
      )
      loss, confusion = evaluate.run(
        eval_step,
        state.variables(),
        dataset,
        validation_rows,
        batch_size=settings.batch_size,
        num_classes=num_classes,
      )
      segments = dataset.masks is not None
      line = _epoch_line(state, epoch, loss, confusion, segments)
      line['seconds'] = round(cost.train_seconds - before, 3)
      state = kept.end_epoch(state, line)
      shown.console.print(_one_line(line), soft_wrap=True, highlight=False)
    variables = kept.best_weights(state.variables())
  return Outcome(variables, kept.history, kept.seen.best_epoch, cost)


def _epoch_line(
  state: TrainState,
  epoch: int,
  loss: float,
  confusion: np.ndarray,
  segments: bool,
) -> dict[str, Any]:
  """An epoch's line in the log; training scores are those while training."""
  train_loss, right, images = (float(s) for s in state.sums)
  held_out = float(confusion.sum())
  more = {'validation_dice': metrics.dice(confusion)} if segments else {}
  return {
    'epoch': epoch + 1,
    'learning_rate': float(state.learning_rate),
    'train_loss': train_loss / images,
    'train_accuracy': right / images,
    'validation_loss': loss / held_out,
    'validation_accuracy': float(np.trace(confusion)) / held_out,
    **more,
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
