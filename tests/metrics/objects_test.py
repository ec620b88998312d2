"""Cells of a mask: split, numbered, matched; against brute force."""

import numpy as np
import pytest
from drawn_masks import EMPTY, HALF_EMPTY, PAIRS, discs
from scipy import ndimage

from leukemia_jax.metrics.objects import (
  count_cells,
  match_cells,
  separate_cells,
)


def test_touching_cells_are_parted():
  mask = discs((40, 40), (40, 56), (80, 80))
  found = separate_cells(mask, smallest=4)
  assert found.max() == 3
  # Two halves of one size, parted half way.
  assert found[40, 40] != found[40, 56]
  sizes = np.bincount(found.ravel())[1:]
  assert sizes.max() - sizes.min() < 30
  assert found[40, 47] == found[40, 40] and found[40, 50] == found[40, 56]


@pytest.mark.parametrize('height', [10, 16, 17, 64])
@pytest.mark.parametrize('smallest', [2.3, 8.06])
def test_a_flat_ridge_is_one_cell(height, smallest):
  mask = np.zeros((90, 90), bool)
  mask[10 : 10 + height, 20:70] = True
  assert count_cells(mask, smallest=smallest) == 1
  assert count_cells(mask.T, smallest=smallest) == 1
  # At the border, as of an image that is covered to the half.
  assert count_cells(mask[:, 25:], smallest=smallest) == 1
  both = mask.copy()
  both[80:88, 20:70] = True
  assert count_cells(both, smallest=smallest) == 2


@pytest.mark.parametrize('mask', [*(p[0] for p in PAIRS), EMPTY])
def test_cells_are_numbered_without_gaps_and_cover_the_mask(mask):
  found = separate_cells(mask, smallest=1)
  np.testing.assert_array_equal(found > 0, mask)
  assert set(np.unique(found)) - {0} == set(range(1, found.max() + 1))
  assert count_cells(mask, smallest=1) == found.max()
  # No cell spans two components.
  whole, parts = ndimage.label(mask)
  assert found.max() >= parts
  for cell in range(1, found.max() + 1):
    assert len(np.unique(whole[found == cell])) == 1


def test_specks_are_no_cells():
  cell, speck = discs((40, 40)), discs((80, 80), radius=3)
  found = separate_cells(cell | speck, smallest=8)
  np.testing.assert_array_equal(found > 0, cell)
  assert found.max() == 1
  assert separate_cells(cell | speck, smallest=4).max() == 2
  assert not separate_cells(speck, smallest=8).any()
  assert count_cells(cell | speck, smallest=8) == 1
  assert count_cells(speck, smallest=8) == 0


def test_how_cells_part_does_not_depend_on_the_size_of_the_field():
  mask = discs((20, 20), (20, 36), (60, 60))
  wide = np.pad(mask, ((0, 200), (0, 200)))
  np.testing.assert_array_equal(
    separate_cells(wide, smallest=4)[:112, :112],
    separate_cells(mask, smallest=4),
  )


def brute_force_pairs(truth: np.ndarray, predicted: np.ndarray) -> int:
  """Most pairs of an IoU of a half or more, by trying all orders."""
  fits = {
    (i, j)
    for i in range(1, truth.max() + 1)
    for j in range(1, predicted.max() + 1)
    if ((truth == i) & (predicted == j)).sum()
    >= 0.5 * ((truth == i) | (predicted == j)).sum()
  }

  def most(left: int, taken: frozenset) -> int:
    if not left:
      return 0
    return max(
      most(left - 1, taken),
      *(
        1 + most(left - 1, taken | {j})
        for i, j in fits
        if i == left and j not in taken
      ),
      0,
    )

  return most(int(truth.max()), frozenset())


@pytest.mark.parametrize('pair', [*PAIRS, *HALF_EMPTY, (EMPTY, EMPTY)])
def test_matches_are_counted(pair):
  truth, predicted = (separate_cells(m, smallest=1) for m in pair)
  tp, fp, fn = match_cells(truth, predicted)
  assert tp == brute_force_pairs(truth, predicted)
  assert tp + fp == predicted.max() and tp + fn == truth.max()


def test_two_halves_of_a_cell_make_one_pair():
  truth = np.ones((4, 4), np.int32)
  predicted = np.repeat([[1, 1, 2, 2]], 4, 0).astype(np.int32)
  assert match_cells(truth, predicted) == (1, 1, 0)
