"""What the folder levels of an image set are: parts, classes, patients.

Pure functions of folder names, without trees of images and masks.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

from leukemia_jax.data import names
from leukemia_jax.data.mask_trees import Folders
from leukemia_jax.errors import InputError


@dataclasses.dataclass
class Image:
  """An image while it is read; the fields are those of `Entry`."""

  path: str
  folders: Folders
  label: str = ''
  patient: str = ''
  part: str = ''


def number(image: Image, level: int) -> int:
  """Which folder of an image's path a level is, from 1; 0 for none."""
  path = [names.normalise(name) for name in image.path.split('/')[:-1]]
  last = 0
  for name in image.folders[:level]:
    # A tree of images has another name than is displayed.
    if name in path[last:]:
      last = path.index(name, last) + 1
  name = image.folders[level]
  return path.index(name, last) + 1 if name in path[last:] else 0


def listed(values: Iterable[str], most: int = 4) -> str:
  """The first few different names in natural order, as prose."""
  values = sorted(set(values), key=names.natural_key)
  more = ', ...' if len(values) > most else ''
  return ', '.join(values[:most]) + more


def find_parts(
  folders: dict[str, Folders], *, has_labels: bool
) -> dict[str, dict[int, str]]:
  """Finds the folders that are parts of a split.

  Args:
    folders: of every image by its path.
    has_labels: whether classes come from elsewhere than folders.

  Returns:
    The names of parts in each image's folders, by their index.

  Raises:
    InputError: folders that are parts lie beside others that are none, and
      could be classes.
  """
  children: dict[Folders, set[str]] = collections.defaultdict(set)
  for own in folders.values():
    for i, name in enumerate(own):
      children[own[:i]].add(name)
  known: set[str] = set()
  parents: set[Folders] = set()
  for parent, below in children.items():
    parts = {names.part(name) for name in below}
    if len(below) > 1 and (
      ('' not in parts and len(parts) > 1)
      or names.are_folds(below)
      or names.are_phases(below)
    ):
      parents.add(parent)
      known |= {names.fold(name) for name in below}
  for parent, below in children.items():
    said = {name for name in below if names.is_part_word(name)}
    if parent in parents or not said or len(below) == 1:
      continue
    if {names.fold(name) for name in below} <= known:
      parents.add(parent)
      continue
    if has_labels:
      continue
    raise InputError(
      f'the folders {listed(below, 8)} can be read in two ways: as classes, or '
      f'{listed(said)} as a part of a split. Give config.data.label, a regular '
      'expression that finds the class in the path, or move what is no part '
      'elsewhere'
    )
  by_path = {}
  for path, own in folders.items():
    by_path[path] = {
      i: name
      for i, name in enumerate(own)
      if own[:i] in parents
      or (names.fold(name) in known and len(children[own[:i]]) == 1)
    }
  return by_path


def part_folder(part_names: Iterable[str]) -> str:
  """Which of an image's part names counts: the innermost; a fold's if no other.

  Args:
    part_names: from `find_parts`, from the top.

  Returns:
    The name; '' without one.
  """
  part_names = list(part_names)
  parts = [name for name in part_names if names.part(name)]
  folds = [name for name in part_names if names.are_folds([name])]
  return (parts or folds or [''])[-1]


def differing(folders: Sequence[Folders]) -> list[int]:
  """The levels that differ between images, from the top."""
  depth = max(map(len, folders), default=0)
  return [
    i for i in range(depth) if len({f[i] for f in folders if len(f) > i}) > 1
  ]


def _is_nested(folders: Sequence[Folders], above: int, below: int) -> bool:
  """Whether each name of a level lies under one name of a higher one."""
  owners: dict[str, set[str]] = collections.defaultdict(set)
  for own in folders:
    if len(own) > below:
      owners[names.fold(own[below])].add(own[above])
  return all(len(o) == 1 for o in owners.values())


def class_level(folders: Sequence[Folders]) -> int | None:
  """The folder level of the classes.

  Args:
    folders: of every image, without parts and trees of images.

  Returns:
    Its index from the top; None if no folder is a class.

  Raises:
    InputError: two readings fit.
  """
  varied = differing(folders)
  if not varied:
    # One folder: a class of its own, if it isn't only a wrapping.
    depth = min(map(len, folders), default=0)
    last = folders[0][depth - 1] if depth else ''
    is_wrapping = (
      names.part(last)
      or names.IMAGE_WORDS & set(names.words(last))
      or names.are_patients([last])
    )
    return depth - 1 if last and not is_wrapping else None
  levels = {i: {f[i] for f in folders if len(f) > i} for i in varied}
  left = [
    i
    for i in varied
    if not names.are_patients(levels[i])
    and not names.are_magnifications(levels[i])
  ]
  # A level that only some images have lies below another one's classes.
  left = [i for i in left if all(len(f) > i for f in folders)] or left
  while len(left) > 1:
    left.remove(_not_the_classes(folders, levels, left[0], left[1]))
  return left[0] if left else None


def _not_the_classes(
  folders: Sequence[Folders],
  levels: dict[int, set[str]],
  above: int,
  below: int,
) -> int:
  """Which of two levels does not hold the classes."""
  is_above, is_below = (names.are_numbered(levels[i]) for i in (above, below))
  if is_above != is_below:
    return above if is_above else below
  if names.are_codes(levels[below]) and _is_nested(folders, above, below):
    return below
  raise InputError(
    f'the folders can be read in two ways: {listed(levels[above])} as classes, '
    f'or {listed(levels[below])} below them. Choose with config.data.label='
    f"'{_pattern(levels[above], '(?:^|/)')}' or config.data.label="
    # The last one of the path, where both levels have such names.
    f"'{_pattern(levels[below], '(?:.*/|^)')}'"
  )


def _pattern(level: set[str], before: str) -> str:
  """A regular expression that finds a level's name in a path."""
  ordered = sorted(level, key=names.natural_key)
  return f'{before}({"|".join(map(re.escape, ordered))})/'


def other_levels(images: list[Image]) -> list[int]:
  """The levels that differ, without classes and what a class lies in."""
  owners: dict[int, dict[str, set[str]]] = {}
  for level in differing([image.folders for image in images]):
    owners[level] = collections.defaultdict(set)
    for image in images:
      if len(image.folders) > level:
        # Spellings of one class are no levels below it.
        name = names.fold(image.folders[level])
        owners[level][names.fold(image.label)].add(name)
  return [
    level
    for level, by_label in owners.items()
    if any(len(folders) > 1 for folders in by_label.values())
  ]


def patient_level(images: list[Image]) -> int | None:
  """The folder level that is clearly one of patients."""
  levels = other_levels(images)
  below = {i: [im for im in images if len(im.folders) > i] for i in levels}
  named = [
    i for i in levels if names.are_patients({im.folders[i] for im in below[i]})
  ]
  if not named:
    labels = [(im.label, *im.folders) for im in images]
    named = [
      i
      for i in levels
      if names.are_codes({im.folders[i] for im in below[i]})
      and not names.are_magnifications({im.folders[i] for im in below[i]})
      and _is_nested(labels, 0, i + 1)
      and any(image.label for image in images)
    ]
  return named[0] if len(named) == 1 else None
