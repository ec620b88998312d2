"""Batch normalisation."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from leukemia_jax.models.layers import Dtype, map_dtype, wants_plain

_EPSILON = 1e-3


# Jitted: JAX traces and differentiates such a function once for all layers of
# one shape.
@jax.jit
def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and variance of each channel, in one pass, in float32 or better."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  mean, square = x.mean((0, 1, 2)), jnp.square(x).mean((0, 1, 2))
  return mean, jnp.maximum(0.0, square - jnp.square(mean))


@functools.partial(jax.jit, static_argnames='dtype')
def _normalize(
  x: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  scale: jax.Array | None,
  bias: jax.Array,
  dtype: Dtype,
) -> jax.Array:
  factor = lax.rsqrt(var + _EPSILON)
  factor = factor if scale is None else factor * scale
  mean, factor, bias = (v[None, None, None] for v in (mean, factor, bias))
  return ((x - mean) * factor + bias).astype(dtype)


def _scaled(
  x: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  scale: jax.Array | None,
  bias: jax.Array,
) -> jax.Array:
  """`_normalize` by constants, which other programs make part of a kernel."""
  factor = 1 / np.sqrt(np.asarray(var) + _EPSILON)
  factor = factor if scale is None else factor * np.asarray(scale)
  shift = np.asarray(bias) - np.asarray(mean) * factor
  return x * factor[None, None, None] + shift[None, None, None]


class BatchNorm(nn.Module):
  """Batch normalisation with Keras' epsilon (Ioffe, Szegedy, arXiv:1502.03167).

  As Flax's, but traced once for each shape.

  Attributes:
    train: normalise by the batch and update the statistics, or use them.
    use_scale: whether there is a gamma.
    momentum: of the moving statistics.
    dtype: dtype of the computation; statistics are float32, and maps as
      `map_dtype` says.
  """

  train: bool
  use_scale: bool
  momentum: float = 0.99
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (batch, height, width, channels) arrays."""
    shape = (x.shape[-1],)
    running = {
      'mean': self.variable('batch_stats', 'mean', jnp.zeros, shape),
      'var': self.variable('batch_stats', 'var', jnp.ones, shape),
    }
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale = self.param('scale', ones, shape) if self.use_scale else None
    bias = self.param('bias', zeros, shape)
    mean, var = running['mean'].value, running['var'].value
    if self.train:
      mean, var = _moments(x)
      if not self.is_initializing():
        for name, new in (('mean', mean), ('var', var)):
          old = running[name].value
          running[name].value = self.momentum * old + (1 - self.momentum) * new
    dtype = map_dtype(self.dtype, train=self.train)
    if wants_plain():
      return _scaled(x, mean, var, scale, bias).astype(dtype)
    return _normalize(x, mean, var, scale, bias, dtype)
