"""Masks: rules, cleaning, scaling, what looks broken."""

import numpy as np
import pytest
from PIL import Image

from leukemia_jax.data import masks


def picture(pixels) -> Image.Image:
  return Image.fromarray(np.asarray(pixels, np.uint8))


def test_rules():
  pixels = np.array([[(0, 61, 0), (60, 60, 60), (255, 0, 0), (1, 1, 1)]])
  for rule, expected in (
    ('max_channel>60', [1, 0, 1, 0]),
    # Red is 76 in grey, (0, 61, 0) is 36.
    ('grey>75', [0, 0, 1, 0]),
    ('grey>128', [0, 0, 0, 0]),
    ('grey>0', [1, 1, 1, 1]),
  ):
    got = masks.binarise(picture(pixels), rule)
    assert got.dtype == bool and got[0].tolist() == expected, rule


@pytest.mark.parametrize(
  'text', ['', 'grey', 'grey>', 'grey>255', 'red>9', 'grey>-1']
)
def test_what_is_no_rule(text):
  assert not masks.is_rule(text)
  if text != 'grey>255':
    with pytest.raises(ValueError, match='no mask rule'):
      masks.binarise(picture(np.zeros((2, 2, 3))), text)


def disc(size: int, y: int, x: int, radius: float) -> np.ndarray:
  rows, columns = np.mgrid[:size, :size]
  return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_cleaning_fills_holes_and_drops_specks_and_rims():
  cell = disc(80, 30, 30, 11)
  mask = cell & ~disc(80, 28, 31, 2.5)
  mask |= disc(80, 60, 60, 2)
  # The rim of a red cell: thin, around ground that must not be filled.
  mask |= disc(80, 60, 25, 9) & ~disc(80, 60, 25, 7.5)
  got = masks.clean(mask, minimum_area=60)
  assert got[28, 31] and not got[60, 60] and not got[60, 25]
  wrong = got ^ cell
  assert wrong.sum() <= 12 and not (got & ~cell).any()


def test_cleaning_keeps_cells_at_the_border_and_what_is_clean():
  for mask in (
    disc(80, 0, 40, 12),
    disc(80, 40, 40, 12),
    np.ones((9, 9), bool),
  ):
    got = masks.clean(mask, minimum_area=60)
    assert (got ^ mask).sum() <= 12
  empty = np.zeros((9, 9), bool)
  assert not masks.clean(empty, minimum_area=60).any()


def test_cleaning_twice_changes_nothing_more():
  rng = np.random.default_rng(0)
  mask = rng.uniform(size=(64, 64)) < 0.1
  for y, x in ((20, 20), (22, 40), (50, 30)):
    mask |= disc(64, y, x, 9)
  once = masks.clean(mask, minimum_area=60)
  np.testing.assert_array_equal(masks.clean(once, minimum_area=60), once)


def test_a_scaled_mask_covers_what_the_large_one_does():
  reading = masks.Reading('grey>128', False, 60)
  large = disc(224, 100, 120, 40)
  image = picture(np.repeat(large[..., None] * 255, 3, -1))
  assert masks.read(image, 224, reading)[..., 0].sum() == large.sum()
  small = masks.read(image, 56, reading)
  assert small.shape == (56, 56, 1) and small.dtype == np.uint8
  # Each pixel stands for 4 x 4: it is a cell where half of them are.
  halves = large.reshape(56, 4, 56, 4).mean((1, 3))
  clear = np.abs(halves - 0.5) > 0.35
  np.testing.assert_array_equal(small[..., 0][clear], halves[clear] > 0.5)


def test_a_small_mask_is_cleaned_as_its_file_would_be():
  large = disc(224, 100, 120, 24) | disc(224, 30, 30, 3)
  large |= disc(224, 150, 50, 20) & ~disc(224, 150, 50, 18)
  small = large[::2, ::2]
  got = masks.clean_scaled(small, side=224, minimum_area=60)
  assert got.shape == small.shape and got.dtype == bool
  assert (got ^ disc(112, 50, 60, 12)).sum() <= 24
  same = masks.clean_scaled(large, side=224, minimum_area=60)
  np.testing.assert_array_equal(same, masks.clean(large, minimum_area=60))


def test_masks_that_cover_too_much_are_warned_of():
  coverage, labels = np.array([0.1, 0.9, 0.8]), np.array([0, 1, 1])
  rows = masks.by_class(coverage, labels, 2)
  turned = [w for w in masks.warnings(rows, ('a', 'b')) if 'swapped' in w]
  assert len(turned) == 1 and 'masks of b cover 85.0%' in turned[0]


def test_classes_without_masks_say_nothing_of_what_is_usual():
  coverage = np.array([np.nan, np.nan, 0.12, 0.01])
  rows = masks.by_class(coverage, np.arange(4), 4)
  (warning,) = masks.warnings(rows, ('a', 'b', 'c', 'd'))
  assert 'the masks of d look broken' in warning
  assert not masks.warnings(masks.by_class(np.full(2, np.nan), [0, 1], 2), 'ab')


def test_coverage_and_plain_warnings():
  coverage = np.array([0.1, 0.12, 0.0, 0.0005, 0.02, np.nan, 0.1, 0.1])
  labels = np.array([0, 0, 1, 1, 1, 1, 2, 2])
  rows = masks.by_class(coverage, labels, 3)
  assert [row.masks for row in rows] == [2, 3, 2]
  assert [row.empty for row in rows] == [0, 2, 0]
  assert rows[0].mean == pytest.approx(0.11)
  (warning,) = masks.warnings(rows, ('a', 'b', 'c'))
  assert 'the masks of b look broken' in warning
  assert '2 of 3 are empty' in warning and 'cover 0.7%' in warning
