"""Batch-norm statistics for backbones with random weights."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import progress
from leukemia_jax.transforms.preprocess import preprocess


def calibrate(
  model: Any,
  load: Callable[[], dict[str, Any]],
  images: np.ndarray,
  *,
  preprocessing: str,
  batch_size: int,
) -> dict[str, Any]:
  """Sets batch norms' statistics to the mean of some images' batches.

  Random weights need it: with statistics of 0 and 1 the signal of a deep
  network dies out, or explodes, and all features are the same.

  Args:
    model: without a head; its batch norms have momentum 0, so that a batch's
      statistics are those of the batch alone.
    load: gives the model's variables; called while the model is compiled.
    images: uint8, shape (n, size, size, 3); what fills no batch is left out,
      if there is a full one.
    preprocessing: see `transforms.preprocess`.
    batch_size: images a step.

  Returns:
    The variables with new statistics.
  """

  @jax.jit
  def statistics(variables: Any, batch: jax.Array) -> Any:
    batch = preprocess(batch, preprocessing)
    _, updated = model.apply(
      variables, batch, train=True, mutable=['batch_stats']
    )
    return updated['batch_stats']

  count = max(1, len(images) // batch_size)
  batches = [images[i * batch_size :][:batch_size] for i in range(count)]
  like = jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), jnp.zeros(batches[0].shape), train=False
    )
  )
  lowered = statistics.lower(like, batches[0])
  with futures.ThreadPoolExecutor(1) as pool:
    compiling = pool.submit(lowered.compile)
    variables = load()
    compiled = compiling.result()
  total = None
  for batch in progress.track(batches, 'Calibrating batch norms', count):
    latest = compiled(variables, batch)
    total = latest if total is None else jax.tree.map(jnp.add, total, latest)
  mean = jax.tree.map(lambda leaf: leaf / count, total)
  return {**variables, 'batch_stats': mean}
