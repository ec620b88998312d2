"""--mode=prepare: checks a set, says how it is read, draws contact sheets."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, files, tasks
from leukemia_jax.build import Inputs
from leukemia_jax.data import (
  grouping,
  input_pipeline,
  masks,
  part_contents,
  splits,
)
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import TooFewGroupsError
from leukemia_jax.reporting import figures, pages
from leukemia_jax.training import initial_weights
from leukemia_jax.workdir import claim, prepared, result
from leukemia_jax.workdir.prepared import Prepared
from leukemia_jax.workdir.records import MaskRecord

_SHEET_IMAGES = 6  # images of a class on a contact sheet
_SHEET_CLASSES = 40  # classes on a contact sheet


class Reading(NamedTuple):
  """A set as it was read.

  Attributes:
    inputs: the config's.
    catalogue: of the set.
    split: of it, or of the first of several folds; None if groups are too few.
    masks: how masks were read, if there are some.
    prepared: what prepare.json says.
    load_some: loads the images of some indices.
  """

  inputs: Inputs
  catalogue: Catalogue
  split: Split | None
  masks: MaskRecord | None
  prepared: Prepared
  load_some: Callable[[np.ndarray], Dataset]


def read(config: ConfigDict) -> Reading:
  """Checks a set and reads it; writes nothing but its records.

  Args:
    config: the config.

  Returns:
    The reading.

  Raises:
    InputError: the data can't be used.
  """
  task = tasks.for_model(config.model.name)
  inputs = build.inputs(config, task.targets)
  protocol = inputs.spec.protocol
  if protocol.folds > 1 and protocol.fold < 0:
    protocol = protocol._replace(fold=0)
    inputs = inputs._replace(spec=inputs.spec._replace(protocol=protocol))
  catalogue, load_some = input_pipeline.examine(inputs.spec)
  if catalogue.has_classes:
    task.check_classes(config, catalogue.class_names)
  record = result.mask_record(inputs.spec, catalogue)
  warnings = input_pipeline.warnings_of(catalogue)
  split = None
  try:
    split = input_pipeline.make_split(inputs.keys.split, catalogue, inputs.spec)
    warnings += input_pipeline.warnings_of_split(split, catalogue, protocol)
  except TooFewGroupsError as error:
    warnings.append(f'training will be refused: {error}')
  warnings += record.warnings if record else []
  described = prepared.describe(
    config.data.source, config.data.unit, catalogue, protocol, warnings
  )
  return Reading(inputs, catalogue, split, record, described, load_some)


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Checks a set, says how it is read, draws contact sheets.

  Args:
    config: the config.
    workdir: where prepare.json, prepare.md, classes.png and augmented.png go,
      and masks.png if there are masks.

  Raises:
    InputError: the data or the workdir can't be used.
  """
  config = initial_weights.resolve_auto(config, workdir)
  claim.check(workdir, 'train', config)
  reading = read(config)
  described = reading.prepared
  print('\n\n'.join(['\n'.join(described.reading), *_tables(reading, str)]))
  for warning in described.warnings:
    print(f'warning: {warning}')
  sheets = _draw_sheets(reading)
  for name, image in sheets.items():
    files.write(workdir / name, image)
  warnings = [f'warning: {text}' for text in described.warnings]
  page = [
    f'# {pages.literal(described.source)}: how it is read',
    '\n'.join(
      f'* {pages.literal(text)}' for text in [*described.reading, *warnings]
    ),
    *_tables(reading, pages.literal),
    *(f'![{name}]({name})' for name in sheets),
  ]
  files.write(workdir / 'prepare.md', '\n\n'.join(page) + '\n')
  path = prepared.write(workdir, described)
  print(f'wrote {path}, prepare.md and its figures')


def _tables(reading: Reading, literal: Callable[[object], str]) -> list[str]:
  """Counts, masks and what is left out; `literal` is for texts in them."""
  tables = [_counts(reading, literal)]
  if reading.masks:
    tables.append(_masks(reading.masks, reading.catalogue, literal))
  lines = _left_out(reading.prepared, reading.catalogue)
  return [*tables, '\n'.join(map(literal, lines))]


def _masks(
  record: MaskRecord, catalogue: Catalogue, literal: Callable[[object], str]
) -> str:
  """What masks cover, class by class."""
  text = pages.table(
    ['class', 'masks', 'mean share of cells', 'empty'],
    [
      [literal(name), str(row.masks), f'{row.mean:.1%}', str(row.empty)]
      for name, row in record.by_class.items()
    ],
  )
  text += (
    f'\nAn empty mask covers under {masks.EMPTY_SHARE:.1%}. Masks are read by '
    f'config.data.mask_rule={literal(record.rule)}'
    + (' and cleaned.' if record.cleaned else ', as they are.')
  )
  if catalogue.num_multicolour_masks:
    text += (
      f'\n{catalogue.num_multicolour_masks} masks hold more than two colours: '
      'all that the rule takes is one kind of cell'
    )
  return text


def _counts(reading: Reading, literal: Callable[[object], str]) -> str:
  """Images, patients and groups by class and part."""
  catalogue, split = reading.catalogue, reading.split
  protocol = reading.inputs.spec.protocol
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  patients = np.array(catalogue.patients)
  parts = splits.PARTS if split else ()
  counts = splits.part_counts(split, catalogue) if split else {}
  rows = []
  for label, name in enumerate(catalogue.class_names):
    of_class = catalogue.labels == label
    own = set(patients[of_class].tolist()) - {''}
    numbers = [int(of_class.sum()), len(own), len(set(groups[of_class]))]
    numbers += [counts[part][name] for part in parts]
    rows.append([literal(name), *map(str, numbers)])
  if split and catalogue.num_patients:
    by_part = part_contents.patients_by_part(split, catalogue)
    in_parts = [str(len(by_part[part])) for part in parts]
    rows.append(['patients', '', str(catalogue.num_patients), '', *in_parts])
  text = pages.table(['class', 'images', 'patients', 'groups', *parts], rows)
  if not split:
    return text
  text += f'\nParts: option {protocol.option}, {literal(protocol.name)}'
  if protocol.folds > 1:
    text += f', fold {protocol.fold} of {protocol.folds}'
  if protocol.name == 'split_then_balance':
    text += '; training images are repeated to balance classes.'
  shared = part_contents.shared_patients(split, catalogue)
  if shared:
    text += f'\n{len(shared)} patients are in two parts.'
  return text


def _left_out(known: Prepared, catalogue: Catalogue) -> list[str]:
  """Lines that say what isn't used, and why."""
  lines = [
    f'{known.images} images, {known.masks} with a mask, {known.duplicates} '
    f'duplicates within a class; fingerprint {known.fingerprint}'
  ]
  if known.left_out:
    reasons = known.left_out_by_reason.items()
    listed = ', '.join(f'{reason} {count}' for reason, count in reasons)
    lines.append(f'{known.left_out} files left out: {listed}')
  for flaw, names in (
    ('masks cannot be used', catalogue.bad_masks),
    ('images or masks have no counterpart, or two', catalogue.notes.unpaired),
  ):
    if names:
      lines.append(
        f'{len(names)} {flaw} (fine for classification): {"; ".join(names[:5])}'
      )
  return lines


def _draw_sheets(reading: Reading) -> dict[str, bytes]:
  """Contact sheets by file name."""
  inputs, catalogue = reading.inputs, reading.catalogue
  examples, augmented, masked = [], [], []
  augment = jax.jit(jax.vmap(inputs.augment))
  for label, name in enumerate(catalogue.class_names[:_SHEET_CLASSES]):
    members = np.flatnonzero(catalogue.labels == label)
    spread = np.linspace(0, len(members) - 1, _SHEET_IMAGES).astype(int)
    data = reading.load_some(members[spread])
    assert data.masks is not None
    images = np.asarray(data.images)
    examples.append((name, list(images)))
    masked.append((name, list(images * np.asarray(data.masks))))
    # Keys of its own for each class.
    key = jax.random.fold_in(inputs.keys.copies, label)
    keys = jax.random.split(key, _SHEET_IMAGES - 1)
    originals = jnp.repeat(images[:1], _SHEET_IMAGES - 1, 0)
    copies = np.asarray(augment(keys, originals))
    augmented.append((name, [images[0], *copies]))
  sheets = {
    'classes.png': (examples, 'Examples of each class'),
    'augmented.png': (augmented, 'An image (left) and its augmented forms'),
  }
  if catalogue.num_masks:
    sheets['masks.png'] = (masked, 'What the masks mark as cells')
  return {
    name: figures.contact_sheet(rows, title)
    for name, (rows, title) in sheets.items()
  }
