"""What the folders and names of an image set mean: one reading, or refused.

Pure functions of paths. Each folder level is a part of a split, a class, a
patient, or nothing of these; where two readings fit every file, both are said
with the key that chooses.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from leukemia_jax.data import levels, mask_pairs, names, patients
from leukemia_jax.data.levels import Image
from leukemia_jax.data.mask_pairs import Pairs
from leukemia_jax.data.mask_trees import Folders
from leukemia_jax.data.tables import Joined
from leukemia_jax.errors import InputError

# The part of images that a table leaves out.
EXCLUDED = 'excluded'
_EXCLUDED = frozenset('exclude excluded unused ignore ignored'.split())


class Options(NamedTuple):
  """How a source is read where its names don't say it; see `config.data`.

  Attributes:
    label: regular expression on the path: its group, or all, is the class.
    patient: 'auto', '' for none, 'folder', 'folder:N', or a regular expression
      with one group, on the path or the table's patient.
    mask_suffix: which masks to take, where there are several of an image.
    split: 'auto', 'source' or 'random'; see `protocols`.
    label_names: texts such as '0=hem': what a label in a table or a path means.
  """

  label: str = ''
  patient: str = 'auto'
  mask_suffix: str = ''
  split: str = 'auto'
  label_names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
  """An image as it was read.

  Attributes:
    path: in the source, as it is on disk.
    label: name of its class, or ''.
    patient: its patient, or ''.
    part: 'train', 'validation', 'test' or a fold's name, or ''.
    masks: paths of its masks; several are of one cell each.
  """

  path: str
  label: str = ''
  patient: str = ''
  part: str = ''
  masks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
  """What a source was read as.

  Attributes:
    entries: the images, in natural order of class and path.
    class_names: sorted; () where no image has a class.
    left_out: paths by the reason why they are not used.
    unpaired: masks and images without their counterpart, if there are masks.
    mask_kinds: masks to choose from; then none is read.
    how: where classes, patients, parts and masks come from, in words.
    warnings: what a user should look at; each names the key that helps.
  """

  entries: tuple[Entry, ...]
  class_names: tuple[str, ...]
  left_out: dict[str, tuple[str, ...]]
  unpaired: tuple[str, ...]
  mask_kinds: tuple[str, ...]
  how: dict[str, str]
  warnings: tuple[str, ...]

  def warned(self, more: Sequence[str]) -> Self:
    """The same, with more warnings."""
    return dataclasses.replace(self, warnings=(*self.warnings, *more))


def _set_parts(
  images: list[Image], options: Options, joined: Joined | None
) -> tuple[str, list[str]]:
  """Finds the parts, and takes their folders away.

  Returns:
    Where they come from, and warnings.
  """
  by_table = joined is not None and 'label' in joined.columns
  part_names = levels.find_parts(
    {image.path: image.folders for image in images},
    has_labels=bool(options.label) or by_table,
  )
  tests: set[str] = set()
  for image in images:
    own = part_names[image.path]
    folder = levels.part_folder(own.values())
    image.part = names.part(folder) or folder
    if image.part == 'test':
      tests.add(folder)
    image.folders = tuple(
      name for i, name in enumerate(image.folders) if i not in own
    )
  if joined is not None and 'part' in joined.columns:
    for image in images:
      row = joined.by_path.get(image.path)
      text = row.part if row else ''
      image.part = _table_part(text)
    return f'column {joined.columns["part"]!r}', []
  warnings = []
  if len(set(map(names.fold, tests))) > 1:
    warnings.append(
      f'the folders {levels.listed(tests)} are joined as one test part: move '
      'away what is another test, and evaluate it as a set of its own'
    )
  return 'folders' if any(part_names.values()) else '', warnings


def _table_part(text: str) -> str:
  """The part that a table's cell names."""
  if not text or names.part(text):
    return names.part(text)
  if text.isdecimal() and len(text) < 10:
    return f'fold_{int(text)}'
  if names.are_folds([text]):
    return text
  if set(names.words(text)) & _EXCLUDED:
    return EXCLUDED
  raise InputError(
    f'the table calls a part {text!r}; known are train, validation, test, '
    'numbers of folds, and exclude. Rename it, or leave the column out with '
    'config.data.columns="(\'part=\',)"'
  )


def _set_labels(
  images: list[Image], options: Options, joined: Joined | None
) -> str:
  """Finds the classes; says where from, '' if there are none."""
  if options.label:
    for image in images:
      image.label = (names.search(options.label, image.path) or '').strip()
    if not any(image.label for image in images):
      raise InputError(
        f'config.data.label={options.label!r} is found in no path, such as '
        f'{images[0].path}'
      )
    if all(names.is_part_word(i.label) for i in images if i.label):
      # The user says that these folders are classes.
      for image in images:
        image.part = ''
    return 'config.data.label'
  if joined is not None and 'label' in joined.columns:
    for image in images:
      row = joined.by_path.get(image.path)
      image.label = row.label if row else ''
    return f'column {joined.columns["label"]!r}'
  named = [
    image
    for image in images
    if image.folders and not any(map(names.is_unlabelled, image.folders))
  ]
  level = levels.class_level([image.folders for image in named])
  # What the user calls patients are no classes.
  if level is None:
    return ''
  if options.patient and options.patient == _numbered(named, level):
    return ''
  for image in named:
    if len(image.folders) > level:
      image.label = image.folders[level]
  _check_loose(images, level)
  persons = {i.label for i in images if names.are_patients([i.label])}
  if persons:
    others = {image.label for image in images} - persons - {''}
    raise InputError(
      f'the folders {levels.listed(persons)} are named as patients, and lie '
      f'where {levels.listed(others)} are classes. Give config.data.label, a '
      'regular expression that finds the class in the path'
    )
  return 'folders'


def _numbered(images: list[Image], level: int) -> str:
  """`config.data.patient` for a level of folders, as 'folder:1'; or ''."""
  deep = [image for image in images if len(image.folders) > level]
  numbers = {levels.number(image, level) for image in deep}
  number = numbers.pop() if len(numbers) == 1 else 0
  return f'folder:{number}' if number else ''


def _check_loose(images: list[Image], level: int) -> None:
  """Refuses images that lie beside class folders, in none of them."""
  above = {(i.part, i.folders[:level]) for i in images if i.label}
  loose = [
    image.path
    for image in images
    if not image.label and (image.part, image.folders) in above
  ]
  if loose:
    raise InputError(
      f'{len(loose)} images lie beside the class folders, in none of them: '
      f'{levels.listed(loose, 5)}. Move or remove them'
    )


def _rename(images: list[Image], label_names: Sequence[str]) -> None:
  """Gives labels the names that the user said."""
  labels = {image.label for image in images}
  meanings = {}
  for text in label_names:
    label, _, name = names.normalise(text).partition('=')
    if not name or label not in labels:
      raise InputError(
        f"config.data.label_names: {text!r} must be LABEL=NAME, as '0=hem', of "
        f'a label that is there: {levels.listed(labels - {""}, 12)}'
      )
    meanings[label] = name
  for image in images:
    image.label = meanings.get(image.label, image.label)


def _join_spellings(images: list[Image]) -> Iterable[str]:
  """Makes classes whose names differ by case one; warns of it."""
  counts = collections.Counter(image.label for image in images if image.label)
  spellings: dict[str, list[str]] = collections.defaultdict(list)
  for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
    spellings[names.fold(label)].append(label)
  for image in images:
    if image.label:
      image.label = spellings[names.fold(image.label)][0]
  for several in spellings.values():
    if len(several) > 1:
      yield (
        f'{levels.listed(several)} are read as one class; '
        'config.data.label_names or other folder names tell them apart'
      )


def _check_unlabelled(images: list[Image], options: Options) -> None:
  """Refuses a part of a split that has no labels."""
  parts = collections.Counter(i.part for i in images if i.part)
  for part, count in parts.items():
    if options.split != 'random' and not any(
      image.label for image in images if image.part == part
    ):
      raise InputError(
        f'the {count} images of the {part} part have no class. Either give '
        'their classes by config.data.table, or leave them out and split the '
        'others anew with config.data.split=random'
      )


def _without_items(pairs: Pairs) -> dict[str, Folders]:
  """Folders of images, without a level of one folder an image and its masks."""
  folders = pairs.folders
  counts = collections.Counter(folders.values())
  last = {own[-1] for own in folders.values() if own}
  if (
    pairs.masks
    and len(folders) > 2
    and all(own and counts[own] == 1 for own in folders.values())
    and not names.are_patients(last)
  ):
    return {path: own[:-1] for path, own in folders.items()}
  return folders


def _sort_key(path: str) -> tuple[list[tuple[int, str]], str]:
  """What paths are sorted by: composed, so that all systems have one order."""
  return names.natural_key(names.normalise(path)), path


def read(
  paths: Iterable[str],
  options: Options | None = None,
  joined: Joined | None = None,
) -> Reading:
  """Reads what the paths of an image set, and a table of it, mean.

  Args:
    paths: of all image files, with forward slashes, in any order.
    options: how to read what the paths leave open.
    joined: what tables say of the images.

  Returns:
    The reading; the same for any order of the paths.

  Raises:
    InputError: two readings fit, or options don't fit the set.
  """
  options = options or Options()
  paths = sorted(paths, key=_sort_key)
  pairs = mask_pairs.pair(paths, options.mask_suffix)
  folders = _without_items(pairs)
  images = [Image(path, folders[path]) for path in paths if path in folders]
  if not images:
    raise InputError('there are no images')
  parts_from, warnings = _set_parts(images, options, joined)
  how = {'parts': parts_from}
  excluded = tuple(i.path for i in images if i.part == EXCLUDED)
  left_out: dict[str, tuple[str, ...]] = {'excluded by the table': excluded}
  images = [image for image in images if image.part != EXCLUDED]
  how['classes'] = _set_labels(images, options, joined)
  _rename(images, options.label_names)
  warnings += _join_spellings(images)
  if how['classes']:
    _check_unlabelled(images, options)
    left_out['no class'] = tuple(i.path for i in images if not i.label)
    images = [image for image in images if image.label]
  how['patients'], patient_warnings = patients.assign(
    images, options.patient, joined
  )
  patients.spell_alike(images)
  if how['classes'] == 'folders':
    warnings += [*_deeper_warnings(images), *_code_warnings(images, pairs)]
  how['masks'] = 'names' if pairs.masks else ''
  left_out['masks of another kind'] = pairs.other_kinds
  left_out['beside images and masks'] = pairs.outside
  warnings += patient_warnings
  warnings += _left_out_warnings(left_out.get('no class', ()), pairs)
  used = {image.path for image in images}
  return Reading(
    entries=tuple(
      Entry(
        image.path,
        image.label,
        image.patient,
        image.part,
        pairs.masks.get(image.path, ()),
      )
      for image in sorted(images, key=lambda image: image.label)
    ),
    class_names=tuple(sorted({image.label for image in images} - {''})),
    left_out={key: value for key, value in left_out.items() if value},
    unpaired=tuple(
      path for path in pairs.unpaired if path in used or path not in folders
    ),
    mask_kinds=pairs.kinds,
    how=how,
    warnings=tuple(warnings),
  )


def _deeper_warnings(images: list[Image]) -> Iterable[str]:
  """Warns of folders below a class that holds images itself."""
  depths: dict[str, int] = {}
  for image in images:
    depth = len(image.folders)
    depths[image.label] = min(depth, depths.get(image.label, depth))
  deeper = [
    image
    for image in images
    if not image.patient and len(image.folders) > depths[image.label]
  ]
  if deeper:
    folders = ['/'.join(i.folders[depths[i.label] - 1 :]) for i in deeper]
    yield (
      f'{len(deeper)} images lie in folders below images of their class and '
      f'count as of it: {levels.listed(folders)}. If they do not belong '
      'there, move them; if these folders are patients, give '
      'config.data.patient=folder'
    )


def _code_warnings(images: list[Image], pairs: Pairs) -> Iterable[str]:
  """Warns of classes with masks whose names may be patients' codes."""
  classes, first = {image.label for image in images}, images[0]
  if not pairs.masks or any(image.patient for image in images):
    return
  if first.label not in first.folders:
    return  # renamed, by who knows that they are classes
  key = _numbered(images, first.folders.index(first.label))
  if key and all(map(names.has_digit, classes)):
    yield (
      f'the folders {levels.listed(classes)} are read as classes: if they are '
      f'patients, give config.data.patient={key}'
    )


def _left_out_warnings(
  unlabelled: Sequence[str], pairs: Pairs
) -> Iterable[str]:
  if unlabelled:
    yield (
      f'{len(unlabelled)} images have no class and are left out: '
      f'{levels.listed(unlabelled)}. config.data.table or config.data.label '
      'gives them one'
    )
  if pairs.kinds:
    yield (
      'images have several masks, none of which is read: choose by '
      f'config.data.mask_suffix, one of {", ".join(pairs.kinds)}'
    )
  if pairs.outside:
    yield (
      f'{len(pairs.outside)} images lie beside the trees of images and masks, '
      f'and are left out: {levels.listed(pairs.outside)}. To use them, give a '
      'config.data.source that holds them alone'
    )
