"""Where images come from: folders, zips, Kaggle; listed, never trusted.

A source lists its items without reading them. Every path is checked before it
is opened: nothing outside the folder or archive that was named is ever read.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import stat
import struct
import zipfile
from collections.abc import Callable

from leukemia_jax.errors import InputError

KAGGLE_DATASET = 'mehradaria/leukemia'
# Names of a tree of images and the tree of its masks, in lower case.
_PAIRS = (('original', 'segmented'), ('images', 'masks'))
# What tells an image beside the class folders from a note.
_SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


@dataclasses.dataclass(frozen=True)
class File:
  """A file of a source, not yet read.

  Attributes:
    path: where it lies in the source, with forward slashes.
    stamp: changes when the content does (size and time, or CRC).
    read: returns the bytes.
  """

  path: str
  stamp: str
  read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Item:
  """One image of a source with its label and, if there is one, its mask."""

  image: File
  label: int
  mask: File | None = None


@dataclasses.dataclass(frozen=True)
class Source:
  """What a folder or archive holds.

  Attributes:
    class_names: the class folders' names, sorted.
    items: all images, in natural order of class and path.
    unpaired: images without a mask, if there is a tree of masks, and masks
      without an image.
  """

  class_names: tuple[str, ...]
  items: tuple[Item, ...]
  unpaired: tuple[str, ...] = ()

  def key(self) -> str:
    """A hash that changes when any file does, made without reading them."""
    digest = hashlib.sha256(repr((self.class_names, self.unpaired)).encode())
    for item in self.items:
      for file in (item.image, item.mask):
        stamp = (file.path, file.stamp) if file else None
        digest.update(repr((item.label, stamp)).encode())
    return digest.hexdigest()


def natural_key(path: str) -> list[tuple[int, str]]:
  """Sorts 'a-2.jpg' before 'a-10.jpg'."""
  parts = re.split(r'(\d+)', path)
  return [(int(p), '') if p.isdecimal() else (-1, p) for p in parts]


def _is_junk(path: str) -> bool:
  parts = path.split('/')
  return (
    any(part.startswith('.') for part in parts)
    or '__MACOSX' in parts
    or parts[-1].lower() in ('thumbs.db', 'desktop.ini')
  )


def _folder_files(root: pathlib.Path) -> tuple[list[File], list[str]]:
  inside, files, folders = root.resolve(), [], []
  for path in root.rglob('*'):
    name = path.relative_to(root).as_posix()
    if _is_junk(name):
      continue
    _check_name(root, name)
    if path.is_dir():
      if path.is_symlink():
        raise InputError(
          f'{path} is a link to a folder; put the folder itself there'
        )
      folders.append(name)
      continue
    if not path.resolve().is_relative_to(inside):
      raise InputError(
        f'{path} is a link that leads out of {root}; put the file itself there'
      )
    if not path.is_file():
      raise InputError(f'{path} is no plain file, or leads nowhere; remove it')
    status = path.stat()
    stamp = f'{status.st_size} {status.st_mtime_ns}'
    files.append(File(name, stamp, path.read_bytes))
  return files, folders


def _check_name(where: pathlib.Path, name: str) -> None:
  try:
    name.encode()
  except UnicodeEncodeError:
    raise InputError(
      f'{where}: the file name {name!r} is not UTF-8; rename it'
    ) from None


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
  with archive.open(info) as stream:
    # Never more than was declared, and so was counted, whatever is in there.
    data = stream.read(info.file_size)
    if stream.read(1):
      raise zipfile.BadZipFile('it holds more than it declares')
  return data


def _zip_files(
  path: pathlib.Path, max_bytes: int
) -> tuple[list[File], list[str]]:
  try:
    archive = zipfile.ZipFile(path)
  except (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    ValueError,
    struct.error,
  ):
    raise InputError(
      f'{path} is not a zip archive, or is truncated; config.data.source takes '
      'a folder, a .zip, "synthetic" or "kaggle"'
    ) from None
  files: list[File] = []
  folders: list[str] = []
  total = 0
  for info in archive.infolist():
    # The name as stored: zipfile cuts it at a null byte and turns
    # backslashes round on some systems.
    name = info.orig_filename.replace('\\', '/')
    parts = name.split('/')
    if name.startswith('/') or '..' in parts or ':' in parts[0] or '\0' in name:
      raise InputError(
        f'{path}: entry {info.orig_filename!r} points outside the archive; '
        'refused'
      )
    if stat.S_ISLNK(info.external_attr >> 16):
      raise InputError(f'{path}: entry {name!r} is a link; refused')
    if info.flag_bits & 1:
      raise InputError(f'{path}: entry {name!r} is encrypted; unpack it first')
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise InputError(
        f'{path}: entry {name!r} is packed by an unusual method; pack the '
        'archive again with plain zip'
      )
    _check_name(path, name)
    total += info.file_size
    if total > max_bytes:
      raise InputError(
        f'{path} would unpack to more than config.data.max_bytes={max_bytes}; '
        'raise the limit if you trust the archive'
      )
    if _is_junk(name.rstrip('/')):
      continue
    if info.is_dir():
      folders.append(name.rstrip('/'))
      continue
    read = functools.partial(_read_entry, archive, info)
    files.append(File(name, f'{info.file_size} {info.CRC}', read))
  return files, folders


def _below(files: list[File], folder: str) -> list[File]:
  """The files under a folder, their paths kept whole."""
  return [f for f in files if f.path.startswith(folder)]


def _find_tree(files: list[File]) -> tuple[str, str | None]:
  """The prefix of the class folders and, if there is one, of the masks'."""
  prefix = ''
  while True:
    tops = {f.path[len(prefix) :].split('/')[0] for f in files}
    folders = {
      f.path[len(prefix) :].split('/')[0]
      for f in files
      if '/' in f.path[len(prefix) :]
    }
    named = {name.lower(): name for name in folders}
    for images, masks in _PAIRS:
      if images in named and masks in named:
        return f'{prefix}{named[images]}/', f'{prefix}{named[masks]}/'
    if _PAIRS[0][0] in named:
      return f'{prefix}{named[_PAIRS[0][0]]}/', None
    # A lone folder that holds only folders is a wrapping, not a class.
    if len(tops) != 1 or len(folders) != 1:
      return prefix, None
    inner = f'{prefix}{next(iter(folders))}/'
    if any('/' not in f.path[len(inner) :] for f in files):
      return prefix, None
    prefix = inner


def _without_suffix(path: str) -> str:
  folder, _, name = path.rpartition('/')
  return f'{folder}/{name.rpartition(".")[0] or name}'


def from_files(name: str, files: list[File], folders: list[str]) -> Source:
  """Finds classes, images and masks in a list of files.

  Args:
    name: what to call the source in errors.
    files: all files, from a folder or an archive.
    folders: paths of all folders, the empty ones included.

  Returns:
    The source.

  Raises:
    InputError: fewer than two class folders (with masks: none, and no images
      instead), an empty one, or images beside them.
  """
  root, mask_root = _find_tree(files)
  classes: dict[str, list[File]] = {}
  loose = []
  for file in _below(files, root):
    folder, slash, _ = file.path[len(root) :].partition('/')
    if slash:
      classes.setdefault(folder, []).append(file)
    elif file.path.lower().endswith(_SUFFIXES):
      loose.append(file.path)
  if classes and loose:
    raise InputError(
      f'{name}: {len(loose)} images lie beside the class folders, in none of '
      f'them: {", ".join(sorted(loose)[:5])}. Move or remove them'
    )
  if mask_root and not classes:
    # Pairs without classes, as drawn by hand: all of them are one.
    classes[root.rstrip('/').rpartition('/')[2]] = _below(files, root)
  if not all(classes.values()) or len(classes) < (1 if mask_root else 2):
    listed = f'only the folder {next(iter(classes))!r}' if classes else 'none'
    raise InputError(
      f'{name}: needs at least two class folders, found {listed}; expected '
      'Original/<Class>/<images> (with Segmented/<Class>/ for masks) or '
      '<Class>/<images>, or to segment images/ and masks/'
    )
  for folder in sorted(folders):
    inner = folder[len(root) :]
    if folder.startswith(root) and '/' not in inner and inner not in classes:
      raise InputError(
        f'{name}: the class folder {folder!r} holds no image; fill or remove it'
      )
  masks = {}
  if mask_root:
    for file in _below(files, mask_root):
      masks[_without_suffix(file.path[len(mask_root) :])] = file
  names = tuple(sorted(classes))
  for folder in names:
    if folder != folder.strip() or not folder.isprintable():
      raise InputError(
        f'{name}: the class folder {folder!r} has a name with blanks at an end '
        'or with control characters; rename it'
      )
  items, unpaired = [], []
  for label, folder in enumerate(names):
    for image in sorted(classes[folder], key=lambda f: natural_key(f.path)):
      mask = masks.pop(_without_suffix(image.path[len(root) :]), None)
      items.append(Item(image, label, mask))
      if mask_root and mask is None:
        unpaired.append(image.path)
  unpaired += sorted(mask.path for mask in masks.values())
  return Source(names, tuple(items), tuple(unpaired))


def locate(name: str) -> pathlib.Path | None:
  """The path of a source; nothing is read or fetched.

  Args:
    name: `config.data.source`.

  Returns:
    The path; None for 'synthetic' and 'kaggle'.

  Raises:
    InputError: there is nothing at the path.
  """
  if name in ('synthetic', 'kaggle'):
    return None
  path = pathlib.Path(os.path.expanduser(name))
  if not path.exists():
    raise InputError(
      f'config.data.source={name}: there is no such file or folder; it takes a '
      'folder, a .zip, "synthetic" or "kaggle"'
    )
  return path


def _fetch_kaggle() -> pathlib.Path:
  """Downloads the published set, unless it is there already."""
  try:
    import kagglehub
  except ImportError:
    raise InputError(
      "config.data.source=kaggle needs: pip install 'leukemia_jax[kaggle]'"
    ) from None
  try:
    return pathlib.Path(kagglehub.dataset_download(KAGGLE_DATASET))
  except Exception as error:
    raise InputError(
      f'Kaggle did not give {KAGGLE_DATASET}: {error}; download it by hand '
      'and give its path as config.data.source'
    ) from None


def open_source(name: str, *, max_bytes: int) -> Source:
  """Lists a folder, a zip or the Kaggle data set.

  Args:
    name: a path, or 'kaggle' (needs the extra of that name, and an account's
      token; see kagglehub).
    max_bytes: limit on what a zip may unpack to.

  Returns:
    The source, nothing of it read yet.

  Raises:
    InputError: the path is missing, is no folder or zip, is unsafe, or holds
      no class folders.
  """
  path = locate(name) or _fetch_kaggle()
  try:
    files, folders = (
      _folder_files(path) if path.is_dir() else _zip_files(path, max_bytes)
    )
  except PermissionError as error:
    raise InputError(
      f'config.data.source={name}: no permission to read {error.filename}'
    ) from None
  return from_files(name, files, folders)
