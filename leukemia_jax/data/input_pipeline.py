"""From a source to a data set and its split, once for each command."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax.data import builder, dataset, masks, splits
from leukemia_jax.data.builder import SourceSpec
from leukemia_jax.data.dataset import AugmentFn, Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError


class InputSpec(NamedTuple):
  """What is read, and how it is split; see `config.data`.

  Attributes:
    source: what the set is made of.
    image_size: side of the images, px, `config.data.scale` included.
    targets: what a model learns: 'classes' or 'masks'.
    mask_reading: how masks are read.
    drop_empty_masks: whether images of empty masks are left out of training.
    protocol: how the set is split.
  """

  source: SourceSpec
  image_size: int
  targets: str
  mask_reading: masks.Reading
  drop_empty_masks: bool
  protocol: splits.Protocol


def load(
  spec: InputSpec, *, read_masks: bool = False
) -> tuple[Dataset, Catalogue]:
  """Prepares a source if need be and reads it.

  Args:
    spec: what to read.
    read_masks: whether to read masks that no model learns from.

  Returns:
    Images, labels and masks on the device, and the catalogue.

  Raises:
    InputError: the source can't be used; or, to learn masks, some are missing
      or bad, or none has a cell.
  """
  directory = builder.prepare(spec.source)
  needs_masks = spec.targets == 'masks'
  reading = spec.mask_reading if read_masks or needs_masks else None
  data, catalogue = dataset.load(directory, spec.image_size, reading)
  if catalogue.skipped:
    print(
      f'{len(catalogue.skipped)} bad images left out: '
      f'{", ".join(catalogue.skipped[:5])}'
      + (' ...' if len(catalogue.skipped) > 5 else '')
    )
  if needs_masks:
    data, catalogue = _with_masks_only(spec, data, catalogue)
    if not catalogue.coverage.any():
      raise InputError(_all_empty(spec, '', len(catalogue.ids)))
  elif len(catalogue.class_names) < 2:
    raise InputError(
      f'{spec.source.source} has one class, {catalogue.class_names[0]!r}: a '
      'classifier needs two class folders or more'
    )
  return data, catalogue


def _with_masks_only(
  spec: InputSpec, data: Dataset, catalogue: Catalogue
) -> tuple[Dataset, Catalogue]:
  """The images that have a mask; others are an error, or skipped."""
  paired = np.flatnonzero(~np.isnan(catalogue.coverage))
  bad = list(catalogue.bad_masks)
  if not len(paired) and not bad:
    raise InputError(
      f'{spec.source.source} has no masks, which a U-Net learns from: give '
      'Original/<Class>/ with Segmented/<Class>/, or images/ with masks/, with '
      'matching file names'
    )
  bad += [f'{path}: no matching file' for path in catalogue.unpaired]
  if not bad:
    return data, catalogue
  if spec.source.on_bad_image == 'error' or not len(paired):
    raise builder.unusable(
      f'{spec.source.source}: {len(bad)} masks are bad, or masks and images '
      'have no counterpart',
      bad,
    )
  left_out = len(catalogue.ids) - len(paired)
  print(f'{left_out} images without a mask that can be used left out')
  return dataset.select(data, catalogue, paired)


def _all_empty(spec: InputSpec, whose: str, count: int) -> str:
  return (
    f'{spec.source.source}: all {count} masks{whose} are empty by '
    f'config.data.mask_rule={spec.mask_reading.rule}. Give the rule that fits '
    '(grey>0 for masks of 0 and 1)'
  )


def make_split(key: jax.Array, catalogue: Catalogue, spec: InputSpec) -> Split:
  """Splits a set.

  Args:
    key: PRNG key.
    catalogue: of the set.
    spec: how.

  Returns:
    The split; with `drop_empty_masks` images of empty masks are in no training
    part.

  Raises:
    InputError: the set can't be split; or, to learn masks, all of a class are
      empty.
  """
  trainable = None
  if spec.targets == 'masks':
    for label, name in enumerate(catalogue.class_names):
      coverage = catalogue.coverage[catalogue.labels == label]
      if len(coverage) and not coverage.any():
        raise InputError(
          _all_empty(spec, f' of {name}', len(coverage))
          + ", or remove the class's folder"
        )
    if spec.drop_empty_masks:
      trainable = catalogue.coverage >= masks.EMPTY_SHARE
  split = splits.make(key, catalogue, spec.protocol, trainable=trainable)
  if not len(split.train):
    raise InputError(
      'config.data.drop_empty_masks=True leaves no image to train on: all '
      'masks of the training part are empty'
    )
  return split


def materialise(
  parts: Sequence[np.ndarray],
  data: Dataset,
  *,
  key: jax.Array,
  augment: AugmentFn,
) -> tuple[Dataset, list[np.ndarray]]:
  """Makes the augmented copies that parts ask for, and their indices.

  Args:
    parts: a split of the set, or the parts of several.
    data: the originals.
    key: PRNG key of the copies.
    augment: what a copy differs by.

  Returns:
    The set with the copies appended, and for each part the indices of its
    images in that set, int32.
  """
  every = splits.unique(np.concatenate(parts))
  copies = every[every[:, 1] > 0]
  first = len(data.labels)
  place = {tuple(pair): first + i for i, pair in enumerate(copies.tolist())}
  indices = [
    np.array([place.get((i, c), i) for i, c in part.tolist()], np.int32)
    for part in parts
  ]
  return dataset.with_copies(data, copies, key, augment), indices


def training_augment(spec: InputSpec, augment: AugmentFn) -> AugmentFn | None:
  """What happens to every training image in every epoch; None for nothing.

  Copies that were made and augmented once, before the split, are left alone,
  and so is everything beside them: the study's way.
  """
  return None if spec.protocol.name == 'balance_then_split' else augment
