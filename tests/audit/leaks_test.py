"""Leaks of splits that were made by hand."""

import dataclasses

import conftest
import numpy as np

from leukemia_jax.audit.duplicates import Duplicates, Pair
from leukemia_jax.audit.leaks import count_leaks
from leukemia_jax.data.splits import Split


def split(train, validation, test) -> Split:
  return Split(
    *(
      np.array(part, np.int32).reshape(-1, 2)
      for part in (train, validation, test)
    )
  )


def test_each_kind_of_leak_is_counted_once():
  catalogue = conftest.catalogue([0] * 4 + [1] * 4, groups=list('aabbccdd'))
  hashes = ('h', 'h', '2', '3', '4', '5', '6', '7')
  catalogue = dataclasses.replace(catalogue, pixel_hashes=hashes)
  # 0 = 1 are equal, 2 and 5 nearly, 4 and 6 nearly.
  near = [Pair(2, 5, 0.9), Pair(4, 6, 0.8)]
  duplicates = Duplicates([Pair(0, 1, 1.0)], [], near, 0.5)
  parts = split(
    train=[(0, 0), (3, 1), (5, 0), (5, 0)],
    validation=[(4, 0)],
    test=[(1, 0), (2, 0), (3, 0), (6, 0), (7, 0)],
  )
  leaks = count_leaks([parts], catalogue, duplicates)
  assert leaks.test_images == 5
  assert (leaks.copies, leaks.twins, leaks.near_twins) == (1, 1, 1)
  assert leaks.any == 3 and leaks.share == 0.6
  # a: 0 and 1, b: 2 and 3, d: 6 and 7; c is in no test part.
  assert leaks.patients == 2


def test_folds_are_counted_together():
  catalogue = conftest.catalogue([0, 0, 1, 1])
  folds = [
    split([(0, 0), (2, 0)], [], [(1, 0), (3, 0)]),
    split([(1, 0), (3, 0)], [], [(0, 0), (2, 0)]),
  ]
  leaks = count_leaks(folds, catalogue, Duplicates([], [], [], 0.5))
  assert leaks.test_images == 4 and leaks.any == 0 and leaks.share == 0


def test_a_copy_is_no_twin_of_itself():
  catalogue = conftest.catalogue([0, 0, 1, 1])
  parts = split([(0, 1), (0, 2), (2, 0)], [], [(0, 0), (3, 0)])
  leaks = count_leaks([parts], catalogue, Duplicates([], [], [], 0.5))
  assert (leaks.copies, leaks.twins) == (1, 0)


def test_near_twins_lead_to_each_other():
  """0 is near 1 and 1 near 2: 0 and 2 show the same."""
  catalogue = conftest.catalogue([0, 0, 0, 1])
  near = [Pair(0, 1, 0.9), Pair(1, 2, 0.9)]
  parts = split([(2, 0), (3, 0)], [], [(0, 0), (1, 0)])
  leaks = count_leaks([parts], catalogue, Duplicates([], [], near, 0.5))
  assert leaks.near_twins == 2
