"""The training step, compiled whole: gather, augment, gradient, update."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from leukemia_jax import models
from leukemia_jax.build import Network
from leukemia_jax.data.dataset import AugmentFn, Dataset
from leukemia_jax.training import threefry
from leukemia_jax.training.state import TrainState
from leukemia_jax.transforms.preprocess import preprocess


class StepMetrics(NamedTuple):
  """What a training step reports of its batch: float32 scalars."""

  loss: jax.Array
  accuracy: jax.Array


TrainStep = Callable[..., tuple[TrainState, StepMetrics]]
# Maps (params, batch_stats, key, images, targets, sample_weight, count) to
# gradients, (loss, correct answers), and new batch_stats; the loss is summed by
# weight and divided by the count.
_Gradient = Callable[..., tuple[Any, jax.Array, Any]]


def _make_gradient(network: Network) -> _Gradient:
  """The gradient of a batch, or of a piece of one."""

  def gradient(
    params: Any,
    batch_stats: Any,
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    sample_weight: jax.Array,
    count: jax.Array,
  ) -> tuple[Any, jax.Array, Any]:
    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
      (logits, _), updated = network.model.apply(
        {'params': params, 'batch_stats': batch_stats},
        preprocess(images, network.preprocessing),
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': threefry.unrolled(key)},
      )
      losses, accuracies = network.objective(logits, targets)
      loss = (losses * sample_weight).sum() / count
      correct = (accuracies * sample_weight).sum()
      return loss, (correct, updated.get('batch_stats', {}))

    value, grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    loss, (correct, updated) = value
    return grads, jnp.stack([loss, correct]), updated

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
      # Side by side the pieces would take as much memory as the batch.
      (grads, sums, batch_stats), piece = jax.lax.optimization_barrier(
        (carry, piece)
      )
      more_grads, more_sums, batch_stats = gradient(
        params, batch_stats, *piece, count
      )
      grads = jax.tree.map(jnp.add, grads, more_grads)
      return (grads, sums + more_sums, batch_stats), None

    # Every n-th image: each device's share holds some of every piece.
    cut = [
      leaf.reshape(-1, pieces, *leaf.shape[1:]).swapaxes(0, 1)
      for leaf in leaves
    ]
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


def compiler_options(name: str, accumulate: int) -> dict[str, str] | None:
  """What XLA needs to know of a training step.

  On a CPU it takes barriers away that keep apart pieces of a batch, values that
  are computed again, and gradients of kernels: all would be in memory at once.
  Backbones of one piece gain nothing by them.

  Args:
    name: of the model.
    accumulate: see `make_train_step`.

  Returns:
    Options of `jax.jit`; None for its own.
  """
  uses_barriers = name in models.UNETS or accumulate > 1
  if jax.default_backend() != 'cpu' or not uses_barriers:
    return None
  return {'xla_disable_hlo_passes': 'cse_barrier_expander'}


def make_train_step(
  network: Network,
  *,
  tx: optax.GradientTransformation,
  augment: AugmentFn | None,
  accumulate: int = 1,
) -> TrainStep:
  """Makes one training step: gather, augment, forward, backward, update.

  Args:
    network: the model and what it minimises.
    tx: makes updates to be scaled by the learning rate.
    augment: what happens to every image; None leaves images alone.
    accumulate: equal pieces that a batch is cut into, whose gradients are
      summed before the one update: less memory, the same step except for
      dropout's draws and batch norms, which see a piece at a time.

  Returns:
    (state, key, dataset, indices, sample_weight) -> (state, StepMetrics), where
    indices and sample_weight, of shape (steps an epoch, batch size), are the
    epoch's order; without indices the dataset is the batch, and there is one
    row of weights.
  """
  gradient = _in_pieces(_make_gradient(network), accumulate)

  def train_step(
    state: TrainState,
    key: jax.Array,
    dataset: Dataset,
    indices: jax.Array | None,
    sample_weight: jax.Array,
  ) -> tuple[TrainState, StepMetrics]:
    at = state.step % sample_weight.shape[0]
    batch = dataset if indices is None else dataset.take(indices[at])
    weight = sample_weight[at]
    augment_key, dropout_key = jax.random.split(
      jax.random.fold_in(key, state.step)
    )
    if augment is not None:
      keys = jax.random.split(augment_key, weight.shape[0])
      batch = batch.augmented(augment, keys)
    count = weight.sum()
    grads, (loss, correct), batch_stats = gradient(
      state.params,
      state.batch_stats,
      dropout_key,
      batch.images,
      batch.targets,
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
      sums=state.sums + jnp.stack([loss * count, correct, count]),
    ), StepMetrics(loss, correct / count)

  return train_step


def repeat_step(train_step: TrainStep, count: int) -> TrainStep:
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
  key: jax.Array, epoch: int, indices: jax.Array, *, batch_size: int
) -> tuple[jax.Array, jax.Array]:
  """Shuffles a part for an epoch: a function of key and epoch alone.

  Args:
    key: PRNG key of the run's order.
    epoch: from 0.
    indices: int32, shape (n,), the images of the part.
    batch_size: images a step.

  Returns:
    Indices and sample weights, of shape (steps, batch_size). The last batch is
    filled up with the epoch's first images, at weight 0 in the loss.
  """
  count = indices.shape[0]
  steps = -(-count // batch_size)
  indices = jax.random.permutation(jax.random.fold_in(key, epoch), indices)
  sample_weight = (jnp.arange(steps * batch_size) < count).astype(jnp.float32)
  indices = jnp.resize(indices, (steps, batch_size))
  return indices, sample_weight.reshape(steps, batch_size)
