"""Keras' initialisers, whose draws are compiled for few lengths.

A network has kernels of dozens of shapes, and a program that draws takes a
fifth of a second to compile. JAX' random bits depend on the key and on a
value's place alone (`jax_threefry_partitionable`): a kernel's are the first of
a longer draw, whose length kernels of many shapes share.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Initializer = jax.nn.initializers.Initializer
# The standard deviation of a standard normal distribution cut off at 2.
_TRUNCATED_STDDEV = 0.87962566103423978
# The names of `uniform` and of initialisers in a traced program.
UNIFORM, INITIALIZER = 'uniform', 'initialize'


@functools.partial(jax.jit, static_argnums=1)
def uniform(key: jax.Array, length: int) -> jax.Array:
  """Draws of [-1, 1): the same bits, whether they are optimised or not.

  Args:
    key: PRNG key.
    length: how many.

  Returns:
    float32, shape (length,).
  """
  return jax.random.uniform(key, (length,), jnp.float32, minval=-1)


@jax.jit
def _truncated_normal(uniform: jax.Array) -> jax.Array:
  """`jax.random.truncated_normal` within [-2, 2], from draws of [-1, 1)."""
  root = np.sqrt(2).astype(np.float32)
  limit = lax.erf(2 / root)
  share = (uniform + 1) / 2
  within = lax.max(-limit, share * (limit + limit) - limit)
  inside = np.nextafter(np.float32(2), np.float32(0))
  return lax.clamp(-inside, root * lax.erf_inv(within), inside)


@functools.partial(jax.jit, static_argnums=2)
def _fill(
  draws: jax.Array, scale: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  return (draws[: math.prod(shape)] * scale).reshape(shape)


def _initializer(
  distribution: Callable[[jax.Array], jax.Array],
  scale: Callable[[int, int], jax.Array],
) -> Initializer:
  """An initialiser of float32 kernels.

  Args:
    distribution: maps draws of [-1, 1) to those wanted.
    scale: by what they are multiplied, of a kernel's fan-in and fan-out.

  Returns:
    (key, shape) -> kernel, its last two axes inputs and outputs.
  """

  # Jitted, since Flax traces it wherever a parameter is read: so once for each
  # shape.
  @functools.partial(jax.jit, static_argnums=(1, 2))
  def initialize(
    key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32
  ) -> jax.Array:
    *window, inputs, outputs = shape
    size, places = math.prod(shape), math.prod(window)
    draws = uniform(key, 1 << (size - 1).bit_length())
    factor = scale(places * inputs, places * outputs)
    return _fill(distribution(draws), factor, shape).astype(dtype)

  return initialize


# As `jax.nn.initializers.glorot_uniform()`: Keras' default.
GLOROT_UNIFORM = _initializer(
  lambda draws: draws,
  lambda fan_in, fan_out: jnp.sqrt(3 * jnp.float32(2 / (fan_in + fan_out))),
)
# As `jax.nn.initializers.he_normal()`.
HE_NORMAL = _initializer(
  _truncated_normal,
  lambda fan_in, _: (
    jnp.sqrt(jnp.float32(2 / fan_in)) / jnp.float32(_TRUNCATED_STDDEV)
  ),
)
