"""What is never torn apart."""

import dataclasses
import itertools

import numpy as np
from conftest import catalogue

from leukemia_jax.data import grouping


def test_blocks_follow_file_numbers_and_keep_twins_together():
  ids = tuple(f'a/im-{i}.png' for i in range(1, 101)) + tuple(
    f'b/im-{i}.png' for i in range(1, 101)
  )
  labels = np.repeat([0, 1], 100)
  of_set = catalogue(labels, ids=ids)
  hashes = list(of_set.pixel_hashes)
  hashes[5] = hashes[95]  # equal images in the first and the last block
  of_set = dataclasses.replace(of_set, pixel_hashes=tuple(hashes))
  numbers = grouping.group_ids(of_set, 'blocks', 10)
  assert len(set(numbers)) == 19
  assert numbers[5] == numbers[95] == numbers[0] == numbers[99]
  assert len(set(numbers[10:20])) == 1
  assert numbers[10] != numbers[20]
  alone = grouping.group_ids(of_set, 'none', 10)
  assert len(set(alone)) == 200


def test_patients_and_equal_images_are_kept_together():
  patients = ['p', 'p', 'q', 'q', '', '', '']
  of_set = dataclasses.replace(
    catalogue([0] * 7, patients), pixel_hashes=tuple('abcbdde')
  )
  # Image 3 of q repeats image 1 of p; images 4 and 5 are equal.
  numbers = grouping.group_ids(of_set, 'record', 10).tolist()
  assert numbers == [0, 0, 0, 0, 1, 1, 2]


def test_join_gives_connected_components():
  rng = np.random.default_rng(0)
  first, second = rng.integers(0, 30, (2, 60))
  joined = grouping.join(first, second)
  # By brute force: merge until nothing changes.
  expected = np.arange(60)
  for _ in range(60):
    for i, j in itertools.combinations(range(60), 2):
      if first[i] == first[j] or second[i] == second[j]:
        expected[[i, j]] = min(expected[i], expected[j])
  same = joined[:, None] == joined
  np.testing.assert_array_equal(same, expected[:, None] == expected)
