"""From a source to a data set and its split, once for each command."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from leukemia_jax.data import (
  builder,
  checked,
  dataset,
  grouping,
  masks,
  part_contents,
  protocols,
  records,
  splits,
  streaming,
)
from leukemia_jax.data.builder import SourceSpec
from leukemia_jax.data.dataset import AugmentFn, Catalogue, Dataset
from leukemia_jax.data.protocols import Protocol
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError
from leukemia_jax.transforms.colour import Removal


class InputSpec(NamedTuple):
  """What is read, and how it is split; see `config.data`.

  Attributes:
    source: what the set is made of.
    stream: whether images stay on disk.
    on_bad_image: 'error', or 'skip' to leave images that can't be used out.
    image_size: side of the images, px, `config.data.scale` included.
    targets: what a model learns: 'classes' or 'masks'.
    mask_reading: how masks are read.
    drop_empty_masks: whether images of empty masks are left out of training.
    removal: what is taken out of every image.
    protocol: how the set is split.
  """

  source: SourceSpec
  stream: bool
  on_bad_image: str
  image_size: int
  targets: str
  mask_reading: masks.Reading
  drop_empty_masks: bool
  removal: Removal
  protocol: protocols.Protocol


def _reading(spec: InputSpec, read_masks: bool) -> records.Reading:
  masks_too = (
    read_masks or spec.targets == 'masks' or spec.removal.neutral_background
  )
  return records.Reading(
    spec.image_size,
    spec.source.decoding,
    spec.mask_reading if masks_too else None,
    spec.removal,
  )


def _prepare(spec: InputSpec) -> pathlib.Path:
  directory = builder.prepare(spec.source)
  skip = spec.on_bad_image == 'skip'
  dataset.refuse_flaws(directory, spec.source.source, skip)
  return directory


def load(spec: InputSpec, *, min_classes: int = 2) -> tuple[Dataset, Catalogue]:
  """Prepares a source if need be and reads it.

  Args:
    spec: what to read.
    min_classes: classes that a classifier needs at least.

  Returns:
    Images, labels and masks on the device, or on disk with `spec.stream`, and
    the catalogue.

  Raises:
    InputError: the source can't be used; it has no classes, or too few; or, to
      learn masks, some are missing or bad, or none has a cell.
  """
  directory = _prepare(spec)
  reading = _reading(spec, False)
  if spec.stream:
    streaming.check_installed()
    catalogue = dataset.catalogue(directory, reading)
    data = dataset.on_disk(directory, reading, catalogue.labels)
  else:
    data, catalogue = dataset.load(directory, reading)
  for warning in warnings_of(catalogue):
    print(f'warning: {warning}')
  if spec.targets == 'classes':
    data = data._replace(masks=None)
  usable = _usable(spec, catalogue, min_classes)
  if len(usable) < len(catalogue.ids):
    data, catalogue = dataset.select(data, catalogue, usable)
  return data, catalogue


def examine(
  spec: InputSpec,
) -> tuple[Catalogue, Callable[[np.ndarray], Dataset]]:
  """`load` without storing a pixel; masks are read in any case.

  Args:
    spec: what to read.

  Returns:
    The catalogue, and what loads the images of some of its indices.

  Raises:
    InputError: see `load`.
  """
  directory = _prepare(spec)
  reading = _reading(spec, True)
  catalogue = dataset.catalogue(directory, reading)
  usable = _usable(spec, catalogue, 2)

  def load_some(indices: np.ndarray) -> Dataset:
    return dataset.load(directory, reading, indices=usable[indices])[0]

  return dataset.select_known(catalogue, usable), load_some


class Everything(NamedTuple):
  """All images of a source that can be read, fit to learn from or not.

  Attributes:
    dataset: images, labels and masks.
    catalogue: of the set.
    read_files: maps what reads a file's bytes to what it says of each image.
  """

  dataset: Dataset
  catalogue: Catalogue
  read_files: Callable[[Callable[[bytes], Any]], list[Any]]


def load_everything(spec: InputSpec) -> Everything:
  """`load` of all that can be read; masks are read in any case.

  Args:
    spec: what to read.

  Returns:
    What was read; an image without a mask has an empty one.

  Raises:
    InputError: nothing can be read.
  """
  directory = builder.prepare(spec.source)
  dataset.refuse_flaws(directory, spec.source.source, skip=True)
  data, catalogue = dataset.load(directory, _reading(spec, True))
  _check_masks(spec, catalogue)
  return Everything(
    data, catalogue, functools.partial(dataset.read_files, directory)
  )


def warnings_of(catalogue: Catalogue) -> list[str]:
  """What a user should look at before a set is used; each names a key."""
  texts = list(catalogue.notes.warnings)
  for files, flaw in (
    (catalogue.bad_images, 'bad images are'),
    (catalogue.contradictory, 'images of several classes are'),
  ):
    if files:
      texts.append(
        f'{len(files)} {flaw} left out by config.data.on_bad_image=skip: '
        + ', '.join(files[:5])
        + (', ...' if len(files) > 5 else '')
      )
  return texts


def warn_of_parts(spec: InputSpec, catalogue: Catalogue) -> None:
  """Says that a source's own parts are not the split, if nobody asked for it.

  Args:
    spec: how the set is split.
    catalogue: of the set.

  Raises:
    InputError: see `protocols.takes_source_parts`.
  """
  protocol, parts = spec.protocol, sorted(set(catalogue.parts) - {''})
  if protocol.split != 'auto' or not parts:
    return
  if protocols.takes_source_parts(catalogue, protocol):
    return
  print(
    f"warning: the source's own parts ({', '.join(parts)}) are left aside, and "
    'all images split anew: if this is meant, say config.data.split=random. '
    'Training and test parts are the split of one model under '
    f'config.data.protocol={protocols.BY_GROUPS[0]}; folds are with '
    'config.data.split=source and config.data.folds, their number'
  )


def _usable(
  spec: InputSpec, catalogue: Catalogue, min_classes: int
) -> np.ndarray:
  """The indices of the images that can be learnt from, or an error."""
  _check_masks(spec, catalogue)
  if spec.targets == 'masks':
    usable = _masked(spec, catalogue)
    if not catalogue.coverage[usable].any():
      raise InputError(_all_empty(spec, '', len(usable)))
    return usable
  if not catalogue.has_classes:
    raise InputError(_no_classes(spec.source.source, catalogue))
  if len(catalogue.class_names) < min_classes:
    raise InputError(
      f'{spec.source.source} has one class, {catalogue.class_names[0]!r}: a '
      'classifier needs two class folders or more' + _masks_hint(catalogue)
    )
  return np.arange(len(catalogue.ids))


def _check_masks(spec: InputSpec, catalogue: Catalogue) -> None:
  """Refuses to keep cells alone where masks don't say what they are."""
  without = int(np.isnan(catalogue.coverage).sum())
  if spec.removal.neutral_background and without:
    raise InputError(
      f'config.data.neutral_background=True needs a mask for each image, and '
      f'{without} of {len(catalogue.ids)} images of {spec.source.source} have '
      'none that can be used'
    )


def _masks_hint(catalogue: Catalogue) -> str:
  if catalogue.bad_masks and not catalogue.num_masks:
    return (
      f'. Its {len(catalogue.bad_masks)} masks cannot be used by '
      f'--config=configs/unet.py either: {catalogue.bad_masks[0]}'
    )
  if not catalogue.num_masks:
    return ''
  return (
    f'. {catalogue.num_masks} of its images have a mask: '
    '--config=configs/unet.py learns from these'
  )


def _no_classes(source: str, catalogue: Catalogue) -> str:
  """The error for a set without classes."""
  notes = catalogue.notes.annotations
  return (
    f'{source}: none of its {len(catalogue.ids)} images has a class, which a '
    'classifier learns from'
    + (f'; {notes} lie there, which are not read' if notes else '')
    + _masks_hint(catalogue)
    + ''.join(f'. {text}' for text in catalogue.notes.warnings)
    + '. Give a folder for each class, a table by config.data.table, or where '
    "the class stands in the path by config.data.label, such as '_([01])[.]'"
  )


def _masked(spec: InputSpec, catalogue: Catalogue) -> np.ndarray:
  """The images that have a mask; others are an error, or skipped."""
  paired = np.flatnonzero(~np.isnan(catalogue.coverage))
  bad = list(catalogue.bad_masks)
  source, notes = spec.source.source, catalogue.notes
  if notes.mask_kinds:
    raise InputError(
      f'{source}: its images have several masks: choose by '
      f'config.data.mask_suffix, one of {", ".join(notes.mask_kinds)}'
    )
  if not len(paired) and not bad:
    beside = notes.unpaired[:1]
    raise InputError(
      f'{source} has no masks, which a U-Net learns from'
      + (f'; {notes.annotations} are not read' if notes.annotations else '')
      + (f'; {beside[0]} has no counterpart' if beside else '')
      + ': give Original/<Class>/ with Segmented/<Class>/, or images/ with '
      'masks/, with matching file names, or masks beside images as x_mask'
    )
  bad += [f'{path}: no matching file' for path in notes.unpaired]
  if not bad:
    return paired
  if spec.on_bad_image == 'error' or not len(paired):
    raise checked.unusable(
      f'{source}: {len(bad)} masks are bad, or masks and images have no '
      'counterpart (a mask is named as its image is, or that and a suffix)',
      bad,
    )
  left_out = len(catalogue.ids) - len(paired)
  print(f'{left_out} images without a mask that can be used left out')
  return paired


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
  split = protocols.make(key, catalogue, spec.protocol, trainable=trainable)
  if not len(split.train):
    raise InputError(
      'config.data.drop_empty_masks=True leaves no image to train on: all '
      'masks of the training part are empty'
    )
  return split


def warnings_of_split(
  split: Split, catalogue: Catalogue, protocol: Protocol
) -> list[str]:
  """Says what is tested on no image, and how many images nothing is done with.

  Args:
    split: of the set.
    catalogue: of the set.
    protocol: of the split.

  Returns:
    The texts, if there are any.
  """
  if protocol.name not in protocols.BY_GROUPS:
    return []
  names = catalogue.class_names
  lacking = part_contents.lacking(split, ['validation', 'test'], catalogue)
  warnings = [
    f'the {part} part has no image of {names[label]!r}: its scores say nothing '
    'of that class; config.data.split=random splits anew'
    for part, label in lacking
  ]
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  used = np.isin(np.arange(len(groups)), np.concatenate(split)[:, 0])
  held_out = np.concatenate([split.validation, split.test])[:, 0]
  count = int((~used & np.isin(groups, groups[held_out])).sum())
  if not count:
    return warnings
  return [
    *warnings,
    f'{count} images are in no part: they equal images of the validation or '
    'test part, or are of a patient or run of files there',
  ]


class Materialised(NamedTuple):
  """A set with the augmented copies that its parts ask for.

  Attributes:
    dataset: the originals, then the copies.
    indices: of each part's images in it, int32.
    origins: int32, shape (images, 2): source index and copy number of each.
  """

  dataset: Dataset
  indices: list[np.ndarray]
  origins: np.ndarray


def materialise(
  parts: Sequence[np.ndarray],
  data: Dataset,
  *,
  key: jax.Array,
  augment: AugmentFn,
) -> Materialised:
  """Makes the augmented copies that parts ask for, and their indices.

  Args:
    parts: a split of the set, or the parts of several.
    data: the originals.
    key: PRNG key of the copies.
    augment: what a copy differs by.

  Returns:
    The set with the copies.

  Raises:
    InputError: there are copies, and the set stays on disk.
  """
  every = splits.unique(np.concatenate(parts))
  copies = every[every[:, 1] > 0]
  if len(copies) and data.is_on_disk:
    raise InputError(
      'config.data.stream=True keeps images on disk, where no augmented copies '
      'are made; give --config.data.stream=False'
    )
  first = len(data.labels)
  place = {tuple(pair): first + i for i, pair in enumerate(copies.tolist())}
  indices = [
    np.array([place.get((i, c), i) for i, c in part.tolist()], np.int32)
    for part in parts
  ]
  return Materialised(
    dataset.with_copies(data, copies, key, augment),
    indices,
    np.concatenate([splits.originals(np.arange(first)), copies]),
  )


def training_augment(spec: InputSpec, augment: AugmentFn) -> AugmentFn | None:
  """What happens to every training image in every epoch; None for nothing.

  Copies that were made and augmented once, before the split, are left alone,
  and so is everything beside them: the study's way.
  """
  return None if spec.protocol.name == 'balance_then_split' else augment
