"""--mode=compare: two runs on the images that both were tested on."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import files
from leukemia_jax.data import grouping
from leukemia_jax.errors import InputError
from leukemia_jax.evaluation import comparison, predictions
from leukemia_jax.evaluation.comparison import Comparison
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.lock import lock_run
from leukemia_jax.metrics import bootstrap
from leukemia_jax.reporting import comparison_page
from leukemia_jax.workdir import claim, result
from leukemia_jax.workdir.records import Result

_SEED = 0
# How the paths of augmented copies end.
_COPY = re.compile(r'#copy\d+$')


def run(workdir: pathlib.Path, folders: Sequence[pathlib.Path]) -> None:
  """Compares two runs: McNemar's test, and a bootstrap of both at once.

  Args:
    workdir: where compare.json, compare.md and compare.html go.
    folders: workdirs of two finished training runs or evaluations.

  Raises:
    InputError: a run is not finished, or both were not tested on one set.
  """
  named = {'runs': [str(folder.resolve()) for folder in folders]}
  claim.check(workdir, 'compare', ConfigDict(), **named)
  results = [result.read(folder) for folder in folders]
  _check(folders, results)
  first, second = _common(folders, results[0].data.classes)
  with lock_run(workdir):
    claim.claim(workdir, 'compare', ConfigDict(), **named)
    record = _compare(folders, results, first, second)
    files.write_json(
      workdir / 'compare.json',
      {'format': claim.FORMAT} | result.to_json(record),
    )
    path = comparison_page.write(workdir, record)
  print(f'{comparison_page.verdict(record)} See {path}')


def _check(folders: Sequence[pathlib.Path], results: Sequence[Result]) -> None:
  """Refuses runs that can't be compared."""
  facts: dict[str, list[Any]] = {
    'task': [run.task for run in results],
    'image set': [run.data.fingerprint for run in results],
    'classes': [run.data.classes for run in results],
  }
  if results[0].task == 'segmentation':
    facts['how masks are read'] = [
      run.data.masks and (run.data.masks.rule, run.data.masks.cleaned)
      for run in results
    ]
  for name, values in facts.items():
    if values[0] != values[1]:
      # A fingerprint tells a person nothing.
      words = [run.data.source for run in results]
      if name != 'image set':
        words = [str(value) for value in values]
      raise InputError(
        f'--runs: {folders[0]} and {folders[1]} differ in {name} '
        f'({words[0]}, {words[1]}); score both on the same set with '
        '--mode=evaluate'
      )


def _common(
  folders: Sequence[pathlib.Path], class_names: Sequence[str]
) -> list[list[Row]]:
  """The rows of the images that both runs were tested on, in one order."""
  by_path = []
  for folder in folders:
    _, rows = predictions.read(folder / predictions.NAME, class_names)
    # Copies of one name are augmented otherwise by another seed.
    by_path.append(
      {
        row['path']: row
        for row in predictions.tested(rows)
        if not _COPY.search(row['path'])
      }
    )
  paths = sorted(by_path[0].keys() & by_path[1].keys())
  if not paths:
    raise InputError(
      f'--runs: no image is in the test part of both {folders[0]} and '
      f'{folders[1]}; give both the same config.seed and split'
    )
  return [[rows[path] for path in paths] for rows in by_path]


def _compare(
  folders: Sequence[pathlib.Path],
  results: Sequence[Result],
  first: Sequence[Row],
  second: Sequence[Row],
) -> Comparison:
  """Compares two runs' rows of the same images."""
  _, labels = np.unique(
    [row['true_class'] for row in first], return_inverse=True
  )
  # What either run keeps together is: whichever is named first.
  both = [
    np.unique([row['group'] for row in rows], return_inverse=True)[1]
    for rows in (first, second)
  ]
  coarser = int(both[1].max() < both[0].max())
  groups = bootstrap.make_groups(grouping.join(*both), labels)
  intervals = results[coarser].intervals
  rng, paired = np.random.default_rng(_SEED), None
  run = results[0]
  if run.task == 'classification':
    scores, paired = comparison.compare_classes(
      first, second, run.data.classes, groups, rng
    )
  else:
    scores = comparison.compare_masks(first, second, groups, rng)
  names = [folder.resolve().name for folder in folders]
  return Comparison(
    runs=names if len(set(names)) == 2 else [str(own) for own in folders],
    images=len(first),
    groups=len(groups.majority),
    group=intervals.group if intervals else 'image',
    scores=scores,
    paired=paired,
  )
