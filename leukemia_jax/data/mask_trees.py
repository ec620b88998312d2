"""Which folders are trees of masks, and of the images that these belong to."""

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from leukemia_jax.data import names
from leukemia_jax.errors import InputError

Folders = tuple[str, ...]
# Classes of cells, too: band and segmented neutrophils.
_CELL_WORDS = frozenset({'seg', 'segs', 'segmented'})
_SURE_WORDS = frozenset({'mask', 'masks', 'gt', 'groundtruth'})


class Trees(NamedTuple):
  """Folders that say what lies in them.

  Attributes:
    images: of images, each with what else its name says.
    masks: of masks, likewise: both sides of a pair say the same.
    outside: beside a tree of images and one of masks, and neither.
    flat: of masks, in one folder beside several of images, by their names.
    nested: that archives nest, which unpack into a folder of their own name.
  """

  images: dict[Folders, str]
  masks: dict[Folders, str]
  outside: set[Folders]
  flat: set[Folders]
  nested: set[Folders]


def find(paths: Sequence[str], suffix: str) -> Trees:
  """Finds the trees of images and of masks.

  Args:
    paths: of all image files.
    suffix: `config.data.mask_suffix` without case, or ''.

  Returns:
    The trees.

  Raises:
    InputError: a folder beside images/ is of masks or a class.
  """
  children: dict[Folders, dict[str, list[str]]] = {}
  loose: dict[Folders, list[str]] = {}
  for path in paths:
    *folders, _ = path.split('/')
    loose.setdefault(tuple(folders), []).append(path)
    for i, name in enumerate(folders):
      below = children.setdefault(tuple(folders[:i]), {})
      below.setdefault(name, []).append(path)
  trees = Trees({}, {}, set(), set(), _nested(children))
  for parent, below in children.items():
    wanted = {n for n in below if suffix and names.fold(n).endswith(suffix)}
    candidates = dict.fromkeys(
      n for n in below if names.is_mask(n) or n in wanted
    )
    others = [name for name in below if name not in candidates]
    named_so = [n for n in others if _is_image_name(n)]
    by_words = _by_words(others)
    only = _only_ones(below, others, len(parent) + 1) if candidates else []
    unpaired = []
    for name in candidates:
      said = ' '.join(names.rest(name))
      partners = by_words.get(names.rest(name), [])
      if not partners:
        said = ''
        partners = _matching(name, _keys(below[name], len(parent) + 1), only)
      if partners:
        trees.masks[*parent, name] = said
        trees.images.update({(*parent, p): said for p in partners})
      else:
        unpaired.append(name)
    for name in _repeating(parent, below, unpaired, loose.get(parent, [])):
      trees.masks[*parent, name] = ''
    for name in unpaired:
      place = (*parent, name)
      is_sure = _is_sure(name) or name in wanted
      if place not in trees.masks and is_sure and _is_flat(name, below, others):
        trees.masks[place] = ''
        trees.flat.add(place)
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
    bool(names.words(name))
    and not names.rest(name)
    and not (names.is_mask(name))
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
    sibling = next(name for name in others if name not in named_so)
    raise InputError(
      f'the folders {named_so[0]} and {sibling} hold files of the same names, '
      'and can be read in two ways: as images and their masks, with '
      f'config.data.mask_suffix={sibling}, or as two classes, after '
      f'{named_so[0]} gets the name of its class'
    )


def _by_words(others: list[str]) -> dict[tuple[str, ...], list[str]]:
  """Trees of images by what their names say; a tree of masks says the same."""
  trees: dict[tuple[str, ...], list[str]] = {}
  for name in others:
    if names.rest(name) or _is_image_name(name):
      trees.setdefault(names.rest(name), []).append(name)
  return trees


class _Only(NamedTuple):
  """A folder that is the only one, or the only one called images.

  Attributes:
    name: of the folder.
    keys: of what lies in it.
    named_so: whether its name says images.
  """

  name: str
  keys: set[str]
  named_so: bool


def _only_ones(
  below: dict[str, list[str]], others: list[str], depth: int
) -> list[_Only]:
  """What a tree of masks can belong to, whatever its own name."""
  by_name = [n for n in others if names.IMAGE_WORDS & set(names.words(n))]
  return [
    _Only(choice[0], _keys(below[choice[0]], depth), choice is by_name)
    for choice in (others, by_name)
    if len(choice) == 1
  ]


def _matching(name: str, keys: set[str], only: list[_Only]) -> list[str]:
  """The only folder beside a tree of masks, or the only one called images."""
  if _CELL_WORDS & set(names.words(name)):
    return []
  for choice in only:
    if 2 * len(keys & choice.keys) >= len(keys) or (
      _is_sure(name) and choice.named_so
    ):
      return [choice.name]
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
    keys.add('/'.join((*map(names.fold, folders), rest)))
  return keys


def _is_flat(name: str, below: dict[str, list[str]], others: list[str]) -> bool:
  """Whether a folder holds masks of images in several folders beside it."""
  if any(path.count('/') != below[name][0].count('/') for path in below[name]):
    return False
  stems = {
    key
    for folder in others
    for path in below[folder]
    for key in _keys([path], path.count('/'))
  }
  masks = _keys(below[name], below[name][0].count('/'))
  # A file a cell goes on after its image's name.
  known = [
    mask
    for mask in masks
    if any(
      ' '.join(mask.split()[:end]) in stems
      for end in range(1, 1 + len(mask.split()))
    )
  ]
  return len(others) > 1 and 2 * len(known) >= len(masks)


def _nested(children: dict[Folders, dict[str, list[str]]]) -> set[Folders]:
  """The folders that archives nest: alone in a parent of their name.

  Numbers may be classes of patients that are numbered too, 1/1 beside 2/0: they
  are nested where all folders beside them hold none, or one of their own name,
  or some hold one that is no number.
  """
  below = {
    place: {names.fold(name) for name in own} for place, own in children.items()
  }

  def are_numbers(level: Folders) -> bool:
    """Whether a level holds folders of several numbers."""
    inner = [
      (names.fold(name), below.get((*level, name), set()))
      for name in children[level]
    ]
    return any(own - {name} for name, own in inner) and all(
      name.isdecimal() for _, own in inner for name in own
    )

  of_numbers = {level: are_numbers(level) for level in children}
  return {
    (*place, *own)
    for place, own in children.items()
    if place
    and below[place] == {names.fold(place[-1])}
    and not (names.fold(place[-1]).isdecimal() and of_numbers[place[:-1]])
  }


def _repeating(
  parent: Folders,
  below: dict[str, list[str]],
  candidates: list[str],
  loose: list[str],
) -> Iterator[str]:
  """The trees of masks that repeat what lies beside them."""
  if not candidates:
    return
  depth = len(parent)
  own = {name: _keys(paths, depth) for name, paths in below.items()}
  times = collections.Counter(
    itertools.chain(_keys(loose, depth), *own.values())
  )
  for name in candidates:
    if _CELL_WORDS & set(names.words(name)):
      continue
    wanted = _keys(below[name], depth + 1)
    matched = sum(times[key] > (key in own[name]) for key in wanted)
    if (loose or len(below) > 1) and 2 * matched >= len(wanted):
      yield name
