"""Measures how well cells of new patients are separated and sized.

    python -m reproduce.measure_cells --run=runs/cells

takes the finished run of the README's U-Net (configs/unet.py), draws fields of
new patients with their exact cells, and predicts them as --mode=predict does.
Writes results/cells.json; a minute on two cores.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image
from scipy import optimize

from leukemia_jax import progress
from leukemia_jax.inference import segmenter
from leukemia_jax.workdir import saved
from reproduce import drawn_fields
from reproduce.stored import RESULTS

_IOUS = (0.5, 0.75)


def _overlaps(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Intersection over union of each true (row) and predicted cell."""
  table = np.zeros((truth.max() + 1, predicted.max() + 1))
  np.add.at(table, (truth.ravel(), predicted.ravel()), 1)
  areas = table.sum(1)[1:, None] + table.sum(0)[None, 1:]
  # A cell that lies outside of the view has no pixel.
  return table[1:, 1:] / np.maximum(areas - table[1:, 1:], 1)


def _diameters(cells: np.ndarray) -> np.ndarray:
  """Of discs of the cells' areas, px."""
  areas = np.bincount(cells.ravel(), minlength=cells.max() + 1)[1:]
  return np.sqrt(areas * 4 / np.pi)


def measure(run: pathlib.Path) -> dict[str, Any]:
  """Compares predicted with true cells."""
  trained = saved.load_trained(run)
  own = segmenter.make(trained, run)
  fields = drawn_fields.of_new_patients()
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
    iou = _overlaps(cells, predicted)[sizes >= smallest]
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


def main() -> None:
  """Measures, and stores what came out."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--run', type=pathlib.Path, required=True)
  content = measure(parser.parse_args().run)
  text = json.dumps(content, indent=2) + '\n'
  (RESULTS / 'cells.json').write_text(text)


if __name__ == '__main__':
  main()
