"""An image set as it was read: its images with class, patient, part, masks."""

import collections
import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from leukemia_jax import files as user_files
from leukemia_jax.data import (
  layouts,
  levels,
  listing,
  mask_pairs,
  names,
  tables,
)
from leukemia_jax.data.layouts import Entry, Reading
from leukemia_jax.data.listing import File
from leukemia_jax.data.tables import Joined
from leukemia_jax.errors import InputError

# The one class of a set without classes.
UNLABELLED = 'unlabelled'
_MAX_TABLE_BYTES = 2**27
_WORKBOOKS, _MOST_WORKBOOKS = ('.xlsx', '.xls', '.ods'), 3


class Options(NamedTuple):
  """How a source is read; see `config.data`.

  Attributes:
    layout: what folders and names mean.
    table: a table's path, which may hold `*`; 'auto' to take one of the source
      where folders name no class, '' for none.
    columns: texts such as 'path=ID': which column of a table is what.
    max_bytes: limit on what a zip may unpack to.
    follow_links: whether links that lead out of the folder are read.
  """

  layout: layouts.Options
  table: str
  columns: tuple[str, ...]
  max_bytes: int
  follow_links: bool


@dataclasses.dataclass(frozen=True)
class Item:
  """One image of a source; the fields are those of `layouts.Entry`."""

  image: File
  label: int
  patient: str = ''
  part: str = ''
  masks: tuple[File, ...] = ()


@dataclasses.dataclass(frozen=True)
class Notes:
  """What a source was read as, besides its images.

  Attributes:
    how: see `layouts.Reading`.
    left_out: paths by the reason why they are not used.
    unpaired: images without a mask and masks without an image, if there are
      masks.
    mask_kinds: masks to choose from; then none is read.
    annotations: what other annotations lie there, in words, or ''.
    warnings: what a user should look at.
  """

  how: dict[str, str] = dataclasses.field(default_factory=dict)
  left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  unpaired: list[str] = dataclasses.field(default_factory=list)
  mask_kinds: list[str] = dataclasses.field(default_factory=list)
  annotations: str = ''
  warnings: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Source:
  """What a folder or archive holds.

  Attributes:
    class_names: sorted; `UNLABELLED` alone where there are none.
    items: all images, in natural order of class and path.
    notes: how it was read.
  """

  class_names: tuple[str, ...]
  items: tuple[Item, ...]
  notes: Notes

  def key(self) -> str:
    """A hash that changes when any file does, made without reading them."""
    digest = hashlib.sha256(repr((self.class_names, self.notes)).encode())
    for item in self.items:
      stamps = [(file.path, file.stamp) for file in (item.image, *item.masks)]
      own = (item.label, item.patient, item.part, stamps)
      digest.update(repr(own).encode())
    return digest.hexdigest()


def open_source(name: str, options: Options) -> Source:
  """Lists a source and reads what its folders, names and tables mean.

  Args:
    name: a path, or 'kaggle'; see `listing.list_source`.
    options: how.

  Returns:
    The source; of its images nothing is read yet.

  Raises:
    InputError: it can't be listed, holds no image, or can be read in two ways.
  """
  listed = listing.list_source(
    name, max_bytes=options.max_bytes, follow_links=options.follow_links
  )
  try:
    return _read(name, listed, options)
  except InputError as error:
    text = str(error)
    if not text.startswith((name, 'config.')):
      text = f'{name}: {text}'
    raise InputError(text) from None


def _read(name: str, listed: listing.Listing, options: Options) -> Source:
  """`open_source` after listing."""
  files = {file.path: file for file in listed.files}
  images: list[str] = []
  others: list[str] = []
  for path in files:
    is_image = names.is_image(path) or names.foreign_format(path)
    (images if is_image else others).append(path)
  if not images:
    raise InputError(_no_images(others))
  reading, joined = _with_tables(name, files, images, others, options)
  _check_empty(listed.empty, reading)
  _check_names(reading.class_names)
  class_names = reading.class_names or (UNLABELLED,)
  used_tables = joined.paths if joined else ()
  left_out = {
    **{key: list(paths) for key, paths in reading.left_out.items()},
    'no image': [path for path in others if path not in used_tables],
    "a system's": list(listed.of_system),
  }
  notes = Notes(
    how=reading.how,
    left_out={key: sorted(paths) for key, paths in left_out.items() if paths},
    unpaired=list(reading.unpaired),
    mask_kinds=list(reading.mask_kinds),
    annotations=_annotations(files, others),
    warnings=[
      *listed.warnings,
      *reading.warnings,
      *_table_warnings(joined, reading.entries, others),
    ],
  )
  items = tuple(
    Item(
      files[entry.path],
      class_names.index(entry.label or UNLABELLED),
      entry.patient,
      entry.part,
      tuple(files[path] for path in entry.masks),
    )
    for entry in reading.entries
  )
  return Source(class_names, items, notes)


def _with_tables(
  name: str,
  files: dict[str, File],
  images: list[str],
  others: list[str],
  options: Options,
) -> tuple[Reading, Joined | None]:
  """The reading, and what tables say."""
  if options.table not in ('', 'auto'):
    contents = _find_tables(name, files, options.table)
    named = _without_masks(images, options)
    joined = tables.join(contents, named, options.columns)
    _check_labels(images, joined, options)
    return layouts.read(images, options.layout, joined), joined
  candidates = [p for p in others if p.casefold().endswith(tables.SUFFIXES)]
  if not options.table or not candidates:
    return layouts.read(images, options.layout), None
  named = _without_masks(images, options)
  contents, unread = {}, []
  for path in candidates:
    # What nobody asked for may be anything.
    try:
      contents[path] = _read_table(files[path])
    except InputError as error:
      unread.append(f'{error}; left out')
  columns = tables.columns_of(contents, named, options.columns)
  labels = {p: data for p, data in contents.items() if 'label' in columns[p]}
  has_classes = bool(_by_folders(images, options).how['classes'])
  if labels and not has_classes:
    joined = tables.join(labels, named, options.columns)
    return layouts.read(images, options.layout, joined).warned(unread), joined
  key = 'patient' if has_classes else 'label'
  reading = _with_hint(layouts.read(images, options.layout), columns, key)
  return reading.warned(unread), None


def _check_labels(images: list[str], joined: Joined, options: Options) -> None:
  """Refuses a table whose classes may be none, and are not the folders'."""
  is_chosen = any(text.startswith('label=') for text in options.columns)
  column = joined.columns.get('label', '')
  if is_chosen or options.layout.label or not tables.is_vague(column):
    return
  try:
    reading = _by_folders(images, options)
  except InputError:
    return  # the table says what folders don't
  if len(reading.class_names) < 2:
    return
  pairs = {
    (entry.label, names.fold(joined.by_path[entry.path].label))
    for entry in reading.entries
    if entry.label
    and entry.path in joined.by_path
    and joined.by_path[entry.path].label
  }
  if all(len(pairs) == len({pair[i] for pair in pairs}) for i in (0, 1)):
    return  # names of the same classes
  told = {row.label for row in joined.by_path.values()} - {''}
  by_folders = 'config.data.columns="(\'label=\',)"'
  if joined.columns.keys() <= {'path', 'label'}:
    by_folders = "config.data.table=''"
  raise InputError(
    'the classes can be read in two ways: from the folders, '
    f'{levels.listed(reading.class_names)}, by {by_folders}, or from column '
    f'{column!r} of the table, {levels.listed(told)}, by config.data.columns='
    f'"(\'label={column}\',)"'
  )


def _without_masks(images: list[str], options: Options) -> list[str]:
  """The images that a table may name."""
  pairs = mask_pairs.pair(images, options.layout.mask_suffix)
  return list(pairs.folders)


def _with_hint(
  reading: Reading, columns: dict[str, dict[str, str]], key: str
) -> Reading:
  """Warns of a table that is not used and could say more."""
  hints = []
  for path, own in columns.items():
    if key == 'patient' and 'patient' in own and not reading.how['patients']:
      hints.append(
        f'{path} names patients, which are not read: config.data.table={path} '
        'takes them'
      )
    if key == 'label' and own:
      hints.append(
        f'{path} names images, and no column of it is a class by its name: '
        f'config.data.table={path} config.data.columns="(\'label=COLUMN\',)" '
        'says which is'
      )
  return reading.warned(hints)


def _by_folders(images: list[str], options: Options) -> Reading:
  """How the classes of images are read without any table."""
  layout = options.layout._replace(patient='', label_names=())
  return layouts.read(images, layout)


def _read_table(file: File) -> bytes:
  if int(file.stamp.split()[0]) > _MAX_TABLE_BYTES:
    raise InputError(
      f'{file.path} is a table of over {_MAX_TABLE_BYTES >> 20} MiB, which '
      "config.data.table doesn't read"
    )
  try:
    return file.read()
  except Exception as error:
    # zipfile and zlib raise many kinds on a damaged entry; OSError otherwise.
    raise InputError(f'{file.path} cannot be read: {error!r}') from None


def _find_tables(
  name: str, files: dict[str, File], pattern: str
) -> dict[str, bytes]:
  """Tables by their path: in the source, else in the current folder."""
  inside = names.matching(pattern, files)
  if not inside and (root := listing.locate(name)) is not None:
    # A whole path, or one from the current folder, may lead into the source.
    base = user_files.expand(pattern).absolute()
    if base.is_relative_to(root.absolute()):
      relative = base.relative_to(root.absolute()).as_posix()
      inside = names.matching(relative, files)
  if inside:
    return {path: _read_table(files[path]) for path in sorted(inside)}
  outside = listing.find_files(pattern)
  if not outside:
    raise InputError(
      f'config.data.table={pattern}: there is no such file in {name}, nor from '
      'the current folder'
    )
  return {path.name: _read_table(listing.open_file(path)) for path in outside}


def _no_images(others: Sequence[str]) -> str:
  """The error for a source without images."""
  suffixes = collections.Counter(
    pathlib.PurePosixPath(path).suffix.lower() or 'no suffix' for path in others
  )
  listed = ', '.join(f'{n} of {s}' for s, n in suffixes.most_common(5))
  if '.zip' in suffixes:
    listed += ' (unpack these)'
  return (
    'there are no images'
    + (
      f', only files that are none by their suffix: {listed}' if listed else ''
    )
    + '. Expected are <Class>/<images>, Original/<Class>/ with '
    'Segmented/<Class>/ for masks, or images/ and masks/'
  )


def _check_empty(empty: Sequence[str], reading: Reading) -> None:
  """Refuses an empty folder beside class folders."""
  if reading.how['classes'] != 'folders':
    return
  beside = set()
  for entry in reading.entries:
    *folders, _ = entry.path.split('/')
    levels = [names.fold(name) for name in folders]
    if names.fold(entry.label) in levels:
      level = levels.index(names.fold(entry.label))
      beside.add('/'.join(folders[:level]))
  for folder in empty:
    if folder and folder.rpartition('/')[0] in beside:
      raise InputError(
        f'the class folder {folder!r} holds no image; fill or remove it'
      )


def _check_names(class_names: Sequence[str]) -> None:
  for name in class_names:
    if name != name.strip() or not name.isprintable():
      raise InputError(
        f'the class {name!r} has a name with blanks at an end or with control '
        'characters; rename it'
      )


def _table_warnings(
  joined: Joined | None, entries: Sequence[Entry], others: Sequence[str]
) -> list[str]:
  """Rows without a file, and files without a row; workbooks."""
  if joined is None:
    return [
      f'{path} is a workbook, which is not read: if it says what images are, '
      'save its sheet as CSV beside it, for config.data.table'
      for path in others
      if path.casefold().endswith(_WORKBOOKS)
    ][:_MOST_WORKBOOKS]
  warnings = []
  if joined.missing:
    warnings.append(
      f'{len(joined.missing)} rows of the table name no file: '
      f'{", ".join(joined.missing[:4])}; config.data.table or '
      'config.data.columns may be another'
    )
  bare = [entry.path for entry in entries if entry.path not in joined.by_path]
  if bare:
    warnings.append(
      f'{len(bare)} images have no row in the table: {", ".join(bare[:4])}; '
      'config.data.table may name several with *'
    )
  return warnings


def _annotations(files: dict[str, File], others: Sequence[str]) -> str:
  """Boxes or points that lie with the images, in words; '' without."""
  xml = [path for path in others if path.lower().endswith('.xml')]
  if xml:
    return f'{len(xml)} files of boxes (Pascal VOC, {xml[0]})'
  txt = [
    path
    for path in others
    if path.lower().endswith('.txt')
    and set(names.words(path.rpartition('/')[0])) & names.MASK_WORDS
  ]
  if txt:
    kind = 'boxes or points'
    with contextlib.suppress(InputError):
      text = _read_table(files[txt[0]]).decode(errors='replace')
      is_box = len(text.split('\n')[0].split()) == 5
      kind = 'boxes (YOLO)' if is_box else 'points'
    return f'{len(txt)} files of {kind} ({txt[0]})'
  if xyc := [path for path in others if path.lower().endswith('.xyc')]:
    return f'{len(xyc)} files of points ({xyc[0]})'
  marked = [p for p in others if p.lower().endswith(('.json', '.geojson'))]
  if marked:
    return f'{len(marked)} files of outlines or boxes (JSON, {marked[0]})'
  return ''
