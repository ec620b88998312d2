"""How much larger cells are in new images than in those of training."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax import files
from leukemia_jax.data import decode
from leukemia_jax.inference.inputs import Image
from leukemia_jax.metrics import magnification
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal


class Reference(NamedTuple):
  """What new images are compared with.

  Attributes:
    spectrum: mean of training images; see `metrics.magnification`.
    size: side of the training images, px.
    removal: what was taken out of them.
    decoding: how files are decoded.
  """

  spectrum: Sequence[float]
  size: int
  removal: Removal
  decoding: decode.Options


class Measured(NamedTuple):
  """What a set of new images says.

  Attributes:
    scale: factor on their size; see `decode.to_scale`.
    images: number of images that were measured.
    is_known: whether they agree on it; if not, scale is 1.
  """

  scale: float
  images: int
  is_known: bool


def measure(images: Iterable[Image], reference: Reference) -> Measured:
  """Compares new images with those of training.

  Args:
    images: some; those that can't be read are passed over.
    reference: of the training images.

  Returns:
    The scale that makes cells as large as in training.
  """
  spectrum, size, removal, decoding = reference
  # Masks are not known here; cells are.
  removal = removal._replace(neutral_background=False)

  @jax.jit
  def remove(image: jax.Array) -> jax.Array:
    removed = colour.remove(image, None, removal)
    return colour.without_corners(removed, removal)

  squares = []
  for image in images:
    try:
      squares.append(decode.read(image.read(), size, decoding))
    except Exception as error:
      files.check_machine(error, image.path)
      # Whatever is wrong with it is said where it is predicted.
      continue
  if not squares:
    return Measured(1.0, 0, False)
  own = magnification.mean_spectrum(np.asarray(remove(x)) for x in squares)
  factor = magnification.factor(
    own, np.asarray(spectrum), side=size, images=len(squares)
  )
  return Measured(1 / (factor or 1.0), len(squares), factor is not None)
