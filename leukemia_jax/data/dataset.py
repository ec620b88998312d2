"""Prepared records: arrays for the device, a catalogue for the host.

A set that fits lives on the device as uint8, once, and batches are gathered
from it by index inside the compiled step. A larger one stays on disk, and each
step is given its batch.
"""

import concurrent.futures
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from leukemia_jax import parallel, progress
from leukemia_jax.data import builder, checked, records
from leukemia_jax.data.records import OnDisk, Reading, Record
from leukemia_jax.data.source import UNLABELLED, Notes

_COPY_BATCH = 32
T = TypeVar('T')


class AugmentFn(Protocol):
  """Maps (key, image) to an image, and (key, image, mask) to both."""

  def __call__(
    self, key: jax.Array, image: jax.Array, mask: jax.Array | None = None, /
  ) -> Any:
    """Augments one image; see `transforms.augment.augment`."""


class Dataset(NamedTuple):
  """Images and labels, a pytree of arrays.

  Attributes:
    images: uint8, shape (n, size, size, 3).
    labels: int32, shape (n,).
    masks: uint8, shape (n, size, size, 1), 1 for cells; None where only classes
      are learnt.

  Images and masks of a set that stays on disk are `records.OnDisk`: no arrays
  that a compiled function takes, but `take` gives them.
  """

  images: jax.Array
  labels: jax.Array
  masks: jax.Array | None = None

  @property
  def targets(self) -> jax.Array:
    """What a model learns: masks if there are any, else labels."""
    return self.labels if self.masks is None else self.masks

  @property
  def is_on_disk(self) -> bool:
    """Whether images are decoded whenever they are asked for."""
    return isinstance(self.images, OnDisk)

  def take(self, indices: jax.Array | np.ndarray) -> 'Dataset':
    """Some images of the set, as a batch in memory."""
    if isinstance(self.images, OnDisk):
      images, masks = self.images.read(np.asarray(indices))
      # Not on the device: other threads ask, ahead of the steps.
      leaves: tuple[Any, ...] = images, np.asarray(self.labels)[indices], masks
      batch = Dataset(*leaves)
      return batch if self.masks is not None else batch._replace(masks=None)
    return jax.tree.map(lambda leaf: leaf[indices], self)

  def augmented(self, augment: AugmentFn, keys: jax.Array) -> 'Dataset':
    """Augments every image of a batch, with its mask, by a key of its own."""
    if self.masks is None:
      return self._replace(images=jax.vmap(augment)(keys, self.images))
    images, masks = jax.vmap(augment)(keys, self.images, self.masks)
    return self._replace(images=images, masks=masks)


@dataclasses.dataclass(frozen=True)
class Catalogue:
  """What is known of every image of a prepared set, besides its pixels.

  Attributes:
    class_names: names of the labels 0, 1, ...
    labels: int32, shape (n,).
    ids: path of each image in its source.
    patients: patient of each image, or ''.
    parts: part of each image in the source's own split, or ''.
    pixel_hashes: hash of each image's pixels; see `checked.hash_pixels`.
    mean_colours: float, shape (n, 3): mean R, G, B of each image, 0..255.
    fingerprint: SHA-256 over all files, their ids, classes, patients, parts.
    coverage: float, shape (n,): share of each image that its mask marks as
      cells; NaN without a mask, or where masks were not read.
    num_masks: number of images that have a mask.
    num_multicolour_masks: number of masks of more than two colours, of those
      read.
    mask_side: median of the masks' shorter sides, px; 0 where none was read.
    bad_images: images that can't be used and are left out, with the reason.
    contradictory: images that are left out since they stand in several classes.
    conflicts: these, a line for each image with the classes it stands in.
    bad_masks: masks that can't be used, each with the reason.
    notes: how the source was read.
  """

  class_names: tuple[str, ...]
  labels: np.ndarray
  ids: tuple[str, ...]
  patients: tuple[str, ...]
  parts: tuple[str, ...]
  pixel_hashes: tuple[str, ...]
  mean_colours: np.ndarray
  fingerprint: str
  coverage: np.ndarray
  num_masks: int
  num_multicolour_masks: int
  mask_side: int
  bad_images: tuple[str, ...] = ()
  contradictory: tuple[str, ...] = ()
  conflicts: tuple[str, ...] = ()
  bad_masks: tuple[str, ...] = ()
  notes: Notes = dataclasses.field(default_factory=Notes)

  @property
  def has_classes(self) -> bool:
    """Whether images have a class."""
    return self.class_names != (UNLABELLED,)

  @property
  def num_patients(self) -> int | None:
    """Number of patients; None where no image's is known."""
    return len(set(self.patients) - {''}) or None

  @property
  def num_duplicates(self) -> int:
    """Images that repeat another of their class, turned and mirrored too."""
    labels = self.labels.tolist()
    return len(labels) - len(set(zip(self.pixel_hashes, labels, strict=True)))


def load(
  directory: pathlib.Path,
  reading: Reading,
  *,
  indices: np.ndarray | None = None,
) -> tuple[Dataset, Catalogue]:
  """Reads a prepared set, every image decoded and scaled.

  Args:
    directory: from `builder.prepare`.
    reading: how.
    indices: int array, which images, by their place in `catalogue`; None for
      all.

  Returns:
    Images, labels and masks on the device, and the catalogue, in one order. An
    image without a mask gets an empty one.
  """
  info, stored, places = _open(directory)
  if indices is not None:
    places = places[indices]
  size = reading.image_size
  images = np.empty((len(places), size, size, 3), np.uint8)
  masks = None
  if reading.masks is not None:
    masks = np.zeros((*images.shape[:3], 1), np.uint8)

  def read(index: int) -> Record:
    known, image, mask = records.read_record(stored[places[index]], reading)
    images[index] = image
    if masks is not None and mask is not None:
      masks[index] = mask
    return known

  known = _in_threads(read, len(places))
  if any(reading.removal):
    firsts = records.removal_batches(len(images))
    tracked = progress.track(firsts, 'Removing shortcuts', len(firsts))
    records.remove(images, masks, reading.removal, tracked)
  data = Dataset(
    jnp.asarray(images),
    jnp.asarray([record.label for record in known], jnp.int32),
    None if masks is None else jnp.asarray(masks),
  )
  return data, _catalogue(info, known)


def catalogue(directory: pathlib.Path, reading: Reading) -> Catalogue:
  """`load` without storing a pixel, for sets of any size.

  Args:
    directory: from `builder.prepare`.
    reading: how.

  Returns:
    The catalogue.
  """
  info, stored, places = _open(directory)

  def read(index: int) -> Record:
    return records.read_record(stored[places[index]], reading)[0]

  return _catalogue(info, _in_threads(read, len(places)))


def on_disk(
  directory: pathlib.Path, reading: Reading, labels: np.ndarray
) -> Dataset:
  """A set whose images and masks are decoded whenever they are asked for.

  Args:
    directory: from `builder.prepare`.
    reading: how.
    labels: of its catalogue.

  Returns:
    The set; labels are in memory.
  """
  _, stored, places = _open(directory)
  images, masks = (
    OnDisk(stored, places, reading, channels) for channels in (3, 1)
  )
  leaves: tuple[Any, ...] = (
    images,
    jnp.asarray(labels, jnp.int32),
    None if reading.masks is None else masks,
  )
  return Dataset(*leaves)


def _open(directory: pathlib.Path) -> tuple[Any, Any, np.ndarray]:
  """What is known of the set, its records, and which of them are used."""
  prepared = tfds.builder_from_directory(str(directory))
  decoders = {'image': tfds.decode.SkipDecoding()}
  stored = prepared.as_data_source(split=builder.SPLIT, decoders=decoders)
  refused = prepared.info.metadata['contradictory_places']
  return prepared.info, stored, np.setdiff1d(np.arange(len(stored)), refused)


def refuse_flaws(directory: pathlib.Path, source_name: str, skip: bool) -> None:
  """Refuses a set of bad or contradictory images before any is decoded.

  Args:
    directory: from `builder.prepare`.
    source_name: what to call the source in errors.
    skip: whether such images may be left out, if others are left.

  Raises:
    InputError: names them.
  """
  info, stored, places = _open(directory)
  bad, conflicts = info.metadata['bad_images'], info.metadata['conflicts']
  if skip and len(places):
    return
  if bad:
    raise checked.bad_images(source_name, bad, len(bad) + len(stored))
  if conflicts:
    raise checked.unusable(
      f'{source_name}: {len(conflicts)} images stand in several classes '
      '(turned and mirrored ones are the same)',
      conflicts,
    )


def read_files(directory: pathlib.Path, read: Callable[[bytes], T]) -> list[T]:
  """Reads the image files themselves.

  Args:
    directory: from `builder.prepare`.
    read: maps a file's bytes to what is wanted of it.

  Returns:
    What it says of each file, in the order of the catalogue.
  """
  _, stored, places = _open(directory)
  return _in_threads(lambda i: read(stored[places[i]]['image']), len(places))


def _in_threads(read: Callable[[int], T], count: int) -> list[T]:
  with concurrent.futures.ThreadPoolExecutor(parallel.cores()) as pool:
    done = pool.map(read, range(count))
    return list(progress.track(done, 'Loading images', count))


def _catalogue(info: Any, known: list[Record]) -> Catalogue:
  """The catalogue of records that were read."""
  metadata = info.metadata
  sides = [record.mask_side for record in known if record.mask_side]
  return Catalogue(
    class_names=tuple(info.features['label'].names),
    labels=np.array([record.label for record in known], np.int32),
    ids=tuple(record.id for record in known),
    patients=tuple(record.patient for record in known),
    parts=tuple(record.part for record in known),
    pixel_hashes=tuple(record.pixel_hash for record in known),
    mean_colours=np.array([record.mean_colour for record in known]),
    fingerprint=metadata['fingerprint'],
    coverage=np.array([record.coverage for record in known]),
    num_masks=sum(record.has_mask for record in known),
    num_multicolour_masks=sum(record.is_multicolour for record in known),
    mask_side=int(np.median(sides or [0])),
    bad_images=tuple(metadata['bad_images']),
    contradictory=tuple(metadata['contradictory']),
    conflicts=tuple(metadata['conflicts']),
    bad_masks=tuple(metadata['bad_masks']),
    notes=Notes(**metadata['notes']),
  )


def select(
  dataset: Dataset, catalogue: Catalogue, indices: np.ndarray
) -> tuple[Dataset, Catalogue]:
  """Some images of a set, as a set of their own; see `select_known`."""
  known = select_known(catalogue, indices)
  if not dataset.is_on_disk:
    return dataset.take(indices), known
  images, masks = (
    leaf.select(indices) if isinstance(leaf, OnDisk) else None
    for leaf in (dataset.images, dataset.masks)
  )
  leaves: tuple[Any, ...] = images, dataset.labels[indices], masks
  return Dataset(*leaves), known


def select_known(catalogue: Catalogue, indices: np.ndarray) -> Catalogue:
  """What is known of some images.

  Args:
    catalogue: of the set.
    indices: int array, which images.

  Returns:
    The catalogue in the order of the indices, with the fingerprint of the whole
    set.
  """

  def chosen(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(texts[i] for i in indices)

  return dataclasses.replace(
    catalogue,
    labels=catalogue.labels[indices],
    coverage=catalogue.coverage[indices],
    mean_colours=catalogue.mean_colours[indices],
    ids=chosen(catalogue.ids),
    patients=chosen(catalogue.patients),
    parts=chosen(catalogue.parts),
    pixel_hashes=chosen(catalogue.pixel_hashes),
  )


def copy_key(key: jax.Array, index: jax.Array, copy: jax.Array) -> jax.Array:
  """The augmentation key of copy number `copy` of image `index`.

  It depends on nothing else, so every split of a set shares the same copies.
  """
  return jax.random.fold_in(jax.random.fold_in(key, index), copy)


def with_copies(
  dataset: Dataset,
  copies: np.ndarray,
  key: jax.Array,
  augment: AugmentFn,
) -> Dataset:
  """Appends augmented copies of some images, made once ("offline").

  Args:
    dataset: the originals.
    copies: int array of shape (m, 2): source index and copy number, from 1.
    key: PRNG key; see `copy_key`.
    augment: maps (key, image) to an image, and (key, image, mask) to both.

  Returns:
    The originals, then the copies in the order of `copies`.
  """
  if not len(copies):
    return dataset

  @jax.jit
  def make(dataset: Dataset, pairs: jax.Array) -> Dataset:
    keys = jax.vmap(functools.partial(copy_key, key))(pairs[:, 0], pairs[:, 1])
    return dataset.take(pairs[:, 0]).augmented(augment, keys)

  # One shape for all batches: the last is filled up with its first pairs.
  filled = np.resize(copies, (-(-len(copies) // _COPY_BATCH) * _COPY_BATCH, 2))
  batches = filled.reshape(-1, _COPY_BATCH, 2)
  copied = [
    make(dataset, pairs)
    for pairs in progress.track(batches, 'Making copies', len(batches))
  ]
  return jax.tree.map(
    lambda old, *new: jnp.concatenate(
      [old, jnp.concatenate(new)[: len(copies)]]
    ),
    dataset,
    *copied,
  )
