"""Batches as steps take them: a set and indices of it, or images from disk."""

import importlib.util
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from leukemia_jax import parallel, sharding
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.errors import InputError

# Bytes of images that are decoded ahead of the batch that is taken.
_AHEAD = 2**28


def check_installed() -> None:
  """Makes sure that sets on disk can be read.

  Raises:
    InputError: grain is not installed.
  """
  if importlib.util.find_spec('grain') is None:
    raise InputError(
      "config.data.stream=True needs grain: pip install 'leukemia_jax[stream]'"
    )


def batches(
  dataset: Dataset, indices: np.ndarray
) -> Iterator[tuple[Dataset, Any]]:
  """What a step takes of each batch.

  Args:
    dataset: a set.
    indices: int array, shape (batches, batch size).

  Yields:
    Of a set in memory that set, and the batch's indices. Of one on disk the
    batch itself, decoded by other threads, and None.
  """
  if not dataset.is_on_disk:
    for own in indices:
      yield dataset, own
    return
  import grain

  cores = parallel.cores()
  size = indices.shape[-1] * math.prod(dataset.images.shape[1:])
  ahead = max(1, min(2 * cores, _AHEAD // size))
  read = grain.MapDataset.source(list(indices)).map(dataset.take)
  options = grain.ReadOptions(min(cores, ahead), ahead)
  for batch in read.to_iter_dataset(options):
    yield batch, None


def shared_batches(
  dataset: Dataset, indices: np.ndarray, sample_weight: np.ndarray, mesh: Mesh
) -> Iterator[tuple[Dataset, Any, jax.Array]]:
  """Likewise for several devices; each process reads its own share.

  Args:
    dataset: a set; in memory, on every device.
    indices: int array, shape (batches, batch size).
    sample_weight: float32, of the same shape.
    mesh: devices that share each batch.

  Yields:
    The set and indices, or the batch and None; and the sample weights.
  """
  place = sharding.by_batch(mesh)
  if dataset.is_on_disk:
    indices = indices[:, sharding.own_share(indices.shape[1])]
  for (own, chosen), weight in zip(
    batches(dataset, indices), sample_weight, strict=True
  ):
    weight = sharding.put(weight, place)
    if chosen is None:
      yield sharding.join_shares(own, place), None, weight
    else:
      yield own, sharding.put(chosen, place), weight
