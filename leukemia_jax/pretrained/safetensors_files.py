"""Variables as safetensors: arrays by name, and nothing that could be run."""

import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from leukemia_jax.errors import InputError

_COLLECTIONS = ('params', 'batch_stats')


def to_bytes(variables: dict[str, Any]) -> bytes:
  """A model's variables as a file; names are paths, as 'params/head/bias'."""
  leaves = traverse_util.flatten_dict(variables, sep='/')
  arrays = {
    name: np.ascontiguousarray(leaf, np.float32)
    for name, leaf in leaves.items()
  }
  return safetensors.numpy.save(arrays)


def read(path: pathlib.Path) -> dict[str, Any]:
  """Reads variables.

  Args:
    path: of a file that `to_bytes` made.

  Returns:
    'params' and 'batch_stats', float32 arrays.

  Raises:
    InputError: it is missing, damaged, or holds other arrays.
  """
  try:
    arrays = safetensors.numpy.load_file(path)
  except (OSError, TypeError, KeyError, safetensors.SafetensorError) as error:
    raise InputError(f'{path} cannot be read: {error}') from None
  for name, array in arrays.items():
    if array.dtype != np.float32 or not np.isfinite(array).all():
      raise InputError(f'{path}: {name} is not of finite float32 values')
    if name.partition('/')[0] not in _COLLECTIONS or '/' not in name:
      raise InputError(f'{path}: {name} is of none of {_COLLECTIONS}')
  for name in arrays:
    for end, letter in enumerate(name):
      if letter == '/' and name[:end] in arrays:
        raise InputError(f'{path}: {name[:end]} is the beginning of {name}')
  variables = traverse_util.unflatten_dict(arrays, sep='/')
  return {name: variables.get(name, {}) for name in _COLLECTIONS}
