"""Prepared records in memory: arrays for the device, a catalogue for the host.

The image set is small: it lives on the device as uint8, once, and batches are
gathered from it by index inside the compiled step.
"""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds

from leukemia_jax import progress
from leukemia_jax.data import builder, decode

_COPY_BATCH = 32


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


@dataclasses.dataclass(frozen=True)
class Catalogue:
  """What is known of every image of a prepared set, besides its pixels.

  Attributes:
    class_names: names of the labels 0, 1, ...
    labels: int32, shape (n,).
    ids: path of each image in its source.
    groups: name of each image's group (patient, or set of equal images).
    pixels: hash of each image's pixels at their own size.
    fingerprint: SHA-256 over all files, their ids and classes.
    masks: number of images that have a mask.
    skipped: bad files that were left out.
    unpaired: images and masks without their counterpart, if masks are there.
  """

  class_names: tuple[str, ...]
  labels: np.ndarray
  ids: tuple[str, ...]
  groups: tuple[str, ...]
  pixels: tuple[str, ...]
  fingerprint: str
  masks: int
  skipped: tuple[str, ...]
  unpaired: tuple[str, ...]


def load(directory: pathlib.Path, image_size: int) -> tuple[Dataset, Catalogue]:
  """Reads a prepared set, every image decoded and scaled.

  Args:
    directory: from `builder.prepare`.
    image_size: side of the images, px; see `decode.to_size`.

  Returns:
    Images and labels on the device, and the catalogue, in one order.
  """
  prepared = tfds.builder_from_directory(str(directory))
  records = prepared.as_data_source(
    split=builder.SPLIT, decoders={'image': tfds.decode.SkipDecoding()}
  )
  images = np.empty((len(records), image_size, image_size, 3), np.uint8)

  def read(index: int) -> tuple[int, str, str, str, bool]:
    record = records[index]
    # Size limits were enforced when the set was prepared.
    image = decode.decode(record['image'], max_pixels=2**62)
    images[index] = decode.to_size(image, image_size)
    texts = (record[key].decode() for key in ('id', 'group', 'pixels'))
    return record['label'], *texts, bool(record['mask'])

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    rows = list(
      progress.track(
        pool.map(read, range(len(records))), 'Loading images', len(records)
      )
    )
  labels, ids, groups, pixels, masked = zip(*rows, strict=True)
  metadata = prepared.info.metadata
  catalogue = Catalogue(
    class_names=tuple(prepared.info.features['label'].names),
    labels=np.array(labels, np.int32),
    ids=ids,
    groups=groups,
    pixels=pixels,
    fingerprint=metadata['fingerprint'],
    masks=sum(masked),
    skipped=tuple(metadata['skipped']),
    unpaired=tuple(metadata['unpaired']),
  )
  return Dataset(jnp.asarray(images), jnp.asarray(catalogue.labels)), catalogue


def copy_key(key: jax.Array, index: jax.Array, copy: jax.Array) -> jax.Array:
  """The augmentation key of copy number `copy` of image `index`.

  It depends on nothing else, so every split of a set shares the same copies.
  """
  return jax.random.fold_in(jax.random.fold_in(key, index), copy)


def with_copies(
  dataset: Dataset,
  copies: np.ndarray,
  key: jax.Array,
  augment: Callable[[jax.Array, jax.Array], jax.Array],
) -> Dataset:
  """Appends augmented copies of some images, made once ("offline").

  Args:
    dataset: the originals.
    copies: int array of shape (m, 2): source index and copy number, from 1.
    key: PRNG key; see `copy_key`.
    augment: maps (key, image) to an image.

  Returns:
    The originals, then the copies in the order given.
  """
  if not len(copies):
    return dataset

  @jax.jit
  def make(images: jax.Array, rows: jax.Array) -> jax.Array:
    keys = jax.vmap(functools.partial(copy_key, key))(rows[:, 0], rows[:, 1])
    return jax.vmap(augment)(keys, images[rows[:, 0]])

  # One shape for all batches: the last is filled up with its first rows.
  filled = np.resize(copies, (-(-len(copies) // _COPY_BATCH) * _COPY_BATCH, 2))
  batches = filled.reshape(-1, _COPY_BATCH, 2)
  made = [
    make(dataset.images, rows)
    for rows in progress.track(batches, 'Making copies', len(batches))
  ]
  images = jnp.concatenate(
    [dataset.images, jnp.concatenate(made)[: len(copies)]]
  )
  labels = dataset.labels[copies[:, 0]]
  return Dataset(images, jnp.concatenate([dataset.labels, labels]))
