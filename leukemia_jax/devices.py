"""The device that JAX computes on, and how it is kept busy."""

import os
import platform

import jax

from leukemia_jax.errors import InputError

# Of a CPU's steps; each stores its own feature maps.
_MOST_AT_ONCE = 4


def describe() -> str:
  """The first device in words, with cores and kind of machine.

  Returns:
    Such as 'cpu, 2 cores, x86_64'.

  Raises:
    InputError: the platform that JAX_PLATFORMS names is not there.
  """
  try:
    device = jax.devices()[0]
  except (RuntimeError, AssertionError) as error:
    wanted = os.environ.get('JAX_PLATFORMS', '')
    reason = str(error).strip().splitlines()
    raise InputError(
      f'JAX_PLATFORMS={wanted}: JAX finds no such device'
      + (f' ({reason[-1][:200]})' if reason else '')
      + ". Unset JAX_PLATFORMS, or for a GPU: pip install 'leukemia_jax[cuda]'"
    ) from None
  return f'{device.device_kind}, {os.cpu_count()} cores, {platform.machine()}'


def step_batching(batch_size: int) -> tuple[int, int]:
  """Images a step, and steps at once.

  A CPU's cores share the matrix products of one step well, but not what lies
  between them. With a small step for each of two cores InceptionResNetV2 runs
  1.5 times as fast as with one step of 32.
  """
  if jax.default_backend() == 'cpu':
    return min(batch_size, 2), min(os.cpu_count() or 1, _MOST_AT_ONCE)
  return batch_size, 2
