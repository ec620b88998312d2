"""Synthetic fields of patients that no run has seen, with their exact cells."""

from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax.data import synthetic, synthetic_cells

# Of a patient.
_FIELDS = 4
# Beyond the numbers of any set.
_FIRST_PATIENT, _FIRST_FIELD = 10_000, 100_000


class Fields(NamedTuple):
  """Synthetic fields of new patients.

  Attributes:
    images: uint8, shape (n, 224, 224, 3).
    cells: int32, shape (n, 224, 224): 0 for background, white cells from 1 on.
    labels: int32, shape (n,).
    patients: int32, shape (n,).
  """

  images: np.ndarray
  cells: np.ndarray
  labels: np.ndarray
  patients: np.ndarray


def of_new_patients(count: int) -> Fields:
  """Draws four of each patient: a function of nothing else.

  Args:
    count: patients of each class.
  """
  key, spec = jax.random.key(0), synthetic_cells.SmearSpec()
  drawn = []
  for i in range(count * _FIELDS * len(synthetic.CLASSES)):
    number = _FIRST_FIELD + i
    patient = _FIRST_PATIENT + i // _FIELDS
    label = (i // _FIELDS) % len(synthetic.CLASSES)
    image, mask = synthetic.render_image(key, number, label, patient, spec=spec)
    centres = synthetic.cell_centres(key, number, label, spec=spec)
    drawn.append((image, _cells(mask, centres), label, patient))
  return Fields(*(np.stack(part) for part in zip(*drawn, strict=True)))


def _cells(mask: np.ndarray, centres: np.ndarray) -> np.ndarray:
  """The exact mask, each pixel by the cell whose centre is nearest."""
  at = np.moveaxis(np.indices(mask.shape), 0, -1)[..., None, :]
  nearest = np.square(at - centres).sum(-1).argmin(-1) + 1
  return np.where(mask > 0, nearest, 0).astype(np.int32)
