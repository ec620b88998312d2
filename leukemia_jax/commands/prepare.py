"""--mode=prepare: checks a set, says how it is read, draws contact sheets."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, files, tasks
from leukemia_jax.build import Inputs
from leukemia_jax.data import grouping, input_pipeline, masks, protocols, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.reporting import figures, pages
from leukemia_jax.training import initial_weights
from leukemia_jax.workdir import claim, prepared, result
from leukemia_jax.workdir.result import MaskRecord

_SHEET_IMAGES = 6  # images of a class on a contact sheet
_SHEET_CLASSES = 40  # classes on a contact sheet


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Checks a set, says how it is read, draws contact sheets.

  Args:
    config: the config.
    workdir: where prepare.json, prepare.md, classes.png and augmented.png go,
      and masks.png if there are masks.

  Raises:
    InputError: the data or the workdir can't be used.
  """
  config = initial_weights.resolve_preprocess(config)
  claim.check(workdir, 'train', config)
  inputs = build.inputs(config, tasks.for_model(config.model.name).targets)
  catalogue, load_some = input_pipeline.examine(inputs.spec)
  masks_read = result.mask_record(inputs.spec, catalogue)
  protocol = inputs.spec.protocol
  # Of several folds the first shows their sizes.
  if protocol.folds > 1 and protocol.fold < 0:
    protocol = protocol._replace(fold=0)
  spec = inputs.spec._replace(protocol=protocol)
  split = input_pipeline.make_split(inputs.keys.split, catalogue, spec)
  warnings = input_pipeline.say_what_is_left_out(catalogue)
  warnings += masks_read.warnings if masks_read else []
  known = prepared.describe(
    config.data.source, config.data.unit, catalogue, protocol, warnings
  )

  def sections(literal: Callable[[object], str]) -> list[str]:
    counts = _counts(catalogue, split, protocol, literal)
    masks = [_masks(masks_read, catalogue, literal)] if masks_read else []
    return [counts, *masks, literal(_left_out(known, catalogue))]

  print('\n\n'.join(['\n'.join(known.reading), *sections(str)]))
  for warning in warnings:
    print(f'warning: {warning}')
  sheets = _draw_sheets(inputs, load_some, catalogue)
  for name, image in sheets.items():
    files.write(workdir / name, image)
  texts = [*known.reading, *(f'warning: {text}' for text in warnings)]
  page = [
    f'# {pages.literal(known.source)}: how it is read',
    '\n'.join(f'* {pages.literal(text)}' for text in texts),
    *sections(pages.literal),
    *(f'![{name}]({name})' for name in sheets),
  ]
  files.write(workdir / 'prepare.md', '\n\n'.join(page) + '\n')
  print(f'wrote {prepared.write(workdir, known)}, prepare.md and its figures')


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


def _counts(
  catalogue: Catalogue,
  split: Split,
  protocol: protocols.Protocol,
  literal: Callable[[object], str],
) -> str:
  """Images, patients and groups by class and part."""
  counts = splits.part_counts(split, catalogue)
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  patients = np.array(catalogue.patients)
  rows = []
  for label, name in enumerate(catalogue.class_names):
    of_class = catalogue.labels == label
    own = set(patients[of_class].tolist()) - {''}
    numbers = [int(of_class.sum()), len(own), len(set(groups[of_class]))]
    numbers += [counts[part][name] for part in splits.PARTS]
    rows.append([literal(name), *map(str, numbers)])
  by_part = protocols.patients_by_part(split, catalogue)
  if catalogue.num_patients:
    in_parts = [str(len(by_part[part])) for part in splits.PARTS]
    rows.append(['patients', '', str(catalogue.num_patients), '', *in_parts])
  text = pages.table(
    ['class', 'images', 'patients', 'groups', *splits.PARTS], rows
  )
  text += f'\nParts: option {protocol.option}, {literal(protocol.name)}'
  if protocol.folds > 1:
    text += f', fold {protocol.fold} of {protocol.folds}'
  if protocol.name == 'split_then_balance':
    text += '; training images are repeated to balance classes.'
  shared = protocols.shared_patients(split, catalogue)
  if shared:
    text += f'\n{len(shared)} patients are in two parts.'
  return text


def _left_out(known: prepared.Prepared, catalogue: Catalogue) -> str:
  """What isn't used, and why."""
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
    ('images or masks have no counterpart', catalogue.notes.unpaired),
  ):
    if names:
      lines.append(
        f'{len(names)} {flaw} (fine for classification): {"; ".join(names[:5])}'
      )
  return '\n'.join(lines)


def _draw_sheets(
  inputs: Inputs,
  load_some: Callable[[np.ndarray], Dataset],
  catalogue: Catalogue,
) -> dict[str, bytes]:
  """Contact sheets by file name."""
  examples, augmented, masked = [], [], []
  augment = jax.jit(jax.vmap(inputs.augment))
  for label, name in enumerate(catalogue.class_names[:_SHEET_CLASSES]):
    members = np.flatnonzero(catalogue.labels == label)
    spread = np.linspace(0, len(members) - 1, _SHEET_IMAGES).astype(int)
    data = load_some(members[spread])
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
