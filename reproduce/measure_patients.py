"""Measures what keeping patients together changes, on synthetic smears.

    python -m reproduce.measure_patients

lays synthetic smears out as the C-NMC set lies on disk (three folds of
patients, all and hem, the patient in the file's name), and cross-validates a
small network twice: by these folds, and with grouping=none, which tears
patients apart; with three seeds each. Writes results/patients.json with both
balanced accuracies, and their difference with its interval over patients; about
half an hour on two cores.
"""

import csv
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
from typing import Any

import jax
import numpy as np
from PIL import Image

from leukemia_jax.data import synthetic, synthetic_cells
from leukemia_jax.evaluation import cross_validation
from leukemia_jax.metrics import classification, statistics
from reproduce.tables import RESULTS, ROOT

_SCALE = 0.3
_FOLDS = 3
_SEEDS = (0, 1, 2)
_NAMES = ('all', 'hem')
_FLAGS = (
  r'--config.data.patient=UID_([Hh]?\d+)_',
  f'--config.data.folds={_FOLDS}',
  '--config.data.benign_class=hem',
  '--config.data.image_size=75',
  '--config.train.epochs=8',
)
_WAYS = {
  'patients_disjoint': ('--config.data.split=source',),
  'patients_torn_apart': ('--config.data.grouping=none',),
}


def lay_out(folder: pathlib.Path) -> None:
  """Writes the smears as C-NMC's training data lie."""
  labels, patients = synthetic.assign_patients(_SCALE)
  key, spec = jax.random.key(0), synthetic_cells.SmearSpec()
  for i, (label, patient) in enumerate(zip(labels, patients, strict=True)):
    image, _ = synthetic.render_image(key, i, label, patient, spec=spec)
    is_healthy = synthetic.CLASSES[label] == 'Benign'
    name, mark = ('hem', 'H') if is_healthy else ('all', '')
    path = folder / f'fold_{patient % _FOLDS}' / name
    path.mkdir(parents=True, exist_ok=True)
    file = path / f'UID_{mark}{patient}_{i}_1_{name}.bmp'
    Image.fromarray(image).save(file)


def execute(source: str, workdir: str, *flags: str) -> list[str]:
  """Runs main.py; returns the command."""
  command = ['main.py', f'--workdir={workdir}', *_FLAGS, *flags]
  command.append(f'--config.data.source={source}')
  subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
  return command


def confusions(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The confusion matrix of each patient."""
  with path.open(encoding='utf-8', newline='') as stream:
    rows = list(csv.DictReader(stream))
  summed = cross_validation.classes(rows, _NAMES)
  by_patient: dict[str, Any] = {}
  for row, confusion in zip(rows, summed.sums, strict=True):
    by_patient[row['patient']] = by_patient.get(row['patient'], 0) + confusion
  return by_patient


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
  """Shape (draws, ways, seeds, classes, classes) to (draws, ways)."""
  flat = sums.reshape(-1, *sums.shape[-2:])
  scores = classification.means_over_classes(flat)['balanced_accuracy']
  return scores.reshape(sums.shape[:3]).mean(-1)


def main() -> None:
  """Runs both ways, and stores what they differ by."""
  commands, matrices = {}, []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    lay_out(folder / 'C-NMC_training_data')
    for way, flags in _WAYS.items():
      for seed in _SEEDS:
        workdir = folder / f'{way}-{seed}'
        command = execute(
          *(name + '/C-NMC_training_data', str(workdir)),
          *(*flags, f'--config.seed={seed}'),
        )
        commands[way] = shlex.join(['python', *command]).replace(name, 'runs')
        matrices.append(confusions(workdir / 'predictions.csv'))
  patients = sorted(matrices[0])
  # Shape (patients, ways, seeds, classes, classes).
  sums = np.stack([[run[patient] for run in matrices] for patient in patients])
  sums = sums.reshape(len(patients), len(_WAYS), len(_SEEDS), *sums.shape[2:])
  strata = sums.sum((1, 2, 4)).argmax(-1)

  def interval(score: Any) -> list[float]:
    rng = np.random.default_rng(0)
    return list(statistics.group_interval(rng, sums, score, strata=strata))

  each = balanced_accuracy(sums.sum(0)[None])[0]
  content = {
    'commands': commands,
    'images': int(sums[:, 0, 0].sum()),
    'patients': len(patients),
    'seeds': len(_SEEDS),
    'balanced_accuracy': dict(zip(_WAYS, each.tolist(), strict=True)),
    'interval_95': {
      way: interval(lambda s, i=i: balanced_accuracy(s)[:, i])
      for i, way in enumerate(_WAYS)
    },
    'difference': float(each[1] - each[0]),
    'difference_interval_95': interval(
      lambda s: balanced_accuracy(s)[:, 1] - balanced_accuracy(s)[:, 0]
    ),
  }
  path = RESULTS / 'patients.json'
  path.write_text(json.dumps(content, indent=2) + '\n')
  print(path.read_text())


if __name__ == '__main__':
  main()
