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

from leukemia_jax.data import names
from leukemia_jax.errors import InputError

Folders = tuple[str, ...]
_SEPARATOR = re.compile(r'[ _.\-(\[]')
# Classes of cells, too: band and segmented neutrophils.
_CELL_WORDS = frozenset({'seg', 'segs', 'segmented'})
_SURE_WORDS = frozenset({'mask', 'masks', 'gt', 'groundtruth'})
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


def _fold(folders: Iterable[str]) -> Folders:
  return tuple(map(names.fold, folders))


def _is_mask_name(name: str) -> bool:
  words = names.words(name)
  return bool(names.MASK_WORDS & set(words)) or 'ground truth' in ' '.join(
    words
  )


def _rest(name: str) -> tuple[str, ...]:
  """A folder's words besides those that say images or masks."""
  said = names.IMAGE_WORDS | names.MASK_WORDS | {'ground', 'truth'}
  return tuple(word for word in names.words(name) if word not in said)


class _Trees(NamedTuple):
  """Folders that say what lies in them.

  Attributes:
    images: of images.
    masks: of masks.
    outside: beside a tree of images and one of masks, and neither.
  """

  images: set[Folders]
  masks: set[Folders]
  outside: set[Folders]


def _trees(paths: Sequence[str], suffix: str) -> _Trees:
  """Finds the trees of images and of masks."""
  children: dict[Folders, dict[str, list[str]]] = {}
  loose: dict[Folders, list[str]] = {}
  for path in paths:
    *folders, _ = path.split('/')
    loose.setdefault(tuple(folders), []).append(path)
    for i, name in enumerate(folders):
      below = children.setdefault(tuple(folders[:i]), {})
      below.setdefault(name, []).append(path)
  trees = _Trees(set(), set(), set())
  for parent, below in children.items():
    wanted = {n for n in below if suffix and names.fold(n).endswith(suffix)}
    candidates = [n for n in below if _is_mask_name(n) or n in wanted]
    others = [name for name in below if name not in candidates]
    named_so = [n for n in others if _is_image_name(n)]
    for name in candidates:
      partners = _partners(parent, below, name, others)
      if partners:
        trees.masks.add((*parent, name))
        trees.images.update((*parent, partner) for partner in partners)
      elif _repeats(parent, below, name, loose.get(parent, [])):
        trees.masks.add((*parent, name))
    if any((*parent, n) in trees.images for n in named_so):
      trees.outside.update(
        (*parent, n)
        for n in others
        if (*parent, n) not in trees.images and not names.part(n)
      )
    elif not candidates:
      _check_copies(below, named_so, others)
  return trees


def _is_image_name(name: str) -> bool:
  """Whether a folder is called images, and nothing else."""
  return (
    bool(names.words(name)) and not _rest(name) and not (_is_mask_name(name))
  )


def _check_copies(
  below: dict[str, list[str]], named_so: list[str], others: list[str]
) -> None:
  """Refuses images/ and another folder with the same names of files."""
  if len(named_so) != 1 or len(others) != 2:
    return
  stems = [
    {names.fold(names.stem(path)) for path in below[name]} for name in others
  ]
  if len(stems[0]) > 2 and stems[0] == stems[1]:
    other = next(name for name in others if name not in named_so)
    raise InputError(
      f'the folders {named_so[0]} and {other} hold files of the same names, '
      'and can be read in two ways: as images and their masks, with '
      f'config.data.mask_suffix={other}, or as two classes, after '
      f'{named_so[0]} gets the name of its class'
    )


def _partners(
  parent: Folders, below: dict[str, list[str]], name: str, others: list[str]
) -> list[str]:
  """The trees of images that a tree of masks belongs to."""
  partners = [
    sibling
    for sibling in others
    if _rest(sibling) == _rest(name)
    and (_rest(sibling) or _is_image_name(sibling))
  ]
  if partners or _CELL_WORDS & set(names.words(name)):
    return partners
  depth = len(parent) + 1
  # Else the only folder beside it, or the only one that is called images.
  called = [n for n in others if names.IMAGE_WORDS & set(names.words(n))]
  for choice in (others, called):
    if len(choice) == 1 and (
      _match(below[name], below[choice[0]], (depth, depth))
      or (_is_sure(name) and choice is called)
    ):
      return choice
  return []


def _is_sure(name: str) -> bool:
  """Whether a folder can't be but of masks."""
  words = names.words(name)
  return bool(_SURE_WORDS & set(words)) or 'ground truth' in ' '.join(words)


def _keys(paths: Iterable[str], depth: int) -> set[str]:
  """Paths below a depth of folders, without suffixes of masks and files."""
  keys = set()
  for path in paths:
    *folders, name = path.split('/')[depth:]
    words = names.words(names.stem(name))
    said = names.IMAGE_WORDS | names.MASK_WORDS
    rest = ' '.join(word for word in words if word not in said)
    keys.add('/'.join((*_fold(folders), rest)))
  return keys


def _match(
  masks: list[str], images: list[str], depths: tuple[int, int]
) -> bool:
  """Whether half of the masks have images of their names."""
  wanted = _keys(masks, depths[0])
  return 2 * len(wanted & _keys(images, depths[1])) >= len(wanted)


def _repeats(
  parent: Folders, below: dict[str, list[str]], name: str, loose: list[str]
) -> bool:
  """Whether a tree of masks repeats what lies beside it."""
  if _CELL_WORDS & set(names.words(name)):
    return False
  beside = loose + [
    p for sibling in below if sibling != name for p in below[sibling]
  ]
  depth = len(parent)
  return bool(beside) and _match(below[name], beside, (depth + 1, depth))


def _place(path: str, trees: _Trees) -> _File:
  images, masks = trees.images, trees.masks
  *folders, _ = path.split('/')
  display: list[str] = []
  compared: list[str] = []
  tree = ''
  for i, name in enumerate(folders):
    prefix, key = tuple(folders[: i + 1]), names.fold(name)
    if prefix in masks or prefix in images:
      tree = tree or (name if prefix in masks else '')
      key = ' '.join(_rest(name))
      if names.IMAGE_WORDS & set(names.words(name)) or prefix in masks:
        name = key
    # Archives that unpack into a folder of their own name nest it.
    if key and key not in compared[-1:]:
      display.append(names.normalise(name))
      compared.append(key)
  stem = names.fold(names.stem(path))
  return _File(path, tuple(display), (tuple(compared), stem), tree)


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
      self.by_rest.setdefault((folders, _rest(stem)), []).append(image)

  def find(self, mask: _File) -> tuple[list[_File], str]:
    """The images of a mask in a tree, and its suffix."""
    folders, stem = mask.key
    stems = self.stems.get(folders, {})
    if stem in stems:
      return stems[stem], ''
    for base, ending in _cuts(stem, stems):
      return stems[base], ending
    same = self.by_rest.get((folders, _rest(stem)), [])
    if len(same) == 1 and _rest(stem):
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
    if not is_chosen and not _is_mask_name(stem):
      continue
    stems = index.stems[folders]
    cuts = [
      (base, ending)
      for base, ending in _cuts(stem, stems)
      if is_chosen or _is_mask_name(ending)
    ]
    same = index.by_rest[folders, _rest(stem)]
    partners = [f for f in same if not _is_mask_name(f.key[1])]
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
  trees = _trees(paths, names.fold(suffix))
  outside = [path for path in paths if _is_below(path, trees.outside)]
  left = set(paths) - set(outside)
  files = [_place(path, trees) for path in paths if path in left]
  beside = [file for file in files if not file.tree]
  matches = _beside(beside, suffix)
  is_mask = {mask.mask.path for mask in matches}
  images = [f for f in files if not f.tree and f.path not in is_mask]
  index = _Index(images)
  _check_pairs_of_formats(index)
  matches += [_Found(f, *index.find(f)) for f in files if f.tree]
  matched: dict[str, list[tuple[str, _File]]] = collections.defaultdict(list)
  unpaired, other_kinds = [], []
  for mask, owners, ending in matches:
    if suffix and not _ends(mask, suffix):
      other_kinds.append(mask.path)
      continue
    kind = f'{mask.tree}/{_kind(ending)}'.strip('/')
    for image in owners:
      matched[image.path].append((kind, mask))
    if not owners:
      unpaired.append(mask.path)
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


def _is_below(path: str, folders: set[Folders]) -> bool:
  above = path.split('/')[:-1]
  return any(tuple(above[: i + 1]) in folders for i in range(len(above)))


def _check_pairs_of_formats(index: _Index) -> None:
  """Refuses folders in which most images are there in two formats."""
  for stems in index.stems.values():
    twice = [files for files in stems.values() if len(files) == 2]
    if len(twice) > 2 and 2 * len(twice) >= len(stems):
      first, second = (file.path for file in twice[0])
      suffixes = [f'.{path.rpartition(".")[2]}' for path in (first, second)]
      raise InputError(
        f'{len(twice)} files are there twice, as {first} and {second}. If one '
        f'is the mask, give config.data.mask_suffix={" or ".join(suffixes)}; '
        'if they are copies, remove one of each'
      )


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
