"""Prepared records in memory: arrays for the device, a catalogue for the host.

The image set is small: it lives on the device as uint8, once, and batches are
gathered from it by index inside the compiled step.
"""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from leukemia_jax import progress
from leukemia_jax.data import builder, decode
from leukemia_jax.data import masks as mask_files

_COPY_BATCH = 32


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
  """

  images: jax.Array
  labels: jax.Array
  masks: jax.Array | None = None

  @property
  def targets(self) -> jax.Array:
    """What a model learns: masks if there are any, else labels."""
    return self.labels if self.masks is None else self.masks

  def take(self, indices: jax.Array | np.ndarray) -> 'Dataset':
    """Some images of the set, as a batch."""
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
    groups: name of each image's group (patient, or set of equal images).
    pixel_hashes: hash of each image's pixels at their own size.
    fingerprint: SHA-256 over all files, their ids and classes.
    coverage: float, shape (n,): share of each image that its mask marks as
      cells; NaN without a mask, or where masks were not read.
    num_masks: number of images that have a mask.
    num_multicolour_masks: number of masks of more than two colours, of those
      read.
    mask_side: median of the masks' shorter sides, px; 0 where none was read.
    skipped: bad files that were left out.
    bad_masks: masks that can't be used, each with the reason.
    unpaired: images and masks without their counterpart, if masks are there.
  """

  class_names: tuple[str, ...]
  labels: np.ndarray
  ids: tuple[str, ...]
  groups: tuple[str, ...]
  pixel_hashes: tuple[str, ...]
  fingerprint: str
  coverage: np.ndarray
  num_masks: int
  num_multicolour_masks: int
  mask_side: int
  skipped: tuple[str, ...]
  bad_masks: tuple[str, ...]
  unpaired: tuple[str, ...]


def load(
  directory: pathlib.Path,
  image_size: int,
  mask_reading: mask_files.Reading | None = None,
) -> tuple[Dataset, Catalogue]:
  """Reads a prepared set, every image decoded and scaled.

  Args:
    directory: from `builder.prepare`.
    image_size: side of the images, px; see `decode.to_size`.
    mask_reading: how to read the masks; None leaves them alone.

  Returns:
    Images, labels and masks on the device, and the catalogue, in one order. An
    image without a mask gets an empty one.
  """
  prepared = tfds.builder_from_directory(str(directory))
  decoders = {'image': tfds.decode.SkipDecoding()}
  records = prepared.as_data_source(split=builder.SPLIT, decoders=decoders)
  images = np.empty((len(records), image_size, image_size, 3), np.uint8)
  masks = None
  if mask_reading is not None:
    masks = np.zeros((*images.shape[:3], 1), np.uint8)
  coverage = np.full(len(records), np.nan)

  def read(index: int) -> tuple[int, str, str, str, bool, bool, int]:
    record = records[index]
    # Size limits were enforced when the set was prepared.
    image = decode.decode(record['image'], max_pixels=2**62)
    images[index] = decode.to_size(image, image_size)
    coloured, side = False, 0
    if masks is not None and mask_reading is not None and record['mask']:
      mask = decode.decode(record['mask'], max_pixels=2**62, is_mask=True)
      masks[index] = mask_files.read(mask, image_size, mask_reading)
      coverage[index] = masks[index].mean()
      coloured, side = mask.getcolors(2) is None, min(mask.size)
    texts = (record[key].decode() for key in ('id', 'group', 'pixel_hash'))
    return record['label'], *texts, bool(record['mask']), coloured, side

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    entries = list(
      progress.track(
        pool.map(read, range(len(records))), 'Loading images', len(records)
      )
    )
  labels, ids, groups, hashes, *of_masks = zip(*entries, strict=True)
  masked, coloured, sides = of_masks
  metadata = prepared.info.metadata
  catalogue = Catalogue(
    class_names=tuple(prepared.info.features['label'].names),
    labels=np.array(labels, np.int32),
    ids=ids,
    groups=groups,
    pixel_hashes=hashes,
    fingerprint=metadata['fingerprint'],
    coverage=coverage,
    num_masks=sum(masked),
    num_multicolour_masks=sum(coloured),
    mask_side=int(np.median([side for side in sides if side] or [0])),
    skipped=tuple(metadata['skipped']),
    bad_masks=tuple(metadata['bad_masks']),
    unpaired=tuple(metadata['unpaired']),
  )
  data = Dataset(
    jnp.asarray(images),
    jnp.asarray(catalogue.labels),
    None if masks is None else jnp.asarray(masks),
  )
  return data, catalogue


def select(
  dataset: Dataset, catalogue: Catalogue, indices: np.ndarray
) -> tuple[Dataset, Catalogue]:
  """Some images of a set, as a set of their own.

  Args:
    dataset: the images.
    catalogue: of the set.
    indices: int array, which images.

  Returns:
    Images and catalogue in the order of the indices, with the fingerprint of
    the whole set.
  """

  def chosen(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(texts[i] for i in indices)

  return dataset.take(indices), dataclasses.replace(
    catalogue,
    labels=catalogue.labels[indices],
    coverage=catalogue.coverage[indices],
    ids=chosen(catalogue.ids),
    groups=chosen(catalogue.groups),
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
