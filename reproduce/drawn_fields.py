"""The fields of a run's test part, drawn again at their own size."""

import pathlib
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax import build
from leukemia_jax.data import input_pipeline, synthetic, synthetic_cells
from leukemia_jax.workdir import saved
from leukemia_jax.workdir.saved import Trained


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


def of_test_part(run: pathlib.Path, trained: Trained, targets: str) -> Fields:
  """Draws them.

  Args:
    run: workdir of a run on synthetic smears.
    trained: the run.
    targets: what it learnt: 'classes' or 'masks'.

  Returns:
    The fields.
  """
  config = trained.config
  inputs = build.inputs(config, targets)
  _, catalogue = input_pipeline.load(inputs.spec)
  test = np.unique(saved.read_split(run).split.test[:, 0])
  key, spec = jax.random.key(config.synthetic.seed), synthetic_cells.SmearSpec()
  drawn = []
  for index in test:
    path, label = catalogue.ids[index], int(catalogue.labels[index])
    *_, patient, number = pathlib.PurePosixPath(path).stem.split('-')
    image, mask = synthetic.render_image(
      key, int(number), label, int(patient), spec=spec
    )
    centres = synthetic.cell_centres(key, int(number), label, spec=spec)
    drawn.append((image, _cells(mask, centres), label, int(patient)))
  return Fields(*(np.stack(part) for part in zip(*drawn, strict=True)))


def _cells(mask: np.ndarray, centres: np.ndarray) -> np.ndarray:
  """The exact mask, each pixel by the cell whose centre is nearest."""
  at = np.moveaxis(np.indices(mask.shape), 0, -1)[..., None, :]
  nearest = np.square(at - centres).sum(-1).argmin(-1) + 1
  return np.where(mask > 0, nearest, 0).astype(np.int32)
