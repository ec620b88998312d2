"""What a split must not tear apart: patients, equal images, runs of files."""

import numpy as np

from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.source import natural_key

GROUPINGS = ('record', 'blocks', 'none')


def group_ids(catalogue: Catalogue, grouping: str, block: int) -> np.ndarray:
  """Numbers the groups that must not be torn apart.

  Args:
    catalogue: of the set.
    grouping: 'record' takes each record's group (a patient, or images with
      equal pixels); 'blocks' joins runs of `block` consecutive files of a
      class, a proxy for patients where they are unknown, and keeps equal images
      together; 'none' puts every image in a group of its own.
    block: length of a run.

  Returns:
    int32 array, one group number an image.
  """
  count = len(catalogue.ids)
  if grouping == 'none':
    return np.arange(count, dtype=np.int32)
  _, groups = np.unique(np.array(catalogue.groups), return_inverse=True)
  if grouping == 'record':
    return groups.astype(np.int32)
  blocks = np.empty(count, np.int64)
  first_block_number = 0
  for label in range(len(catalogue.class_names)):
    members = np.flatnonzero(catalogue.labels == label)
    ordered = sorted(members, key=lambda i: natural_key(catalogue.ids[i]))
    blocks[ordered] = first_block_number + np.arange(len(ordered)) // block
    first_block_number += -(-len(ordered) // block)
  # Blocks that share a group become one: union by the smallest number.
  root = np.arange(first_block_number)

  def find(b: int) -> int:
    while root[b] != b:
      b = root[b]
    return b

  first_block: dict[int, int] = {}
  for group, b in zip(groups, blocks, strict=True):
    first, second = (
      find(first_block.setdefault(int(group), int(b))),
      find(int(b)),
    )
    root[max(first, second)] = min(first, second)
  return np.array([find(int(b)) for b in blocks], np.int32)
