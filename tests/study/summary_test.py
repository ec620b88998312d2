"""The ranking of rows, and their paired tests by hand."""

import dataclasses
import types

from leukemia_jax.study import summary


def test_winners_are_chosen_on_validation_alone():
  def line(model, option, worst, accuracy, loss, test, diverged=0):
    return {
      'model': model,
      'loading_option': option,
      'diverged': diverged,
      'val_worst_class_recall': worst,
      'val_accuracy': accuracy,
      'val_loss': loss,
      'test_worst_class_recall': test,
      'test_accuracy': test,
    }

  lines = [
    line('a', 1, 90, 99, 1, test=99),
    line('a', 1, 95, 96 + 1e-13, 9, test=50),
    line('a', 1, 95, 96, 8, test=40),
    line('a', 1, 99, 99, 0, test=99, diverged=1),
    line('b', 1, 80, 99, 1, test=99),
    line('a', 2, 70, 71, 1, test=1),
    line('a', 2, 70, 70, 0, test=99),
  ]
  # Worst class first, then accuracy, then loss; test scores choose nothing.
  assert summary.winners(lines) == [2, 4, 5]


def test_pairs_are_of_the_images_that_both_have():
  def row(images, labels, *predicted):
    return types.SimpleNamespace(
      test=types.SimpleNamespace(images=images, labels=labels),
      repeats=[types.SimpleNamespace(predicted=p) for p in predicted],
    )

  # Images 4 to 7 are common: only the first is correct on 4, 5 and 6.
  first = row([1, 4, 5, 6, 7], [0, 0, 1, 2, 3], [9, 0, 1, 2, 9], [9] * 5)
  second = row([4, 5, 6, 7, 8], [0, 1, 2, 3, 0], [9, 9, 9, 3, 0], [9] * 5)
  tests = summary.paired(first, second)
  assert [dataclasses.astuple(test)[:3] for test in tests] == [
    (4, 3, 1),
    (4, 0, 0),
  ]
  # Exact, by hand: 2 * (1 + 4) / 2^4.
  assert [test.p_value for test in tests] == [0.625, 1.0]
  assert [
    dataclasses.astuple(test)[1:3] for test in summary.paired(second, first)
  ] == [
    (1, 3),
    (0, 0),
  ]
