"""A study's rows in numbers: means over repeats, the ranking, paired tests."""

import itertools
from typing import Any, NamedTuple

import numpy as np

from leukemia_jax import models
from leukemia_jax.metrics import statistics
from leukemia_jax.metrics.statistics import Paired
from leukemia_jax.study.rows import RowRecord


class Column(NamedTuple):
  """A column of scores: the part and the score it is of, and its factor."""

  name: str
  part: str
  score: str
  factor: int


# The published columns: their losses are times 100, and their precision, recall
# and F1 are not of the test part but of validation.
PUBLISHED_SCORES = (
  Column('precision', 'test', 'precision', 1),
  Column('recall', 'test', 'balanced_accuracy', 1),
  Column('f1', 'test', 'macro_f1', 1),
  Column('train_accuracy', 'train', 'accuracy', 100),
  Column('train_loss', 'train', 'loss', 100),
  Column('val_accuracy', 'validation', 'accuracy', 100),
  Column('val_loss', 'validation', 'loss', 100),
  Column('test_accuracy', 'test', 'accuracy', 100),
  Column('test_loss', 'test', 'loss', 100),
)
MORE_SCORES = (
  Column('val_precision', 'validation', 'precision', 1),
  Column('val_recall', 'validation', 'balanced_accuracy', 1),
  Column('val_f1', 'validation', 'macro_f1', 1),
  Column('val_worst_class_recall', 'validation', 'worst_class_recall', 100),
  Column('test_worst_class_recall', 'test', 'worst_class_recall', 100),
)
# A line of results.csv, by column.
Line = dict[str, Any]


def _deviation(values: list[float]) -> float | None:
  return float(np.std(values, ddof=1)) if len(values) > 1 else None


def summarise(row: RowRecord) -> Line:
  """One line of results.csv: means over a row's repeats, then deviations.

  Args:
    row: a finished row.

  Returns:
    Values by column: those of the published table first, with its units:
    percent, and losses times 100.
  """
  line: Line = {
    'model': models.TITLES[row.model],
    'loading_option': row.option,
    'learning_rate': row.learning_rate,
    'dropout': row.dropout_rate,
  }
  deviations = {}
  for column in (*PUBLISHED_SCORES, *MORE_SCORES):
    values = [
      column.factor * getattr(getattr(repeat, column.part), column.score)
      for repeat in row.repeats
    ]
    line[column.name] = float(np.mean(values))
    deviations[f'{column.name}_std'] = _deviation(values)
  return line | {
    'repeats': len(row.repeats),
    **deviations,
    'diverged': sum(repeat.diverged for repeat in row.repeats),
    # Heads that predict no image of some class of the test part correctly.
    'class_lost': sum(
      repeat.test.worst_class_recall == 0 for repeat in row.repeats
    ),
    'epochs': float(np.mean([repeat.epochs for repeat in row.repeats])),
    'seconds': float(np.mean([repeat.seconds for repeat in row.repeats])),
    'row': row.number,
  }


def rank(line: Line) -> tuple[float, ...]:
  """The study's rule, on validation: high recall of every class first."""
  scores = (
    -line['diverged'],
    line['val_worst_class_recall'],
    line['val_accuracy'],
    -line['val_loss'],
  )
  # Equal means of several heads differ in their last bits.
  return tuple(round(score, 9) for score in scores)


def best(lines: list[Line]) -> int:
  """The index of the line of highest rank."""
  return max(range(len(lines)), key=lambda i: rank(lines[i]))


def winners(lines: list[Line]) -> list[int]:
  """The best line of each backbone and option, chosen on validation.

  Args:
    lines: from `summarise`.

  Returns:
    Their indices.
  """
  groups: dict[tuple[str, int], list[int]] = {}
  for i, line in enumerate(lines):
    group = line['model'], line['loading_option']
    groups.setdefault(group, []).append(i)
  return [g[best([lines[i] for i in g])] for g in groups.values()]


def to_csv(lines: list[Line]) -> str:
  """results.csv: six significant digits, nothing where a value is unknown."""
  import pandas as pd

  return pd.DataFrame(lines).to_csv(
    index=False, float_format='%.6g', lineterminator='\n'
  )


def _correct(row: RowRecord, repeat: int) -> dict[int, bool]:
  """Whether a head of a row predicts each test image correctly."""
  return {
    image: truth == predicted
    for image, truth, predicted in zip(
      row.test.images,
      row.test.labels,
      row.repeats[repeat].predicted,
      strict=True,
    )
  }


def paired(first: RowRecord, second: RowRecord) -> list[Paired]:
  """Compares two rows, repeat by repeat, on the test images of both."""
  comparisons = []
  for repeat in range(min(len(first.repeats), len(second.repeats))):
    of_first, of_second = _correct(first, repeat), _correct(second, repeat)
    common = sorted(of_first.keys() & of_second.keys())
    comparisons.append(
      statistics.mcnemar(
        np.array([of_first[i] for i in common], bool),
        np.array([of_second[i] for i in common], bool),
      )
    )
  return comparisons


class Comparison(NamedTuple):
  """Two rows, by index, and their paired tests, one a repeat."""

  first: int
  second: int
  tests: list[Paired]


def comparisons(rows: list[RowRecord], chosen: list[int]) -> list[Comparison]:
  """Pairs of rows that differ in either backbone or option.

  Args:
    rows: all rows.
    chosen: indices of those to compare, from `winners`.

  Returns:
    The comparisons.
  """
  return [
    Comparison(first, second, paired(rows[first], rows[second]))
    for first, second in itertools.combinations(chosen, 2)
    if (rows[first].model == rows[second].model)
    != (rows[first].option == rows[second].option)
  ]


class Duel(NamedTuple):
  """The best backbone of an option beside another, and what tells them apart.

  Attributes:
    option: the loading option.
    first: index of the best row by validation.
    second: index of another backbone's.
    recall: difference of their worst class recall on the test part, points.
    accuracy: difference of their test accuracy, points.
    p_values: of paired tests, one a repeat.
  """

  option: int
  first: int
  second: int
  recall: float
  accuracy: float
  p_values: list[float]


def duels(
  rows: list[RowRecord], lines: list[Line], chosen: list[int]
) -> list[Duel]:
  """Which backbone wins, by option.

  Args:
    rows: all rows.
    lines: of the rows.
    chosen: from `winners`.

  Returns:
    The winner beside each other backbone.
  """
  results = []
  for option in dict.fromkeys(rows[i].option for i in chosen):
    of_option = [i for i in chosen if rows[i].option == option]
    first, *others = sorted(
      of_option, key=lambda i: rank(lines[i]), reverse=True
    )
    for second in others:
      recall, accuracy = (
        lines[first][score] - lines[second][score]
        for score in ('test_worst_class_recall', 'test_accuracy')
      )
      p_values = [test.p_value for test in paired(rows[first], rows[second])]
      results.append(Duel(option, first, second, recall, accuracy, p_values))
  return results


def interval(share: float, count: int) -> tuple[float, float]:
  """The 95 % interval of a share of `count` images, in percent."""
  low, high = statistics.wilson_interval(round(share * count), count)
  return 100 * low, 100 * high
