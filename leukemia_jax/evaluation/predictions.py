"""predictions.csv: each image by name, with what was said of it."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from leukemia_jax.errors import InputError
from leukemia_jax.evaluation.assessment import Outcomes
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.evaluation.scored import MaskPredictions, Scored, Subject

NAME = 'predictions.csv'
Row = dict[str, str]
# Columns of any model.
_FIRST = ('path', 'part', 'patient', 'group', 'true_class')
_PIXELS = (
  'true_positives',
  'false_positives',
  'false_negatives',
  'true_negatives',
)


def to_csv(subject: Subject, scored: Scored) -> str:
  """Each image of each scored part.

  Args:
    subject: what was scored.
    scored: the predictions.

  Returns:
    CSV with the columns path, part, patient, group (what intervals are over, as
    a number), true_class, and for a classifier predicted_class, p_<class> for
    each class, loss, and of test images shortcut_class, what the best shortcut
    predicts; for a segmenter the fields of `MaskPredictions`. The path
    of an augmented copy ends with its number, as #copy1.
  """
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  first = next(iter(scored.predictions.values()))
  by_shortcut = scored.shortcut_labels
  header = [*_FIRST]
  if isinstance(first, ClassPredictions):
    shares = [f'p_{name}' for name in subject.class_names]
    header += ['predicted_class', *shares, 'loss']
    if by_shortcut is not None:
      header.append('shortcut_class')
  else:
    header += MaskPredictions._fields
  writer.writerow(header)
  for part, predictions in scored.predictions.items():
    for i, own in enumerate(_rows(subject, part, predictions)):
      last = []
      if by_shortcut is not None:
        last = [subject.class_names[by_shortcut[i]] if part == 'test' else '']
      writer.writerow([*own, *last])
  return stream.getvalue()


def read(
  path: pathlib.Path, class_names: Sequence[str]
) -> tuple[list[str], list[Row]]:
  """Reads predictions.csv.

  Args:
    path: of the file.
    class_names: of the model.

  Returns:
    The columns, and the rows of all parts, of which `outcomes` or
    `pixel_counts` can be made.

  Raises:
    InputError: it is missing or damaged.
  """
  try:
    with path.open(encoding='utf-8', newline='') as stream:
      reader = csv.DictReader(stream, strict=True)
      header = list(reader.fieldnames or ())
      rows: list[Row] = list(reader)
  except (OSError, ValueError, csv.Error) as error:
    raise InputError(f'{path} cannot be read: {error}') from None
  says_classes = 'predicted_class' in header
  numbers = [*_PIXELS, 'dice']
  if says_classes:
    numbers = [*(f'p_{name}' for name in class_names), 'loss']
  if not {*_FIRST, *numbers} <= set(header) or any(
    None in row.values() or None in row for row in rows
  ):
    raise InputError(f'{path} is damaged: its columns are not those of a run')
  for line, row in enumerate(rows, 2):
    try:
      for name in numbers:
        (int if name in _PIXELS else float)(row[name])
    except ValueError as error:
      raise InputError(f'{path}, line {line}, is damaged: {error}') from None
    if says_classes and not {
      row['true_class'],
      row['predicted_class'],
    } <= set(class_names):
      raise InputError(
        f'{path}, line {line}, is damaged: no class of the model'
      )
  return header, rows


def join(
  paths: Sequence[pathlib.Path], class_names: Sequence[str]
) -> tuple[list[str], list[Row]]:
  """The test parts of folds: each image once, by the model that never saw it.

  Args:
    paths: of the folds' files.
    class_names: of their models.

  Returns:
    The columns, and the rows, whose part is fold_<number>.

  Raises:
    InputError: a file is missing or damaged.
  """
  joined: list[Row] = []
  header: list[str] = []
  for fold, path in enumerate(paths):
    header, rows = read(path, class_names)
    tested = [row for row in rows if row['part'] == 'test']
    joined += [row | {'part': f'fold_{fold}'} for row in tested]
  return header, joined


def tested(rows: Sequence[Row]) -> list[Row]:
  """The rows of a test part, or of all folds'."""
  return [row for row in rows if row['part'] not in ('train', 'validation')]


def outcomes(rows: Sequence[Row], class_names: Sequence[str]) -> Outcomes:
  """What a classifier's rows say, without a temperature.

  Args:
    rows: of a classifier.
    class_names: of the model.

  Returns:
    Their arrays.
  """
  number = {name: i for i, name in enumerate(class_names)}
  columns = [f'p_{name}' for name in class_names]
  return Outcomes(
    np.array([number[row['true_class']] for row in rows]),
    # Not the likeliest one: probabilities are rounded here, and may be alike.
    np.array([number[row['predicted_class']] for row in rows]),
    np.array([[float(row[name]) for name in columns] for row in rows]),
    np.array([float(row['loss']) for row in rows]),
  )


def pixel_counts(rows: Sequence[Row]) -> np.ndarray:
  """Counted pixels of a segmenter's rows: int (n, 4), `segmentation.counts`."""
  return np.array([[int(row[name]) for name in _PIXELS] for row in rows])


def from_rows(header: Sequence[str], rows: Sequence[Row]) -> str:
  """Rows that `join` read, as CSV again."""
  stream = io.StringIO()
  writer = csv.DictWriter(stream, header, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return stream.getvalue()


def _rows(
  subject: Subject, part: str, predictions: ClassPredictions | MaskPredictions
) -> Iterator[Sequence[Any]]:
  catalogue, names = subject.catalogue, subject.class_names
  labels = np.asarray(subject.dataset.labels)
  for i, index in enumerate(subject.parts[part]):
    source, copy = subject.origins[index].tolist()
    path = catalogue.ids[source] + (f'#copy{copy}' if copy else '')
    own: list[Any]
    if isinstance(predictions, ClassPredictions):
      own = [
        names[predictions.labels[i]],
        *map(_short, predictions.probabilities[i]),
        _short(predictions.losses[i]),
      ]
    else:
      dice, *counts = (column[i] for column in predictions)
      own = [_short(dice), *map(int, counts)]
    true_class = names[labels[index]] if catalogue.has_classes else ''
    group = subject.groups.ids[source]
    patient = catalogue.patients[source]
    yield [path, part, patient, group, true_class, *own]


def _short(value: float) -> str:
  return f'{value:.6g}'
