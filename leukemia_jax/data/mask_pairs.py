"""Which files are masks, and of which images: a pure function of their paths.

Masks lie in a tree beside the images' (images/ and masks/, Original/ and
Segmented/, train/ and train_masks/), or beside each image under its name and a
suffix; there may be one file a cell.
"""

import collections
import dataclasses
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from leukemia_jax.data import mask_trees, names
from leukemia_jax.data.mask_trees import Folders, Trees
from leukemia_jax.errors import InputError

_SEPARATOR = re.compile(r'[ _.\-(\[]')
_NUMBER = re.compile(r'[ _.\-]*[(\[]?\d+[)\]]?$')


class _File(NamedTuple):
  """An image file.

  Attributes:
    path: in the source.
    folders: its folders' names, without the images' or masks' tree.
    key: folders and stem as they are compared.
    tree: name of the masks' tree that it lies in, or ''.
  """

  path: str
  folders: Folders
  key: tuple[Folders, str]
  tree: str


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Images and their masks.

  Attributes:
    folders: of each image by its path, without the tree of images.
    masks: of each image that has some, by its path; several are of one cell
      each.
    unpaired: masks without an image, and if there are masks the images without
      one.
    other_kinds: masks that `suffix` left out.
    kinds: the suffixes or trees to choose from, if there are several; then
      `masks` is empty.
    outside: files beside a tree of images and one of masks.
  """

  folders: dict[str, Folders]
  masks: dict[str, tuple[str, ...]]
  unpaired: tuple[str, ...]
  other_kinds: tuple[str, ...] = ()
  kinds: tuple[str, ...] = ()
  outside: tuple[str, ...] = ()


def _place(path: str, trees: Trees, several: set[Folders]) -> _File:
  """A file without its trees; `several` is from `_parents_of_several`."""
  *folders, _ = path.split('/')
  display: list[str] = []
  compared: list[str] = []
  tree = ''
  for i, name in enumerate(folders):
    prefix, key = tuple(folders[: i + 1]), names.fold(name)
    if prefix in trees.masks:
      tree, key = tree or name, trees.masks[prefix]
    elif prefix in trees.images:
      key = trees.images[prefix]
      if names.IMAGE_WORDS & set(names.words(name)):
        name = key
    is_repeated = key in compared[-1:]
    if not key or (is_repeated and prefix in trees.nested):
      continue
    if not is_repeated:
      compared.append(key)
    # A tree of images may be a part too, or one of several classes.
    if (
      prefix not in trees.images
      or names.part(prefix[-1])
      or prefix[:-1] in several
    ):
      display.append(names.normalise(name))
  stem = names.fold(names.stem(path))
  return _File(path, tuple(display), (tuple(compared), stem), tree)


def _parents_of_several(trees: Trees) -> set[Folders]:
  """The folders whose trees of images say different things."""
  said: dict[Folders, set[str]] = collections.defaultdict(set)
  for place, words in trees.images.items():
    said[place[:-1]].add(words)
  return {parent for parent, own in said.items() if len(own) > 1}


def _cuts(stem: str, stems: Container[str]) -> Iterator[tuple[str, str]]:
  """The stems that a stem goes on from, the longest first, and how it does."""
  for match in reversed(list(_SEPARATOR.finditer(stem))):
    base = stem[: match.span()[0]]
    if base in stems:
      yield base, stem[match.span()[0] :]


def _kind(suffix: str) -> str:
  """A mask's suffix without the number of a cell."""
  return _NUMBER.sub('', suffix)


class _Index:
  """Images by folder and stem, as masks are matched to them."""

  def __init__(self, images: Iterable[_File]):
    self.stems: dict[Folders, dict[str, list[_File]]] = {}
    self.by_rest: dict[tuple[Folders, tuple[str, ...]], list[_File]] = {}
    for image in images:
      folders, stem = image.key
      self.stems.setdefault(folders, {}).setdefault(stem, []).append(image)
      self.by_rest.setdefault((folders, names.rest(stem)), []).append(image)

  def find(self, mask: _File) -> tuple[list[_File], str]:
    """The images of a mask in a tree, and its suffix."""
    folders, stem = mask.key
    stems = self.stems.get(folders, {})
    if stem in stems:
      return stems[stem], ''
    for base, ending in _cuts(stem, stems):
      return stems[base], ending
    # nnU-Net numbers the channels of its images.
    if f'{stem}_0000' in stems:
      return stems[f'{stem}_0000'], ''
    same = self.by_rest.get((folders, names.rest(stem)), [])
    if len(same) == 1 and names.rest(stem):
      return same, ''
    # A folder of one file a cell, named after its image or beside it; or of
    # one person's masks.
    if folders:
      above = self.stems.get(folders[:-1], {})
      if folders[-1] in above:
        return above[folders[-1]], ''
      for base, ending in ((stem, ''), *_cuts(stem, above)):
        if base in above:
          return above[base], f'{folders[-1]}{ending}'
    if len(stems) == 1:
      return next(iter(stems.values())), ''
    return [], ''


class _Found(NamedTuple):
  """A mask, the images that it belongs to, and how its name ends."""

  mask: _File
  images: list[_File]
  ending: str


def _beside(files: list[_File], suffix: str) -> list[_Found]:
  """The masks that lie beside their images."""
  index = _Index(files)
  matches, waiting = [], []
  for file in files:
    folders, stem = file.key
    is_chosen = bool(suffix) and _ends(file, suffix)
    if not is_chosen and not names.is_mask(stem):
      continue
    stems = index.stems[folders]
    cuts = [
      (base, ending)
      for base, ending in _cuts(stem, stems)
      if is_chosen or names.is_mask(ending)
    ]
    same = index.by_rest[folders, names.rest(stem)]
    partners = [f for f in same if not names.is_mask(f.key[1])]
    twin = [f for f in stems[stem] if not _ends(f, suffix)]
    if is_chosen and suffix.startswith('.') and twin:
      matches.append(_Found(file, twin, suffix))
    elif cuts:
      # The shortest: x_mask_1 is a mask of x, as x_mask is.
      base, ending = cuts[-1]
      matches.append(_Found(file, stems[base], ending))
    elif len(same) == 2 and len(partners) == 1:
      matches.append(_Found(file, partners, 'mask'))
    else:
      waiting.append(file)
  # A mask whose image is missing is no image.
  known = {_kind(mask.ending) for mask in matches} - {''}
  for file in waiting:
    endings = [k for k in known if _kind(file.key[1]).endswith(k)]
    if endings:
      matches.append(_Found(file, [], max(endings, key=len)))
  return matches


def _in_trees(
  masks: list[_File], images: list[_File], index: _Index, trees: Trees
) -> Iterator[_Found]:
  """The masks that lie in trees of their own."""
  by_folder: dict[Folders, list[_Found]] = collections.defaultdict(list)
  for mask in masks:
    folder = tuple(mask.path.split('/')[:-1])
    by_folder[folder].append(_Found(mask, *index.find(mask)))
  by_name = {
    folder: [match.mask for match in matches]
    for folder, matches in by_folder.items()
    if folder in trees.flat or not any(match.images for match in matches)
  }
  below: dict[Folders, list[_File]] = {folder[:-1]: [] for folder in by_name}
  for image in images:
    parts = tuple(image.path.split('/'))
    for i in range(len(parts)):
      if parts[:i] in below:
        below[parts[:i]].append(image)
  for folder, matches in by_folder.items():
    if folder in by_name:
      yield from _by_name(by_name[folder], below[folder[:-1]])
    else:
      yield from matches


def _by_name(masks: list[_File], images: list[_File]) -> Iterator[_Found]:
  """Masks in one folder, each of the only image of its name."""
  by_path = {image.path: image for image in images}
  index = _Index(image._replace(key=((), image.key[1])) for image in images)
  for mask in masks:
    matches, ending = index.find(mask._replace(key=((), mask.key[1])))
    # Of several images of the name nobody knows which it is of.
    owners = [by_path[match.path] for match in matches]
    if len(owners) == 1:
      mask = mask._replace(key=(owners[0].key[0], mask.key[1]))
      yield _Found(mask, owners, ending)
    else:
      yield _Found(mask, [], '')


def _ends(file: _File, suffix: str) -> bool:
  """Whether a mask is of the kind that `config.data.mask_suffix` names."""
  wanted = names.fold(suffix)
  name = names.fold(file.path.rpartition('/')[2])
  return any(
    text.endswith(wanted)
    for text in (
      *(name, _kind(names.fold(names.stem(file.path)))),
      *map(names.fold, file.path.split('/')[:-1]),
    )
  )


def pair(paths: Sequence[str], suffix: str = '') -> Pairs:
  """Tells masks from images, and pairs them.

  Args:
    paths: of all image files of a source, with forward slashes.
    suffix: `config.data.mask_suffix`: how the masks to take end, their tree's
      name or their format; '' where there is one kind.

  Returns:
    The pairs.

  Raises:
    InputError: two files that differ by their suffix alone are masks of one
      image.
  """
  trees = mask_trees.find(paths, names.fold(suffix))
  outside = [path for path in paths if _is_below(path, trees.outside)]
  left = set(paths) - set(outside)
  several = _parents_of_several(trees)
  files = [_place(path, trees, several) for path in paths if path in left]
  beside = [file for file in files if not file.tree]
  matches = _beside(beside, suffix)
  is_mask = {mask.mask.path for mask in matches}
  images = [f for f in files if not f.tree and f.path not in is_mask]
  index = _Index(images)
  _check_pairs_of_formats(index)
  derived = _derived(index)
  if derived and not suffix:
    base, file, ending = derived[0]
    raise InputError(
      f'{len(derived)} files are named as another one and more, such as {base} '
      f'and {file}. If these are masks, give config.data.mask_suffix={ending}; '
      'if they are copies or drawings, remove them'
    )
  other_kinds = [file for _, file, _ in derived]
  left -= set(other_kinds)
  images = [image for image in images if image.path in left]
  index = _Index(images)
  matches += _in_trees([f for f in files if f.tree], images, index, trees)
  matched: dict[str, list[tuple[str, _File]]] = collections.defaultdict(list)
  unpaired = []
  for mask, owners, ending in matches:
    if suffix and not _ends(mask, suffix):
      other_kinds.append(mask.path)
      continue
    kind = f'{mask.tree}/{_kind(ending)}'.strip('/')
    for image in owners:
      matched[image.path].append((kind, mask))
    if not owners:
      unpaired.append(mask.path)
  unpaired += _take_strangers(matched, index)
  _check_twins(matched)
  folders = {image.path: image.folders for image in images}
  kinds = _tell_apart(
    [{names.fold(kind): kind for kind, _ in own} for own in matched.values()]
  )
  if kinds:
    return Pairs(
      folders, {}, (), tuple(other_kinds), tuple(sorted(kinds)), tuple(outside)
    )
  masks = {
    path: tuple(mask.path for _, mask in own) for path, own in matched.items()
  }
  if masks or unpaired:
    unpaired += [path for path in folders if path not in masks]
  return Pairs(
    folders, masks, tuple(unpaired), tuple(other_kinds), (), tuple(outside)
  )


def _take_strangers(
  matched: dict[str, list[tuple[str, _File]]], index: _Index
) -> list[str]:
  """Takes away masks of images that are not there, and gives their paths.

  Where a mask has the whole name of an image, another of its kind that only
  goes on as that name does is one more cell of it; but not where images of the
  folder are numbered so too. Nor is one of another name, unless each image has
  a folder of its own.
  """
  taken: dict[str, None] = {}
  is_alone = all(len(stems) == 1 for stems in index.stems.values())
  for folders, stems in index.stems.items():
    is_numbered = any(
      not _kind(ending) for stem in stems for _, ending in _cuts(stem, stems)
    )
    for stem, images in stems.items():
      for own in (matched.get(image.path, []) for image in images):
        whole = {kind for kind, mask in own if mask.key == (folders, stem)}
        for kind, mask in list(own):
          if kind not in whole or mask.key[0] != folders or mask.key[1] == stem:
            continue
          goes_on = next(_cuts(mask.key[1], (stem,)), None)
          if is_numbered if goes_on else not is_alone:
            own.remove((kind, mask))
            taken[mask.path] = None
  return list(taken)


def _is_below(path: str, folders: set[Folders]) -> bool:
  above = path.split('/')[:-1]
  return any(tuple(above[: i + 1]) in folders for i in range(len(above)))


def _suffix(path: str) -> str:
  return path.rpartition('.')[2]


def _check_pairs_of_formats(index: _Index) -> None:
  """Refuses folders in which most images are there in two formats."""
  for stems in index.stems.values():
    twice = [
      files
      for files in stems.values()
      # Not in folders of two spellings.
      if len(files) == len({_suffix(file.path) for file in files}) == 2
    ]
    if len(twice) > 2 and 2 * len(twice) >= len(stems):
      first, second = (file.path for file in twice[0])
      suffixes = [f'.{_suffix(path)}' for path in (first, second)]
      raise InputError(
        f'{len(twice)} files are there twice, as {first} and {second}. If one '
        f'is the mask, give config.data.mask_suffix={" or ".join(suffixes)}; '
        'if they are copies, remove one of each'
      )


def _derived(index: _Index) -> list[tuple[str, str, str]]:
  """The files that are named as another one of their folder and a word more.

  Args:
    index: of the images.

  Returns:
    The other file, the file, and the word with its sign, of each; of words that
    a third of all files or more end with.
  """
  by_ending: dict[str, list[tuple[str, str, str]]] = collections.defaultdict(
    list
  )
  for stems in index.stems.values():
    for stem, files in stems.items():
      for base, suffix in _cuts(stem, stems):
        ending = _kind(suffix)
        if sum(c.isalpha() for c in ending) > 2:
          entry = stems[base][0].path, files[0].path, ending
          by_ending[ending].append(entry)
          break
  number = sum(map(len, index.stems.values()))
  return [
    entry
    for entries in by_ending.values()
    if len(entries) > 2 and 3 * len(entries) >= number
    for entry in entries
  ]


def _tell_apart(kinds_of_images: Iterable[dict[str, str]]) -> set[str]:
  """What masks of one image differ by, if some images have several kinds."""
  kinds: dict[str, str] = {}
  for own in kinds_of_images:
    if len(own) > 1:
      kinds |= own
  endings = {kind.rpartition('/')[2] for kind in kinds.values()}
  return endings if len(endings) == len(kinds) else set(kinds.values())


def _check_twins(matched: dict[str, list[tuple[str, _File]]]) -> None:
  """Refuses masks of one image that differ by their suffix alone."""
  for image, matches in matched.items():
    first_by_place: dict[tuple[str, str], str] = {}
    for _, mask in matches:
      place = mask.path.rpartition('/')[0], mask.key[1]
      if place in first_by_place:
        first, second = first_by_place[place], mask.path
        suffixes = [f'.{p.rpartition(".")[2]}' for p in (first, second)]
        raise InputError(
          f'{image} has two masks, {first} and {second}: remove one of each, '
          f'or choose by config.data.mask_suffix='
          f'{" or ".join(suffixes)}'
        )
      first_by_place[place] = mask.path
