"""Keras' weight files, opened with care: what arrays they hold, by name.

Three formats are read: the legacy `.h5` of the published ImageNet weights,
`.weights.h5` and `.keras` of Keras 3. Keras itself is not needed; nothing is
unpickled or unpacked; links out of a file are not followed.
"""

import contextlib
import io
import pathlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np

from leukemia_jax.errors import InputError

_WEIGHTS_IN_ARCHIVE = 'model.weights.h5'
# Several times the largest model's weights and optimizer.
_MOST_BYTES = 4 * 2**30
# More groups and arrays, or groups in groups, than any Keras file has.
_MOST_NODES, _MOST_DEEP = 50_000, 12
# What an HDF5 attribute can hold; longer lists are cut into numbered ones.
_ATTRIBUTE_BYTES = 64_512


@contextlib.contextmanager
def damage_named(path: pathlib.Path) -> Iterator[None]:
  """Turns what libraries raise over a damaged file into one error.

  Damage shows as almost any exception, from where it happens to lie.
  """
  try:
    yield
  except InputError:
    raise
  except (BlockingIOError, PermissionError) as error:
    raise InputError(f'{path} cannot be opened: {error}') from error
  except (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
  ) as error:
    raise InputError(
      f'{path} is cut off or damaged ({type(error).__name__}: {error}): fetch '
      'or save it again'
    ) from error


@contextlib.contextmanager
def open_file(path: pathlib.Path) -> Iterator[h5py.File]:
  """The HDF5 file at a path, or in the archive there."""
  if not path.is_file():
    raise InputError(f'{path}: there is no such weights file')
  with damage_named(path):
    source: pathlib.Path | io.BytesIO = path
    # HDF5 first: its numbers may hold what looks like a zip's end.
    if h5py.is_hdf5(path):
      pass
    elif zipfile.is_zipfile(path):
      source = io.BytesIO(_read_archive(path))
    elif path.suffix == '.keras':
      raise InputError(f'{path} is cut off, or no .keras file: save it again')
    else:
      with path.open('rb') as stream:
        start = stream.read(16)
      raise InputError(
        f'{path} is no HDF5 file (it begins with {start!r}): give a .h5, '
        '.weights.h5 or .keras file of Keras'
      )
    file = h5py.File(source, 'r')
  with file:
    yield file


def _read_archive(path: pathlib.Path) -> bytes:
  """The weights in a .keras archive, read without unpacking it."""
  with zipfile.ZipFile(path) as archive:
    entries = archive.infolist()
    for entry in entries:
      name = entry.filename.replace('\\', '/')
      if name.startswith('/') or ':' in name or '..' in name.split('/'):
        raise InputError(
          f'{path} has the entry {entry.filename!r}, which points out of the '
          'archive: it is not from Keras and not to be trusted'
        )
    archived = [e for e in entries if e.filename == _WEIGHTS_IN_ARCHIVE]
    if len(archived) != 1:
      raise InputError(
        f'{path} must hold {_WEIGHTS_IN_ARCHIVE} once, not {len(archived)} '
        'times: it is no .keras file'
      )
    size = archived[0].file_size
    if archived[0].compress_type != zipfile.ZIP_STORED or size > _MOST_BYTES:
      raise InputError(
        f'{path} would unpack to {size:,} bytes: Keras does not compress '
        f'weights, and no model has over {_MOST_BYTES:,}, so it is not to be '
        'trusted'
      )
    with archive.open(archived[0]) as stream:
      return stream.read(size)


class Contents(NamedTuple):
  """What a file holds.

  Attributes:
    arrays: by path; those of an optimizer are left out.
    listed: of a legacy file its layers with weights, and their names, in order;
      of Keras 3's None.
  """

  arrays: dict[str, h5py.Dataset]
  listed: list[tuple[str, list[str]]] | None


def _walk(path: pathlib.Path, file: h5py.File) -> dict[str, Any]:
  """A file's own groups and arrays by path; links are not followed."""
  nodes: dict[str, Any] = {}
  waiting: list[tuple[str, h5py.Group]] = [('', file)]
  while waiting:
    prefix, group = waiting.pop()
    if len(nodes) + len(group) > _MOST_NODES or prefix.count('/') > _MOST_DEEP:
      raise InputError(
        f'{path} holds more, or deeper, than weights: it is not from Keras '
        'and not to be trusted'
      )
    for name in group:
      if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        continue
      node = group[name]
      nodes[prefix + name] = node
      if isinstance(node, h5py.Group):
        waiting.append((f'{prefix}{name}/', node))
  return nodes


def list_contents(path: pathlib.Path, file: h5py.File) -> Contents:
  """Lists a file, without reading an array."""
  nodes = _walk(path, file)
  arrays = {k: n for k, n in nodes.items() if isinstance(n, h5py.Dataset)}
  if 'layers' in nodes:
    return Contents(
      {k: n for k, n in arrays.items() if k.startswith('layers/')}, None
    )
  # A whole model's file holds an optimizer's state beside its weights.
  whole = isinstance(nodes.get('model_weights'), h5py.Group)
  root = 'model_weights/' if whole else ''
  listed = []
  names = _names(nodes['model_weights'] if whole else file, 'layer_names')
  if len(set(names)) != len(names):
    twice = Counter(names).most_common(1)[0][0]
    raise InputError(f'{path}: the layer {twice[:80]!r} is listed twice')
  for name in names:
    group = nodes.get(root + name)
    weights = _names(group, 'weight_names') if group is not None else []
    if weights:
      listed.append((root + name, [f'{root}{name}/{w}' for w in weights]))
  return Contents(
    {
      k: n
      for k, n in arrays.items()
      if k.startswith(root) and not k.startswith('optimizer_weights/')
    },
    listed,
  )


def _names(group: h5py.Group, key: str) -> list[str]:
  """A list of texts that Keras may have cut into numbered attributes."""
  if key in group.attrs:
    parts = [group.attrs[key]]
  else:
    parts = []
    while f'{key}{len(parts)}' in group.attrs:
      parts.append(group.attrs[f'{key}{len(parts)}'])
  return [
    text.decode() if isinstance(text, bytes) else str(text)
    for part in parts
    for text in np.ravel(part)
  ]


def put_names(group: h5py.Group, key: str, names: list[str]) -> None:
  """What `_names` reads."""
  data = np.array([name.encode() for name in names])
  parts = np.array_split(data, -(-data.nbytes // _ATTRIBUTE_BYTES))
  for i, part in enumerate(parts):
    group.attrs[key if len(parts) == 1 else f'{key}{i}'] = part


def count_classes(path: pathlib.Path, contents: Contents) -> int:
  """The number of classes of a file's top; 0 if it has none."""
  nested = [
    key
    for key in contents.arrays
    if key.startswith(('layers/functional', 'layers/sequential'))
  ]
  if nested:
    raise InputError(
      f'{path} holds a model inside another ({nested[0]}): save the inner one '
      'alone'
    )
  tops = [a.shape[1] for a in contents.arrays.values() if a.ndim == 2]
  if len(tops) > 1:
    raise InputError(
      f'{path} has a head of {len(tops)} dense layers, which is not that of '
      'Keras: save the backbone alone'
    )
  return tops[0] if tops else 0


def flaw(array: h5py.Dataset, shape: tuple[int, ...]) -> str:
  """Why an array can't be a weight of a shape; '' if it can."""
  if array.shape != shape or array.dtype.kind != 'f':
    return f'{array.dtype} {array.shape}, must be float {shape}'
  if array.is_virtual or array.external or array.chunks:
    return 'in pieces, compressed or elsewhere, which Keras never writes'
  if array.id.get_storage_size() != array.size * array.dtype.itemsize:
    return 'declared but not written'
  return ''
