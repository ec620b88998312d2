"""limits.npz: what a classifier's own images looked like to it.

Predictions of new images compare with it. The rates of false alarms and of
coverage are chosen there, so held-out images are stored one by one.
"""

import io
import pathlib
from typing import NamedTuple

import numpy as np

from leukemia_jax import files
from leukemia_jax.errors import InputError
from leukemia_jax.metrics.outliers import Detector

NAME = 'limits.npz'


class HeldOut(NamedTuple):
  """Images that a classifier was not trained on.

  Attributes:
    distances: float64, shape (n,), see `metrics.outliers`.
    probabilities: float32, shape (n, classes), without a temperature.
    labels: int32, shape (n,).
  """

  distances: np.ndarray
  probabilities: np.ndarray
  labels: np.ndarray


class Limits(NamedTuple):
  """What a classifier knows of its own images.

  Attributes:
    detector: fitted to the training part.
    validation: the validation part, which thresholds come from.
  """

  detector: Detector
  validation: HeldOut


def write(workdir: pathlib.Path, limits: Limits) -> None:
  """Writes limits.npz."""
  stream = io.BytesIO()
  np.savez(stream, **limits.detector._asdict(), **limits.validation._asdict())
  files.write(workdir / NAME, stream.getvalue())


def read(workdir: pathlib.Path) -> Limits:
  """Reads limits.npz.

  Args:
    workdir: of a classifier's training run.

  Returns:
    The limits.

  Raises:
    InputError: it is missing or damaged.
  """
  path = workdir / NAME
  try:
    with np.load(path, allow_pickle=False) as arrays:
      detector = Detector(*(arrays[name] for name in Detector._fields))
      validation = HeldOut(*(arrays[name] for name in HeldOut._fields))
  except Exception as error:
    # NumPy, zipfile and zlib raise many kinds on damaged files.
    raise InputError(f'{path} cannot be read: {error}') from None
  _check(path, detector, validation)
  return Limits(detector, validation)


def _check(path: pathlib.Path, detector: Detector, validation: HeldOut) -> None:
  """Refuses arrays that don't fit each other."""
  count, classes = (*validation.probabilities.shape, 0, 0)[:2]
  shapes = [
    (detector.precision, detector.means.shape[1:] * 2),
    (validation.probabilities, (count, classes)),
    (validation.distances, (count,)),
    (validation.labels, (count,)),
  ]
  is_whole = np.issubdtype(validation.labels.dtype, np.integer)
  if any(a.shape != shape for a, shape in shapes) or not (
    is_whole
    and ((0 <= validation.labels) & (validation.labels < classes)).all()
  ):
    raise InputError(f'{path} is damaged: its arrays do not fit each other')
