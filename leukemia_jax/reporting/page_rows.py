"""Images, patients and parts as rows of a page's tables."""

import collections
from collections.abc import Mapping, Sequence

from leukemia_jax.data.names import natural_key
from leukemia_jax.data.splits import PARTS
from leukemia_jax.evaluation import predictions
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.reporting import pages
from leukemia_jax.workdir.records import Result

SHOWN_MISTAKES, SHOWN_PATIENTS = 12, 20


def where(row: Row, line: int, names: Mapping[str, str]) -> str:
  """Which image a row is of, without a patient's real id.

  Args:
    row: of predictions.csv.
    line: its number there; the header is line 1.
    names: from `patient_names`.

  Returns:
    The path; of a known patient the number, and the line of predictions.csv,
    since ids stand in paths.
  """
  if row['patient']:
    return f'{names[row["patient"]]}, line {line}'
  return pages.literal(row['path'])


def patient_names(rows: Sequence[Row]) -> dict[str, str]:
  """P01, P02, ... by the patient's real id, which stays in predictions.csv."""
  patients = sorted(
    {r['patient'] for r in rows if r['patient']}, key=natural_key
  )
  return {name: f'P{i:02}' for i, name in enumerate(patients, 1)}


def patient_rows(rows: Sequence[Row]) -> list[list[str]]:
  """The test part's patients, those with the lowest share correct first."""
  names = patient_names(rows)
  counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
  classes: dict[str, set[str]] = collections.defaultdict(set)
  for row in predictions.tested(rows):
    if row['patient']:
      counts[row['patient']][0] += 1
      is_correct = row['predicted_class'] == row['true_class']
      counts[row['patient']][1] += is_correct
      classes[row['patient']].add(row['true_class'])
  worst = sorted(counts, key=lambda p: (counts[p][1] / counts[p][0], names[p]))
  return [
    [
      names[patient],
      pages.literal(', '.join(sorted(classes[patient]))),
      str(counts[patient][0]),
      pages.percent(counts[patient][1] / counts[patient][0]),
    ]
    for patient in worst[:SHOWN_PATIENTS]
  ]


def mistake_rows(rows: Sequence[Row]) -> list[list[str]]:
  """The test images that were predicted incorrectly with most confidence."""
  names = patient_names(rows)
  lines = {id(row): line for line, row in enumerate(rows, 2)}
  incorrect = [
    row
    for row in predictions.tested(rows)
    if row['true_class'] != row['predicted_class']
  ]

  def confidence(row: Row) -> float:
    return float(row[f'p_{row["predicted_class"]}'])

  incorrect.sort(key=lambda row: (-confidence(row), row['path']))
  return [
    [
      where(row, lines[id(row)], names),
      pages.literal(row['true_class']),
      pages.literal(row['predicted_class']),
      pages.percent(confidence(row)),
    ]
    for row in incorrect[:SHOWN_MISTAKES]
  ]


def _some(patients: Sequence[str]) -> str:
  """The first of them."""
  more = ', ...' if len(patients) > SHOWN_PATIENTS else ''
  return ', '.join(patients[:SHOWN_PATIENTS]) + more


def parts_table(result: Result, rows: Sequence[Row]) -> list[list[str]]:
  """Images and patients of each part, in the order of `splits.PARTS`."""
  names, lines = patient_names(rows), []
  for part in PARTS:
    own = [row for row in rows if row['part'] == part]
    if not own:
      continue
    patients = sorted({names[r['patient']] for r in own if r['patient']})
    classes = collections.Counter(row['true_class'] for row in own)
    lines.append(
      [
        part,
        str(len(own)),
        ', '.join(
          f'{pages.literal(name)} {classes[name]}'
          for name in result.data.classes
          if name in classes
        )
        or '-',
        f'{len(patients)}: {_some(patients)}' if patients else '-',
      ]
    )
  return lines
