"""Threefry for many draws on a CPU: JAX' own bits, in one pass over memory.

JAX takes its rounds in a loop there, so as to compile sooner, and each turn of
the loop goes through all that is drawn: that takes three times as long.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random

_JAX = random.threefry_prng_impl
# Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011), and the
# key schedule of Skein 1.3, from which it is.
_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = np.uint32(0x1BD11BDA)


def _random_bits(
  key: jax.Array, bit_width: int, shape: tuple[int, ...]
) -> jax.Array:
  """As JAX' `jax_threefry_partitionable`: by key and place alone."""
  count = math.prod(shape)
  if bit_width != 32 or count >= 1 << 32:
    bits: jax.Array = _JAX.random_bits(key, bit_width, shape)
    return bits
  parts = key[0], key[1], key[0] ^ key[1] ^ _PARITY
  keys = [lax.broadcast(part, shape) for part in parts]
  # Places are counted in 64 bits, of which the upper ones are 0.
  x, y = keys[0], lax.iota(jnp.uint32, count).reshape(shape) + keys[1]
  for i in range(5):
    for rotation in _ROTATIONS[i % 2]:
      x = x + y
      high, low = y << np.uint32(rotation), y >> np.uint32(32 - rotation)
      y = x ^ (high | low)
    x = x + keys[(i + 1) % 3]
    y = y + keys[(i + 2) % 3] + np.uint32(i + 1)
  return x ^ y


_UNROLLED = random.define_prng_impl(
  key_shape=(2,),
  seed=_JAX.seed,
  split=_JAX.split,
  random_bits=_random_bits,
  fold_in=_JAX.fold_in,
  name='threefry2x32_unrolled',
)


def unrolled(key: jax.Array) -> jax.Array:
  """A key that draws the same values, faster if they are many.

  Args:
    key: PRNG key.

  Returns:
    The key with its rounds unrolled; if it is no Threefry's, as it was.
  """
  if jax.random.key_impl(key) != 'threefry2x32':
    return key
  return jax.random.wrap_key_data(jax.random.key_data(key), impl=_UNROLLED)
