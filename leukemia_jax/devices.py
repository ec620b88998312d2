"""The device that JAX computes on, or one line of advice."""

import os
import platform

import jax

from leukemia_jax.errors import InputError


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
