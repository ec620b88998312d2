"""Measures what keeping patients together changes, on synthetic smears.

    python -m reproduce.measure_patients

lays synthetic smears out as the C-NMC set lies on disk (three folds of
patients, all and hem, the patient in the file's name), and cross-validates a
small network twice: by these folds, and with grouping=none, which tears
patients apart; with three seeds each. Writes results/patients.json with both
balanced accuracies, and their difference with its interval over patients; about
half an hour on two cores.
"""

import collections
import csv
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

import jax
import numpy as np
from PIL import Image

from leukemia_jax.data import synthetic, synthetic_cells
from leukemia_jax.metrics import bootstrap, classification
from reproduce.stored import RESULTS, ROOT

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
  by_patient: dict[str, np.ndarray] = collections.defaultdict(
    lambda: np.zeros((len(_NAMES), len(_NAMES)))
  )
  for row in rows:
    classes = row['true_class'], row['predicted_class']
    by_patient[row['patient']][*map(_NAMES.index, classes)] += 1
  return by_patient


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
  """Shape (draws, ways, seeds, classes, classes) to (draws, ways)."""
  flat = sums.reshape(-1, *sums.shape[-2:])
  scores = classification.of_confusions(flat)['balanced_accuracy']
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
  by_class = sums.sum((1, 2, 4))

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    scored = balanced_accuracy(np.tensordot(times, sums, 1))
    own = dict(zip(_WAYS, scored.T, strict=True))
    return own | {'difference': scored[:, 1] - scored[:, 0]}

  groups = bootstrap.Groups(
    np.arange(len(sums)), by_class.argmax(-1), by_class > 0
  )
  scores, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0), groups, score, not_shares=['difference']
  )
  content = {
    'commands': commands,
    'images': int(sums[:, 0, 0].sum()),
    'patients': len(patients),
    'seeds': len(_SEEDS),
    'balanced_accuracy': {way: scores[way] for way in _WAYS},
    'interval_95': {way: ends[way] for way in _WAYS},
    'difference': scores['difference'],
    'difference_interval_95': ends['difference'],
  }
  path = RESULTS / 'patients.json'
  path.write_text(json.dumps(content, indent=2) + '\n')
  print(path.read_text())


if __name__ == '__main__':
  main()
