"""What a split must not tear apart: patients, equal images, runs of files."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.names import natural_key

GROUPINGS = ('record', 'blocks', 'contiguous', 'none')


def group_ids(catalogue: Catalogue, grouping: str, block: int) -> np.ndarray:
  """Numbers the groups that must not be torn apart.

  Args:
    catalogue: of the set.
    grouping: 'record' keeps the images of a patient together, and those with
      equal pixels, turned and mirrored ones too; 'blocks' besides joins runs of
      `block` consecutive files of a class, a proxy for patients where they are
      unknown; 'contiguous' is as 'record', for folds that are runs of files;
      'none' puts every image in a group of its own.
    block: length of a run.

  Returns:
    int32 array, one group number an image.
  """
  count = len(catalogue.ids)
  if grouping == 'none':
    return np.arange(count, dtype=np.int32)
  # Images of no known patient are apart, unless they are equal.
  patients = [p or f'/{i}' for i, p in enumerate(catalogue.patients)]
  groups = join(_numbered(catalogue.pixel_hashes), _numbered(patients))
  if grouping == 'blocks':
    groups = join(groups, runs(catalogue, block))
  return groups


def for_intervals(
  catalogue: Catalogue, grouping: str, block: int
) -> tuple[np.ndarray, str]:
  """The groups that intervals are over, and what such a group is.

  Args:
    catalogue: of the set.
    grouping: one of `GROUPINGS`.
    block: length of a run of files.

  Returns:
    int array, one group number an image: patients where they are known (images
    of none are single), else runs of files where the set is split by these,
    else images; and the words.
  """
  if catalogue.num_patients:
    word = 'patient' if all(catalogue.patients) else 'patient or single image'
    return group_ids(catalogue, 'record', block), word
  if grouping in ('blocks', 'contiguous'):
    return runs(catalogue, block), f'run of {block} files'
  return group_ids(catalogue, 'record', block), 'image'


def _numbered(values: Sequence[str]) -> np.ndarray:
  return np.unique(np.array(values), return_inverse=True)[1]


def runs(catalogue: Catalogue, block: int) -> np.ndarray:
  """Numbers runs of `block` consecutive files, class by class: int (n,)."""
  blocks = np.empty(len(catalogue.ids), np.int64)
  first = 0
  for members in in_file_order(catalogue):
    blocks[members] = first + np.arange(len(members)) // block
    first += -(-len(members) // block)
  return blocks


def in_file_order(catalogue: Catalogue) -> list[np.ndarray]:
  """The indices of each class's images in the order of their file numbers."""
  ordered = []
  for label in range(len(catalogue.class_names)):
    members = np.flatnonzero(catalogue.labels == label).tolist()
    members.sort(key=lambda i: natural_key(catalogue.ids[i]))
    ordered.append(np.array(members, np.int64))
  return ordered


def join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Groups of images that share a group in either of two groupings.

  Args:
    first: int array, shape (n,).
    second: int array, shape (n,).

  Returns:
    int32 array, shape (n,): connected components, numbered by their first
    image.
  """
  count = len(first)
  nodes = np.concatenate([first, first.max(initial=-1) + 1 + second])
  size = int(nodes.max(initial=-1)) + 1
  graph = sparse.coo_array(
    (np.ones(count), (nodes[:count], nodes[count:])), (size, size)
  )
  _, component = csgraph.connected_components(graph, directed=False)
  _, index, inverse = np.unique(
    component[first], return_index=True, return_inverse=True
  )
  return np.argsort(np.argsort(index))[inverse].astype(np.int32)
