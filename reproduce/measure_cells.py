"""Measures how well cells of new patients are separated and sized.

    python -m reproduce.measure_cells --run=runs/cells

takes the finished run of the README's U-Net (configs/unet.py), draws fields of
new patients with their exact cells, and predicts them as --mode=predict does.
Writes results/cells.json; a minute on two cores.
"""

import pathlib
from typing import Any

import numpy as np
from PIL import Image
from scipy import optimize

from leukemia_jax import progress
from leukemia_jax.inference import segmenter
from leukemia_jax.metrics import objects
from leukemia_jax.workdir import saved
from reproduce import drawn_fields
from reproduce.stored import measure_run

_IOUS = (0.5, 0.75)


def _diameters(cells: np.ndarray) -> np.ndarray:
  """Of discs of the cells' areas, px."""
  areas = np.bincount(cells.ravel(), minlength=cells.max() + 1)[1:]
  return np.sqrt(areas * 4 / np.pi)


def measure(run: pathlib.Path) -> dict[str, Any]:
  """Compares predicted with true cells."""
  trained = saved.load_trained(run)
  own = segmenter.make(trained, run)
  fields = drawn_fields.of_new_patients(10)
  smallest = own.smallest * fields.images.shape[1]
  matched = dict.fromkeys(_IOUS, 0)
  true_cells = predicted_cells = 0
  errors: list[float] = []
  for image, cells in progress.track(
    zip(fields.images, fields.cells, strict=True),
    'Measuring',
    len(fields.images),
  ):
    predicted = segmenter.separate(own, Image.fromarray(image), 1.0)
    sizes, predicted_sizes = _diameters(cells), _diameters(predicted)
    # Specks at the border are no cells, in truth as in predictions.
    iou = objects.overlaps(cells, predicted)[sizes >= smallest]
    sizes = sizes[sizes >= smallest]
    true_cells += len(sizes)
    predicted_cells += len(predicted_sizes)
    for limit in _IOUS:
      pairs = optimize.linear_sum_assignment(iou >= limit, maximize=True)
      is_match = iou[pairs] >= limit
      matched[limit] += int(is_match.sum())
      if limit == _IOUS[0]:
        i, j = (part[is_match] for part in pairs)
        errors += (np.abs(predicted_sizes[j] / sizes[i] - 1)).tolist()
  return {
    'command': 'python -m reproduce.measure_cells --run=runs/cells',
    'images': len(fields.images),
    'patients': len(np.unique(fields.patients)),
    'cells': true_cells,
    'f1': {
      f'{limit:g}': 2 * count / (true_cells + predicted_cells)
      for limit, count in matched.items()
    },
    'diameter_error': {
      'median': float(np.median(errors)),
      'percentile_90': float(np.percentile(errors, 90)),
    },
  }


if __name__ == '__main__':
  measure_run(__doc__, 'cells', measure)
