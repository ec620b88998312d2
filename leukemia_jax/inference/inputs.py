"""Images to predict: a file, a folder or an archive, listed while it is read.

A folder is never listed as a whole: a million images need no more memory than
a hundred.
"""

import itertools
import os
import pathlib
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from leukemia_jax import files
from leukemia_jax.data import decode, listing, names
from leukemia_jax.errors import InputError


class Image(NamedTuple):
  """An image that may be read.

  Attributes:
    path: where it lies in the input, with forward slashes.
    read: returns the file's bytes. It raises `decode.BadImageError` for what
      is not opened, and what reading a file or an archive may raise.
  """

  path: str
  read: Callable[[], bytes]


class Options(NamedTuple):
  """What may be opened; see `config.data`.

  Attributes:
    max_bytes: limit on what a zip may unpack to, and on the size of a file.
    follow_links: whether links that lead out of a folder are read.
  """

  max_bytes: int
  follow_links: bool


def check(name: str) -> pathlib.Path:
  """The path of an input.

  Args:
    name: as the user gave it.

  Returns:
    The path.

  Raises:
    InputError: there is nothing.
  """
  path = files.expand(name)
  if not path.exists():
    raise InputError(
      f'--input={name}: there is no such file or folder; it takes an image, a '
      'folder of images or a .zip'
    )
  return path


def images(
  path: pathlib.Path, options: Options, shard: tuple[int, int] = (0, 1)
) -> Iterator[Image]:
  """Lists images in an order that depends on their names alone.

  Args:
    path: of an image, a folder or a .zip. In folders and archives files that
      are no images by their name are passed over.
    options: what may be opened.
    shard: (i, n): every n-th image from the i-th on.

  Returns:
    The images, none of them read.

  Raises:
    InputError: an archive is unsafe or can't be read.
  """
  index, count = shard
  return itertools.islice(_all_images(path, options), index, None, count)


def _all_images(path: pathlib.Path, options: Options) -> Iterator[Image]:
  if path.is_dir():
    root = path.resolve()
    yield from _in_folder(path, '', root, frozenset({root}), options)
  elif path.suffix.casefold() == '.zip':
    listed = listing.list_source(
      str(path), max_bytes=options.max_bytes, follow_links=False
    )
    for file in sorted(listed.files, key=lambda file: file.path):
      if _is_image(file.path):
        yield Image(file.path, file.read)
  else:
    yield Image(path.name, _reader(path, path.resolve(), options))


def _is_image(path: str) -> bool:
  return names.is_image(path) or bool(names.foreign_format(path))


def _in_folder(
  folder: pathlib.Path,
  prefix: str,
  root: pathlib.Path,
  above: frozenset[pathlib.Path],
  options: Options,
) -> Iterator[Image]:
  """The images below a folder, depth first, by name."""
  try:
    # Names alone: an entry takes ten times the memory.
    with os.scandir(folder) as entries:
      ordered = sorted(entry.name for entry in entries)
  except OSError as error:
    raise InputError(f'{folder} cannot be read: {error.strerror}') from None
  for name in ordered:
    path, own = folder / name, prefix + name
    if names.is_system(name):
      continue
    if path.is_dir():
      real = path.resolve()
      # A folder that a link leads to may hold this one.
      if not path.is_symlink() or (options.follow_links and real not in above):
        yield from _in_folder(path, f'{own}/', root, above | {real}, options)
    elif _is_image(name):
      readable = own.encode('utf-8', 'backslashreplace').decode()
      # It would end a line of a table.
      readable = readable.replace('\r', '\\r')
      yield Image(readable, _reader(path, root, options))


def _reader(
  path: pathlib.Path, root: pathlib.Path, options: Options
) -> Callable[[], bytes]:
  def read() -> bytes:
    try:
      status = path.stat()
    except FileNotFoundError:
      raise decode.BadImageError('a link that leads nowhere, or gone') from None
    if not stat.S_ISREG(status.st_mode):
      raise decode.BadImageError('no plain file')
    if path.is_symlink() and not options.follow_links:
      if not path.resolve().is_relative_to(root):
        raise decode.BadImageError(
          'a link that leads out of the folder: give '
          'config.data.follow_links=True if you trust it'
        )
    if status.st_size > options.max_bytes:
      raise decode.BadImageError(
        f'{status.st_size} bytes are over config.data.max_bytes='
        f'{options.max_bytes}'
      )
    return path.read_bytes()

  return read
