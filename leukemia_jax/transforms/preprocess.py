"""What uint8 images are scaled to before a network sees them."""

import jax
import jax.numpy as jnp

# What network inputs are scaled to; see `preprocess`.
PREPROCESSING = ('unit', 'backbone')


def preprocess(images: jax.Array, kind: str | None) -> jax.Array:
  """Scales uint8 images for a network.

  Args:
    images: uint8, any shape; or features, float.
    kind: 'unit' for [0, 1], 'backbone' for [-1, 1] (ImageNet weights'); None
      for features, which stay as they are.

  Returns:
    float32 array of the same shape.
  """
  if kind is None:
    return images
  if kind not in PREPROCESSING:
    raise ValueError(f'no input scale {kind!r}; there are {PREPROCESSING}')
  values = images.astype(jnp.float32)
  return values / 255.0 if kind == 'unit' else values / 127.5 - 1.0
