"""Trained models as a Python object: images in, tables and arrays out."""

import functools
import itertools
import numbers
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from leukemia_jax import files
from leukemia_jax.config_keys import LARGEST_SCALE
from leukemia_jax.data import checked, decode
from leukemia_jax.errors import InputError
from leukemia_jax.inference import prediction, scale
from leukemia_jax.inference.inputs import Image
from leukemia_jax.inference.loading import Loaded
from leukemia_jax.inference.prediction import Models, Predicted
from leukemia_jax.inference.segmenter import Cell

if TYPE_CHECKING:
  import pandas as pd

# A path, or uint8 pixels of shape (height, width, 3) or (height, width).
Source = str | pathlib.Path | np.ndarray


class Model:
  """One or more trained models; see `leukemia_jax.load`.

  Attributes:
    class_names: of a classifier's classes; () without one.
  """

  def __init__(self, loaded: Loaded):
    """Takes models that `loading.load` loaded."""
    self._loaded = loaded
    classifiers = loaded.models.classifiers
    self.class_names = classifiers[0].class_names if classifiers else ()

  def measure_scale(self, images: Iterable[Source]) -> float:
    """How images must be scaled so that cells are as large as in training.

    Args:
      images: paths or arrays, the more the surer.

    Returns:
      A factor on their size; 1 where they don't say.

    Raises:
      InputError: they are no list, or one of them is no image.
    """
    some = itertools.starmap(_to_image, enumerate(_several(images)))
    return scale.measure(some, self._loaded.reference).scale

  def predict(
    self, images: Sequence[Source], *, scale: float = 1.0
  ) -> 'pd.DataFrame':
    """Predicts the class of images.

    Args:
      images: paths or arrays.
      scale: factor on their size, as 0.5 where cells are twice as large as in
        training; see `measure_scale`.

    Returns:
      A row an image: path ('' of an array), predicted_class, p_<class> of each
      class, entropy in nats, and flags, joined by ';': 'ok', 'unlike the
      training images', 'uncertain'.

    Raises:
      InputError: there is no classifier, or an image can't be read; says which.
    """
    import pandas as pd

    if not self.class_names:
      raise InputError('predict needs a classifier: load one')
    rows, images = [], list(_several(images))
    models = self._loaded.models._replace(segmenter=None)
    for own, image in zip(
      self._run(models, images, scale), images, strict=True
    ):
      assert own.answers is not None
      shares = own.answers.probabilities[0]
      name = '' if isinstance(image, np.ndarray) else str(image)
      answer = self.class_names[int(shares.argmax())]
      flags = own.answers.flags()[0]
      rows.append([name, answer, *shares, own.answers.entropy[0], flags])
    columns = [f'p_{name}' for name in self.class_names]
    return pd.DataFrame(
      rows, columns=['path', 'predicted_class', *columns, 'entropy', 'flags']
    )

  def instances(
    self, images: Sequence[Source], *, scale: float = 1.0
  ) -> list[np.ndarray]:
    """Finds white cells.

    Args:
      images: paths or arrays.
      scale: see `predict`.

    Returns:
      int32 of each image's own height and width: 0 for background, cells from 1
      on.

    Raises:
      InputError: there is no segmenter, or an image can't be read.
    """
    arrays = []
    for own in self._segment(images, scale):
      assert own.instances is not None
      arrays.append(own.instances)
    return arrays

  def cells(
    self, images: Sequence[Source], *, scale: float = 1.0
  ) -> 'pd.DataFrame':
    """Measures white cells.

    Args:
      images: paths or arrays.
      scale: see `predict`.

    Returns:
      A row a cell: image, its place in `images`, and the fields of
      `segmenter.Cell`.

    Raises:
      InputError: there is no segmenter, or an image can't be read.
    """
    import pandas as pd

    rows = [
      [i, *cell]
      for i, own in enumerate(self._segment(images, scale))
      for cell in own.cells or ()
    ]
    return pd.DataFrame(rows, columns=['image', *Cell._fields])

  def _segment(
    self, images: Sequence[Source], scale: float
  ) -> Iterator[Predicted]:
    models = self._loaded.models._replace(classifiers=())
    if models.segmenter is None:
      raise InputError('cells need a segmenter: load one')
    return self._run(models, images, scale)

  def _run(
    self, models: Models, images: Sequence[Source], scale: float
  ) -> Iterator[Predicted]:
    if not isinstance(scale, numbers.Real) or not 0 < scale <= LARGEST_SCALE:
      raise InputError(
        f'scale={scale!r} must be above 0, at most {LARGEST_SCALE}'
      )
    models = models._replace(scale=float(scale))
    listed = itertools.starmap(_to_image, enumerate(_several(images)))
    for own in prediction.predict(
      models, listed, batch_size=self._loaded.batch_size
    ):
      if own.flaw:
        raise InputError(f'{own.path}: {own.flaw}')
      yield own


def _several(images: Iterable[Source]) -> Iterable[Source]:
  """The images; refuses one alone, which Python would take apart."""
  if isinstance(images, str | bytes | os.PathLike) or (
    isinstance(images, np.ndarray) and images.ndim < 4
  ):
    raise InputError('give a list of images, even for one')
  return images


def _to_image(index: int, image: Source) -> Image:
  """An image that goes the way of files, whatever it is."""
  if isinstance(image, str | os.PathLike):
    path = files.expand(image)
    return Image(str(image), functools.partial(_read, path))
  if not isinstance(image, np.ndarray):
    raise InputError(
      f'image {index}: give a path or a uint8 array, not {type(image).__name__}'
    )
  if image.dtype != np.uint8 or image.ndim != 2 and image.shape[2:] != (3,):
    raise InputError(
      f'image {index}: an array must be uint8, of shape (height, width, 3) or '
      f'(height, width), not {image.dtype} {image.shape}'
    )
  return Image(f'image {index}', lambda: checked.to_png(image))


def _read(path: pathlib.Path) -> bytes:
  if path.exists() and not path.is_file():
    raise decode.BadImageError('no plain file')
  return path.read_bytes()
