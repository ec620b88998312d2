"""--mode=prepare: checks a set, prints its counts, draws contact sheets."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, files, tasks
from leukemia_jax.build import Inputs
from leukemia_jax.data import grouping, input_pipeline, masks, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.reporting import figures, pages
from leukemia_jax.training import initial_weights
from leukemia_jax.workdir import claim, result

_SHEET_IMAGES = 6  # images of a class on a contact sheet


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Builds and checks a set, prints its counts, draws contact sheets.

  Args:
    config: the config.
    workdir: where classes.png and augmented.png go, and masks.png if there are
      masks.

  Raises:
    InputError: the data or the workdir can't be used.
  """
  config = initial_weights.resolve_preprocess(config)
  claim.check(workdir, 'train', config)
  inputs = build.inputs(config, tasks.for_model(config.model.name).targets)
  dataset, catalogue = input_pipeline.load(inputs.spec, read_masks=True)
  if catalogue.num_masks:
    _print_masks(inputs, catalogue)
  split = input_pipeline.make_split(inputs.keys.split, catalogue, inputs.spec)
  _print_counts(inputs, catalogue, split)
  for name, image in _draw_sheets(inputs, dataset, catalogue).items():
    files.write(workdir / name, image)
    print(f'wrote {workdir / name}')


def _print_masks(inputs: Inputs, catalogue: Catalogue) -> None:
  """What masks cover, class by class, and which look broken."""
  record = result.mask_record(inputs.spec, catalogue)
  assert record is not None
  print(
    pages.table(
      ['class', 'masks', 'mean share of cells', 'empty'],
      [
        [name, str(row.masks), f'{row.mean:.1%}', str(row.empty)]
        for name, row in record.by_class.items()
      ],
    )
  )
  print(
    f'An empty mask covers under {masks.EMPTY_SHARE:.1%}. Masks are read by '
    f'config.data.mask_rule={record.rule}'
    + (' and cleaned.' if record.cleaned else ', as they are.')
  )
  if catalogue.num_multicolour_masks:
    print(
      f'{catalogue.num_multicolour_masks} masks hold more than two colours: '
      'all that the rule takes is one kind of cell'
    )


def _print_counts(inputs: Inputs, catalogue: Catalogue, split: Split) -> None:
  """Images and groups by class and part, and what was left out."""
  protocol = inputs.spec.protocol
  counts = splits.part_counts(split, catalogue)
  groups = grouping.group_ids(catalogue, protocol.grouping, protocol.block)
  cells = []
  for label, name in enumerate(catalogue.class_names):
    of_class = groups[catalogue.labels == label]
    numbers = [len(of_class), len(set(of_class))]
    numbers += [counts[part][name] for part in splits.PARTS]
    cells.append([name, *map(str, numbers)])
  print(pages.table(['class', 'images', 'groups', *splits.PARTS], cells))
  print(
    f'Parts: option {protocol.option}, {protocol.name}'
    + (
      '; training images are repeated to balance classes.'
      if protocol.name == 'split_then_balance'
      else ''
    )
  )
  print(
    f'{len(catalogue.ids)} images, {catalogue.num_masks} with a mask, '
    f'{len(catalogue.skipped)} left out; fingerprint {catalogue.fingerprint}'
  )
  for flaw, names in (
    ('masks cannot be used', catalogue.bad_masks),
    ('images or masks have no counterpart', catalogue.unpaired),
  ):
    if names:
      print(
        f'{len(names)} {flaw} (fine for classification): {"; ".join(names[:5])}'
      )


def _draw_sheets(
  inputs: Inputs, dataset: Dataset, catalogue: Catalogue
) -> dict[str, bytes]:
  """Contact sheets by file name."""
  examples, augmented, masked = [], [], []
  augment = jax.jit(jax.vmap(inputs.augment))
  assert dataset.masks is not None
  for label, name in enumerate(catalogue.class_names):
    members = np.flatnonzero(catalogue.labels == label)
    spread = np.linspace(0, len(members) - 1, _SHEET_IMAGES).astype(int)
    picked = members[spread]
    images = np.asarray(dataset.images[picked])
    examples.append((name, list(images)))
    masked.append((name, list(images * np.asarray(dataset.masks[picked]))))
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
