"""What of a test part the training part already holds."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from leukemia_jax.audit.duplicates import Duplicates
from leukemia_jax.data import part_contents
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.splits import Split


@dataclasses.dataclass(frozen=True)
class Leaks:
  """Test images that share something with the training part.

  Attributes:
    test_images: number of test images, of all splits together.
    copies: those with an augmented copy of the same image, or the image itself,
      in training.
    twins: those with an equal image in training, turned and mirrored ones too.
    near_twins: those with a nearly equal image in training, or with one that
      others lead to, and none that is equal.
    any: those with one of these.
    share: of the test images.
    patients: number of patients of the test part that are in another part.
  """

  test_images: int
  copies: int
  twins: int
  near_twins: int
  any: int
  share: float
  patients: int


def count_leaks(
  parts: Sequence[Split], catalogue: Catalogue, duplicates: Duplicates
) -> Leaks:
  """Counts what splits leak.

  Args:
    parts: a split, or those of the folds of a cross-validation.
    catalogue: of the set.
    duplicates: of the set.

  Returns:
    The counts over all test parts.
  """
  hashes = catalogue.pixel_hashes
  alike = _alike(hashes, duplicates).tolist()
  totals: collections.Counter[str] = collections.Counter()
  patients: set[str] = set()
  for split in parts:
    sources = set(split.train[:, 0].tolist())
    learnt = collections.Counter(hashes[i] for i in sources)
    learnt_alike = {alike[i] for i in sources}
    by_part = part_contents.patients_by_part(split, catalogue)
    patients |= by_part['test'] & (by_part['train'] | by_part['validation'])
    for source in split.test[:, 0].tolist():
      own = hashes[source]
      is_copy = source in sources
      is_twin = learnt[own] > is_copy
      is_near = own not in learnt and alike[source] in learnt_alike
      totals['images'] += 1
      totals['copies'] += is_copy
      totals['twins'] += is_twin
      totals['near_twins'] += is_near
      totals['any'] += is_copy or is_twin or is_near
  count = totals['images']
  return Leaks(
    test_images=count,
    copies=totals['copies'],
    twins=totals['twins'],
    near_twins=totals['near_twins'],
    any=totals['any'],
    share=totals['any'] / count if count else 0.0,
    patients=len(patients),
  )


def _alike(hashes: Sequence[str], duplicates: Duplicates) -> np.ndarray:
  """Numbers images that are equal, or that near twins join: int (n,)."""
  names, number = np.unique(np.array(hashes), return_inverse=True)
  first = number[[pair.first for pair in duplicates.near]]
  second = number[[pair.second for pair in duplicates.near]]
  graph = sparse.coo_array(
    (np.ones(len(first)), (first, second)), (len(names), len(names))
  )
  return csgraph.connected_components(graph, directed=False)[1][number]
