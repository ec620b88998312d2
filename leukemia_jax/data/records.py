"""Records of a prepared set, each read as arrays of a size."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from leukemia_jax.data import decode
from leukemia_jax.data import masks as mask_files
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal

_REMOVAL_BATCH = 64


class Record(NamedTuple):
  """What is read of one record, besides its pixels."""

  label: int
  id: str
  patient: str
  part: str
  pixel_hash: str
  mean_colour: np.ndarray
  coverage: float
  has_mask: bool
  is_multicolour: bool
  mask_side: int


class Reading(NamedTuple):
  """How records become arrays.

  Attributes:
    image_size: side of the images, px; see `decode.to_size`.
    decoding: how files are decoded; their sizes were limited when the set was
      prepared.
    masks: how masks are read; None leaves them alone.
    removal: what is taken out of the images.
  """

  image_size: int
  decoding: decode.Options = decode.DEFAULT
  masks: mask_files.Reading | None = None
  removal: Removal = Removal()


def read_record(
  record: dict[str, Any], reading: Reading
) -> tuple[Record, np.ndarray, np.ndarray | None]:
  """A record, its image and its mask, as arrays of the size."""
  decoding = reading.decoding._replace(max_pixels=2**62)
  size, mask = reading.image_size, None
  image = decode.read(record['image'], size, decoding)
  coverage, is_multicolour, side = np.nan, False, 0
  if reading.masks is not None and record['mask']:
    file = decode.decode(record['mask'], decoding, is_mask=True).image
    mask = mask_files.read(file, size, reading.masks)
    coverage = mask.mean()
    is_multicolour, side = file.getcolors(2) is None, min(file.size)
  texts = (
    record[key].decode() for key in ('id', 'patient', 'part', 'pixel_hash')
  )
  name, patient, part, pixel_hash = texts
  known = Record(
    label=int(record['label']),
    id=name,
    patient=patient,
    part=part,
    pixel_hash=pixel_hash,
    mean_colour=image.reshape(-1, 3).mean(0),
    coverage=float(coverage),
    has_mask=bool(record['mask']),
    is_multicolour=is_multicolour,
    mask_side=side,
  )
  return known, image, mask


def remove(
  images: np.ndarray,
  masks: np.ndarray | None,
  removal: Removal,
  firsts: Iterable[int],
) -> None:
  """Takes what gives classes away out of images, in place.

  Args:
    images: uint8, shape (n, size, size, 3).
    masks: uint8, shape (n, size, size, 1); None where none are read.
    removal: what is taken out.
    firsts: of each batch, from `removal_batches`.
  """
  for first in firsts:
    # One shape for all batches: the last is filled up.
    size = min(_REMOVAL_BATCH, len(images))
    batch = np.arange(first, first + size) % len(images)
    own = None if masks is None else masks[batch]
    after = np.asarray(colour.remove_all(images[batch], own, removal))
    images[first : first + _REMOVAL_BATCH] = after[: len(images) - first]


def removal_batches(count: int) -> range:
  """The first image of each batch that `remove` takes."""
  return range(0, count, _REMOVAL_BATCH)


class OnDisk:
  """Images, or masks, of a set that stays on disk.

  They are decoded whenever it is indexed, as an array is: by an int, a slice or
  an int array.

  Attributes:
    shape: (images, size, size, channels).
  """

  def __init__(
    self, records: Any, places: np.ndarray, reading: Reading, channels: int
  ):
    """Reads nothing yet.

    Args:
      records: of a prepared set.
      places: int array, shape (n,): the images' records.
      reading: how.
      channels: 3 for images, 1 for masks.
    """
    self._records, self._places, self._reading = records, places, reading
    self.shape = (len(places), *[reading.image_size] * 2, channels)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, at: Any) -> np.ndarray:
    indices = np.arange(len(self))[at]
    images, masks = self.read(np.atleast_1d(indices))
    chosen = images if self.shape[-1] == 3 else masks
    assert chosen is not None
    return chosen if np.ndim(indices) else chosen[0]

  def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Images with their masks, None where none are read.

    Args:
      indices: int array, shape (n,).

    Returns:
      uint8 arrays, shape (n, size, size, 3) and (n, size, size, 1). An image
      without a mask has an empty one.
    """
    size = self._reading.image_size
    images = np.empty((len(indices), size, size, 3), np.uint8)
    masks = None
    if self._reading.masks is not None:
      masks = np.zeros((*images.shape[:3], 1), np.uint8)
    for i, place in enumerate(self._places[indices]):
      _, images[i], mask = read_record(self._records[place], self._reading)
      if masks is not None and mask is not None:
        masks[i] = mask
    if any(self._reading.removal):
      firsts = removal_batches(len(images))
      remove(images, masks, self._reading.removal, firsts)
    return images, masks

  def select(self, indices: np.ndarray) -> 'OnDisk':
    """Some of them, still on disk."""
    places, channels = self._places[indices], self.shape[-1]
    return OnDisk(self._records, places, self._reading, channels)
