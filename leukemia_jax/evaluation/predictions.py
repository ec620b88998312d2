"""predictions.csv: each image by name, with what was said of it."""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from leukemia_jax.errors import InputError
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.evaluation.scored import MaskPredictions, Scored, Subject

NAME = 'predictions.csv'


def to_csv(subject: Subject, scored: Scored) -> str:
  """Each image of each scored part.

  Args:
    subject: what was scored.
    scored: the predictions.

  Returns:
    CSV with the columns path, part, patient, true_class, and for a classifier
    predicted_class, p_<class> for each class, loss; for a segmenter the fields
    of `MaskPredictions`. The path of an augmented copy ends with its number, as
    #copy1.
  """
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  first = next(iter(scored.predictions.values()))
  header = ['path', 'part', 'patient', 'true_class']
  if isinstance(first, ClassPredictions):
    shares = [f'p_{name}' for name in subject.class_names]
    header += ['predicted_class', *shares, 'loss']
  else:
    header += MaskPredictions._fields
  writer.writerow(header)
  for part, predictions in scored.predictions.items():
    writer.writerows(_rows(subject, part, predictions))
  return stream.getvalue()


def join(
  paths: Sequence[pathlib.Path],
) -> tuple[list[str], list[dict[str, str]]]:
  """The test parts of folds: each image once, by the model that never saw it.

  Args:
    paths: of the folds' files.

  Returns:
    The columns, and the rows, whose part is fold_<number>.

  Raises:
    InputError: a file is missing or damaged.
  """
  joined: list[dict[str, str]] = []
  header: list[str] = []
  for fold, path in enumerate(paths):
    try:
      with path.open(encoding='utf-8', newline='') as stream:
        reader = csv.DictReader(stream, strict=True)
        header = list(reader.fieldnames or ())
        rows = [row for row in reader if row['part'] == 'test']
    except (OSError, ValueError, KeyError, csv.Error) as error:
      raise InputError(f'{path} cannot be read: {error}') from None
    joined += [row | {'part': f'fold_{fold}'} for row in rows]
  return header, joined


def from_rows(header: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
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
    yield [path, part, catalogue.patients[source], true_class, *own]


def _short(value: float) -> str:
  return f'{value:.6g}'
