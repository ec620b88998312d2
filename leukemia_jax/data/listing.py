"""Where images come from: folders, zips, Kaggle; listed, never trusted.

Files are listed without reading them. Every path is checked before it
is opened: nothing outside the folder or archive that was named is ever read.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import stat
import struct
import zipfile
from collections.abc import Callable

from leukemia_jax import files as user_files
from leukemia_jax.data import names
from leukemia_jax.errors import InputError

KAGGLE_DATASET = 'mehradaria/leukemia'
# An entry of more bytes that is packed to less than one in so many is a trap:
# it would be held in memory before anybody looks at its pixels.
_LARGE, _MOST_PACKED = 2**28, 200
# No system takes names of more signs.
_LONGEST_NAME = 4096
_OTHER_ARCHIVES = ('.tar', '.tgz', '.gz', '.bz2', '.xz', '.7z', '.rar', '.zst')


@dataclasses.dataclass(frozen=True)
class File:
  """A file of a source, not yet read.

  Attributes:
    path: where it lies in the source, with forward slashes.
    stamp: changes when the content does (size, times and place on the disk, or
      size and CRC); begins with the size.
    read: returns the bytes.
  """

  path: str
  stamp: str
  read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of a folder or archive.

  Attributes:
    files: all files that are a user's.
    empty: folders that hold no file.
    of_system: what systems, network drives and notebooks left.
    warnings: what a user should look at.
  """

  files: tuple[File, ...]
  empty: tuple[str, ...]
  of_system: tuple[str, ...]
  warnings: tuple[str, ...] = ()


class _Lister:
  """Lists a folder, links only where they are allowed."""

  def __init__(self, root: pathlib.Path, follow_links: bool):
    self.files: list[File] = []
    self.of_system: list[str] = []
    self.empty: list[str] = []
    self._root = root
    self._inside = root.resolve()
    self._follow_links = follow_links
    self._leading_out: list[str] = []
    self._walk(root, '', frozenset({self._inside}))
    if self._leading_out:
      raise InputError(
        f'{root}: {len(self._leading_out)} files are links that lead out of '
        f'it, such as {self._leading_out[0]}; if you trust them give '
        'config.data.follow_links=True, else put the files themselves there '
        '(cp -rL copies them)'
      )

  def _walk(
    self, folder: pathlib.Path, prefix: str, above: frozenset[pathlib.Path]
  ) -> int:
    """Lists what lies below; returns the number of files."""
    with os.scandir(folder) as entries:
      ordered = sorted(entries, key=lambda entry: entry.name)
    count = 0
    for entry in ordered:
      name = f'{prefix}{entry.name}'
      if names.is_system(entry.name):
        self.of_system.append(name)
        if names.set_aside(name) and entry.is_dir(follow_symlinks=False):
          self.of_system += _below(entry.path, name)
        continue
      _check_name(self._root, name)
      path = pathlib.Path(entry.path)
      if entry.is_dir():
        real = above
        if entry.is_symlink():
          real = self._check_folder_link(path, above)
        count += self._walk(path, f'{name}/', real)
      else:
        self._add(entry, path, name)
        count += 1
    if not count:
      self.empty.append(prefix.rstrip('/'))
    return count

  def _check_folder_link(
    self, path: pathlib.Path, above: frozenset[pathlib.Path]
  ) -> frozenset[pathlib.Path]:
    if not self._follow_links:
      raise InputError(
        f'{path} is a link to a folder; put the folder itself there, or if you '
        'trust it give config.data.follow_links=True'
      )
    real = path.resolve()
    if real in above:
      raise InputError(
        f'{path} is a link to a folder that it lies in; remove it'
      )
    return above | {real}

  def _add(
    self, entry: os.DirEntry[str], path: pathlib.Path, name: str
  ) -> None:
    if not entry.is_file():
      raise InputError(f'{path} is no plain file, or leads nowhere; remove it')
    if (
      entry.is_symlink()
      and not self._follow_links
      and not path.resolve().is_relative_to(self._inside)
    ):
      self._leading_out.append(name)
    status = entry.stat()
    self.files.append(File(name, _stamp(status), path.read_bytes))


def _below(folder: str, name: str) -> list[str]:
  """The images in a folder of that name, however deep."""
  return [
    f'{name}{own.removeprefix(folder).replace(os.sep, "/")}/{file}'
    for own, _, files in os.walk(folder)
    for file in files
    if names.is_image(file)
  ]


def _warnings_of_set_aside(of_system: list[str]) -> list[str]:
  """Warns of images in folders that are taken for a system's by their name."""
  images = collections.Counter(
    names.set_aside(name) for name in of_system if names.is_image(name)
  )
  return [
    f'{count} images in {folder} are left out: by its name a system made this '
    'folder; if it is yours rename it'
    for folder, count in sorted(images.items())
    if folder
  ]


def _stamp(status: os.stat_result) -> str:
  """See `File`: copies and archives may keep a file's time, and its size."""
  times = status.st_mtime_ns, status.st_ctime_ns
  return ' '.join(map(str, (status.st_size, *times, status.st_ino)))


def _check_name(where: pathlib.Path, name: str) -> None:
  try:
    name.encode()
  except UnicodeEncodeError:
    raise InputError(
      f'{where}: the file name {name!r} is not UTF-8; rename it'
    ) from None
  if '\r' in name:
    raise InputError(
      f'{where}: the file name {name!r} would end a line of a table; rename it'
    )
  if len(name) > _LONGEST_NAME:
    raise InputError(
      f'{where}: the file name {name[:60]!r}... has {len(name)} signs; shorten '
      'it'
    )


def _check_unique(path: pathlib.Path, files: list[File]) -> None:
  number = collections.Counter(file.path for file in files)
  if twice := [name for name, count in number.items() if count > 1]:
    raise InputError(
      f'{path} holds {len(twice)} names twice, as {twice[0]}; pack it again'
    )


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
  with archive.open(info) as stream:
    # Never more than was declared, and so was counted, whatever is in there.
    data = stream.read(info.file_size)
    if stream.read(1):
      raise zipfile.BadZipFile('it holds more than it declares')
  return data


def _check_entry(path: pathlib.Path, info: zipfile.ZipInfo, name: str) -> None:
  """Refuses an entry that is unsafe, or can't be read."""
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
  if info.file_size > _LARGE and info.file_size > _MOST_PACKED * (
    info.compress_size
  ):
    raise InputError(
      f'{path}: entry {name!r} would unpack to {info.file_size} bytes from '
      f'{info.compress_size}, as no image does; unpack the archive yourself '
      'if you trust it'
    )


def _list_zip(path: pathlib.Path, max_bytes: int) -> Listing:
  try:
    archive = zipfile.ZipFile(path)
  except (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    ValueError,
    struct.error,
  ):
    if path.name.casefold().endswith(_OTHER_ARCHIVES):
      raise InputError(
        f'{path} is an archive that is not read: unpack it and give the '
        'folder, or pack it as .zip'
      ) from None
    raise InputError(
      f'{path} is not a zip archive, or is truncated; config.data.source takes '
      'a folder, a .zip, "synthetic" or "kaggle"'
    ) from None
  files: list[File] = []
  folders: list[str] = []
  of_system: list[str] = []
  doubtful = 0
  total = 0
  for info in archive.infolist():
    # The name as stored: zipfile cuts it at a null byte and turns
    # backslashes round on some systems.
    name, is_sure = _decoded_name(info)
    doubtful += not is_sure
    _check_entry(path, info, name)
    total += info.file_size
    if total > max_bytes:
      raise InputError(
        f'{path} would unpack to more than config.data.max_bytes={max_bytes}; '
        'raise the limit if you trust the archive'
      )
    if not name.strip('/'):
      continue
    if names.is_system(name.rstrip('/')):
      of_system.append(name)
      continue
    _check_name(path, name)
    if info.is_dir():
      folders.append(name.rstrip('/'))
      continue
    read = functools.partial(_read_entry, archive, info)
    files.append(File(name, f'{info.file_size} {info.CRC}', read))
  _check_unique(path, files)
  filled = {f.path[:i] for f in files for i in _slashes(f.path)}
  empty = sorted(set(folders) - filled)
  warnings = []
  if doubtful:
    warnings.append(
      f'{doubtful} names in the archive are not in UTF-8 and may be garbled; '
      'pack it again with names in UTF-8, or give the unpacked folder as '
      'config.data.source'
    )
  warnings += _warnings_of_set_aside(of_system)
  return Listing(tuple(files), tuple(empty), tuple(of_system), tuple(warnings))


def _decoded_name(info: zipfile.ZipInfo) -> tuple[str, bool]:
  """The name as stored, and whether it is surely spelt as it was meant.

  zipfile cuts it at a null byte and turns backslashes round on some systems,
  and takes names without the mark of UTF-8 for code page 437.
  """
  name, is_sure = info.orig_filename, True
  if not info.flag_bits & 0x800 and not name.isascii():
    try:
      name = name.encode('cp437').decode()
    except ValueError:
      is_sure = False
  # Some packers begin each name with ./
  return name.replace('\\', '/').removeprefix('./'), is_sure


def _slashes(path: str) -> list[int]:
  return [i for i, c in enumerate(path) if c == '/']


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
  path = user_files.expand(name)
  if not path.exists():
    raise InputError(
      f'config.data.source={name}: there is no such file or folder; it takes a '
      'folder, a .zip, "synthetic" or "kaggle"'
    )
  return path


def open_file(path: pathlib.Path) -> File:
  """A file that the user named, outside of any source."""
  return File(path.name, _stamp(path.stat()), path.read_bytes)


def find_files(pattern: str) -> list[pathlib.Path]:
  """The files that a path, or a pattern with `*` in its name, leads to."""
  path = user_files.expand(pattern)
  candidates = [path, *path.parent.glob(path.name)] if path.name else []
  return sorted({p.absolute() for p in candidates if p.is_file()})


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


def list_source(name: str, *, max_bytes: int, follow_links: bool) -> Listing:
  """Lists a folder, a zip or the Kaggle data set.

  Args:
    name: a path, or 'kaggle' (needs the extra of that name, and an account's
      token; see kagglehub).
    max_bytes: limit on what a zip may unpack to.
    follow_links: whether links that lead out of the folder are read.

  Returns:
    The files, nothing of them read yet.

  Raises:
    InputError: the path is missing, is no folder or zip, is unsafe, or a folder
      can't be read.
  """
  path = locate(name) or _fetch_kaggle()
  try:
    if not path.is_dir():
      return _list_zip(path, max_bytes)
    lister = _Lister(path, follow_links)
  except PermissionError as error:
    raise InputError(
      f'config.data.source={name}: no permission to read {error.filename}; '
      'permit it, or move it elsewhere'
    ) from None
  return Listing(
    tuple(lister.files),
    tuple(lister.empty),
    tuple(lister.of_system),
    tuple(_warnings_of_set_aside(lister.of_system)),
  )
