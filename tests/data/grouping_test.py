"""What is never torn apart."""

import numpy as np
from conftest import catalogue

from leukemia_jax.data import grouping


def test_blocks_follow_file_numbers_and_keep_twins_together():
  ids = tuple(f'a/im-{i}.png' for i in range(1, 101)) + tuple(
    f'b/im-{i}.png' for i in range(1, 101)
  )
  groups = [str(i) for i in range(200)]
  groups[5] = groups[95]  # equal images in the first and the last block
  labels = np.repeat([0, 1], 100)
  numbers = grouping.group_ids(catalogue(labels, groups, ids), 'blocks', 10)
  assert len(set(numbers)) == 19
  assert numbers[5] == numbers[95] == numbers[0] == numbers[99]
  assert len(set(numbers[10:20])) == 1
  assert numbers[10] != numbers[20]
  alone = grouping.group_ids(catalogue(labels, groups, ids), 'none', 10)
  assert len(set(alone)) == 200
