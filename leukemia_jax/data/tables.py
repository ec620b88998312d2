"""Tables that name images: their class, patient and part.

A table may come from any program: its separator is found, its columns are
known by usual names, and its paths may be whole, relative or mere names.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from leukemia_jax.data import names
from leukemia_jax.errors import InputError

if TYPE_CHECKING:
  import pandas as pd

SUFFIXES = ('.csv', '.tsv', '.dat')
COLUMNS = ('path', 'label', 'patient', 'part')
# Usual names of the columns, without case and signs; the first found counts.
_USUAL = {
  'path': 'path newnames file filename filepath image imagename imagefile '
  'imagepath imageid images img imgname imgid id name'.split(),
  'label': 'label labels class classname classes celltype category diagnosis '
  'dx target type'.split(),
  'patient': 'patient patientid patients subject subjectid case caseid donor '
  'donorid individual uid pid'.split(),
  'part': 'part split fold subset partition set phase'.split(),
}
# Usual names of columns of classes that may say another thing, such as a stain.
_VAGUE = frozenset('type target category'.split())
# Words of a table's name that don't say which images it is about.
_PLAIN = frozenset(
  'label labels gt annotation annotations metadata meta data class classes '
  'table list ground truth csv images image'.split()
)
# Tables of what models say, or of what they should fill in.
_NO_TRUTH = frozenset('submission sample prediction predictions'.split())
# Lines above a heading in which Excel may be told the separator.
_PREAMBLE = 20
_BLANKS = r'\s+'
_EMPTY = ('', 'nan', 'na', 'n/a', 'none', 'null', '-', '?', 'unknown', 'n.a.')


@dataclasses.dataclass(frozen=True)
class Row:
  """What a table says of an image; '' where it says nothing."""

  label: str
  patient: str
  part: str


class Joined(NamedTuple):
  """Tables joined with images.

  Attributes:
    by_path: rows by the path of an image.
    columns: the tables' columns that were used, by what they are.
    missing: rows without a file.
    paths: of the tables.
  """

  by_path: dict[str, Row]
  columns: dict[str, str]
  missing: tuple[str, ...]
  paths: tuple[str, ...]


def _separator(lines: Sequence[str]) -> str:
  """What parts the columns: it cuts most lines into as many, two or more."""
  best, separator = (0.0, 0), _BLANKS
  for candidate in (',', ';', '\t'):
    widths = collections.Counter(
      len(row) for row in csv.reader(lines, delimiter=candidate)
    )
    width, count = widths.most_common(1)[0]
    if width > 1:
      best, separator = max(
        (best, separator), ((count / len(lines), width), candidate)
      )
  return separator


def _without_preamble(lines: list[str]) -> tuple[list[str], str]:
  """A table's lines, without what stands above it; and their separator."""
  body = [line for line in lines if not line.startswith('#')] or lines
  separator = ''
  for line in lines[:_PREAMBLE]:
    # As Excel is told it; it fills lines up.
    if said := re.fullmatch(r'"?sep=(.)"?[ ]*\1*', line):
      separator = said[1]
      body = [own for own in body if own != line] or body
  separator = separator or _separator(body[:1000])
  widths = collections.Counter(_width(own, separator) for own in body[:1000])
  usual = widths.most_common(1)[0][0]
  first = 0
  while first + 1 < len(lines) and (
    lines[first].startswith(('sep=', '"sep='))
    or (
      lines[first].startswith('#') and _width(lines[first], separator) != usual
    )
  ):
    first += 1
  return lines[first:], separator


def _width(line: str, separator: str) -> int:
  """Number of columns of a line."""
  if separator == _BLANKS:
    return len(line.split())
  return len(next(csv.reader([line], delimiter=separator), []))


def _parse(path: str, data: bytes) -> pd.DataFrame:
  """A table as texts; columns of one without a heading are named 1, 2, ..."""
  encoding = 'utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
  try:
    text = data.decode(encoding)
  except UnicodeDecodeError:
    text = data.decode('cp1252', errors='replace')
  lines = [line for line in text.splitlines() if line.strip()]
  if not lines or '\0' in text:
    raise InputError(
      f'{path} is no table of text: save it as CSV, with a heading'
    )
  # Only sets with a table need it.
  import pandas as pd

  try:
    lines, separator = _without_preamble(lines)
    # Signs in quotes may look like more columns.
    width = max(1 + line.count(separator) for line in lines)
    if separator == _BLANKS:
      width = max(_width(line, separator) for line in lines)
    table = pd.read_csv(
      io.StringIO('\n'.join(lines)),
      sep=separator,
      header=None,
      names=[str(i + 1) for i in range(width)],
      index_col=False,
      dtype=str,
      keep_default_na=False,
      skipinitialspace=True,
      engine='python',
    )
  except (ValueError, csv.Error) as error:
    raise InputError(f'{path} is no table: {error}') from None
  table = table.map(
    lambda cell: '' if pd.isna(cell) else names.normalise(str(cell)).strip()
  )
  return table.loc[:, (table != '').any()]


def _plain(name: str) -> str:
  return ''.join(c for c in names.fold(name) if c.isalnum())


def is_vague(column: str) -> bool:
  """Whether a column of classes may be of something else, by its name."""
  return _plain(column) in _VAGUE


class _Files:
  """The images of a source, as tables name them."""

  def __init__(self, paths: Iterable[str]):
    self._by_path: dict[str, list[str]] = collections.defaultdict(list)
    # By the last folders, from none on, and the name, whole or its stem.
    self._by_end: dict[str, list[str]] = collections.defaultdict(list)
    self._by_stem: dict[str, list[str]] = collections.defaultdict(list)
    for path in paths:
      self._by_path[names.fold(path)].append(path)
      for index, name in (
        (self._by_end, names.fold(path.rpartition('/')[2])),
        (self._by_stem, self._stem(path)),
      ):
        for end in self._ends(names.fold(path), name):
          index[end].append(path)

  @staticmethod
  def _stem(path: str) -> str:
    """A name without suffixes of images: one may be there twice."""
    name = names.fold(path.rpartition('/')[2])
    while names.is_image(name):
      name = name.rpartition('.')[0]
    return name

  @staticmethod
  def _ends(path: str, name: str) -> list[str]:
    """A name alone, with the folder above it, with two, and so on."""
    folders = path.split('/')[:-1]
    return ['/'.join((*folders[i:], name)) for i in range(len(folders), -1, -1)]

  def has_name(self, value: str) -> bool:
    """Whether a cell ends with the whole name of a file."""
    name = names.fold(value).replace('\\', '/').rpartition('/')[2]
    return name in self._by_end

  def find(self, value: str, scope: frozenset[str]) -> list[str]:
    """The paths that a cell may name; `scope` are words of their folders."""
    value = names.fold(value).replace('\\', '/').strip('/')
    # Before all others of its name are looked through.
    own = self._by_path.get(value, [])
    if own and scope <= set(names.words(own[0])):
      return own
    name, index = value.rpartition('/')[2], self._by_end
    if name not in index:
      name, index = self._stem(name), self._by_stem
    paths: list[str] = []
    # As much of the path as both sides have.
    for end in self._ends(value, name):
      if end not in index:
        break
      paths = index[end]
    if len(paths) < 2:
      return paths
    inside = [path for path in paths if scope <= set(names.words(path))]
    return inside or own or paths


def _chosen(columns: Sequence[str]) -> dict[str, str]:
  """The columns that the user named."""
  chosen = {}
  for text in columns:
    key, equals, column = text.partition('=')
    if not equals or key not in COLUMNS:
      raise InputError(
        f'config.data.columns: {text!r} must be one of '
        f'{", ".join(f"{c}=COLUMN" for c in COLUMNS)}'
      )
    chosen[key] = names.normalise(column)
  return chosen


class _Table(NamedTuple):
  """A table that was read: its rows by what their columns are."""

  path: str
  cells: pd.DataFrame
  columns: dict[str, str]


def _identify(
  path: str, table: pd.DataFrame, files: _Files, given_columns: Sequence[str]
) -> _Table | None:
  """Finds out what a table's columns are; None if it names no image."""
  first = list(table.iloc[0])
  has_heading = not any(files.find(cell, frozenset()) for cell in first if cell)
  if has_heading:
    table = table.iloc[1:].copy()
    # Of columns of one heading the first counts.
    table = table.set_axis(first, axis=1)
    table = table.loc[:, ~table.columns.duplicated()]
  columns = {}
  by_plain = {_plain(column): column for column in reversed(table.columns)}
  for key, usual in _USUAL.items():
    known = [by_plain[name] for name in usual if name in by_plain]
    if key == 'path':
      known = _naming(table, known, files)
    if known:
      columns[key] = known[0]
  if not has_heading and 'path' in columns:
    # As the LMU set's annotations: a path, then a label.
    after = list(table.columns).index(columns['path']) + 1
    if after < table.shape[1]:
      columns['label'] = table.columns[after]
  for key, column in _chosen(given_columns).items():
    if column == '':
      columns.pop(key, None)
      continue
    if column not in table.columns:
      raise InputError(
        f'config.data.columns: {path} has no column {column!r}; it has '
        f'{", ".join(map(repr, table.columns))}'
      )
    columns[key] = column
  if 'path' not in columns:
    return None
  for key in ('label', 'patient', 'part'):
    if columns.get(key) == columns['path']:
      del columns[key]
  return _Table(path, table, columns)


def _naming(table: pd.DataFrame, usual: list[str], files: _Files) -> list[str]:
  """The columns that name images, the best first.

  Whole file names count more than what may be a running number; of columns
  that have as many, those of usual names come first.
  """
  ranked = []
  for column in table.columns:
    cells = [cell for cell in set(table[column]) if cell]
    named = sum(bool(files.find(cell, frozenset())) for cell in cells)
    whole = sum(files.has_name(cell) for cell in cells)
    place = usual.index(column) if column in usual else len(usual)
    if named:
      ranked.append(((-whole, place, -named), column))
  return [column for _, column in sorted(ranked)]


def _scope(path: str) -> frozenset[str]:
  """The words of a table's folder and name that say which images it names."""
  return frozenset(names.words(path.rpartition('.')[0])) - _PLAIN


def _cells(table: _Table, key: str) -> Iterator[str]:
  if key not in table.columns:
    yield from [''] * len(table.cells)
    return
  # A class may be called none, or NA.
  empty = _EMPTY[:2] if key == 'label' else _EMPTY
  for cell in table.cells[table.columns[key]]:
    yield '' if cell.casefold() in empty else cell


def join(
  tables: dict[str, bytes],
  paths: Iterable[str],
  given_columns: Sequence[str],
) -> Joined:
  """Reads tables and finds the image of every row.

  Args:
    tables: contents by path.
    paths: of all images.
    given_columns: `config.data.columns`: texts such as 'path=ID'.

  Returns:
    What the tables say.

  Raises:
    InputError: a table can't be read or names no image, a row fits several
      images, or two rows of an image differ.
  """
  files = _Files(paths)
  by_path: dict[str, Row] = {}
  missing: list[str] = []
  columns: dict[str, str] = {}
  for path, data in tables.items():
    parsed = _parse(path, data)
    table = _identify(path, parsed, files, given_columns)
    if table is None:
      raise InputError(
        f'{path}: no column names images of the source. Its columns are '
        f'{", ".join(map(repr, parsed.iloc[0]))}; choose with '
        "config.data.columns=\"('path=COLUMN','label=COLUMN')\""
      )
    columns |= table.columns
    scope = _scope(path)
    cells = (_cells(table, key) for key in COLUMNS)
    for value, label, patient, part in zip(*cells, strict=True):
      matches = files.find(value, scope) if value else []
      if not matches:
        missing.append(value)
        continue
      if len(matches) > 1:
        raise InputError(
          f'{path}: {value!r} may be {matches[0]} or {matches[1]}; give their '
          'folders in the table'
        )
      row = Row(label, patient, part)
      before = by_path.setdefault(matches[0], row)
      if before != row:
        said = ' and '.join(
          ', '.join(f'{k} {v!r}' for k, v in vars(own).items() if v)
          or 'nothing'
          for own in (before, row)
        )
        raise InputError(
          f'{path}: two rows of {matches[0]} differ, {said}: correct one, or '
          "give config.data.table='' to do without it, or another table"
        )
  if columns.keys() <= {'path'}:
    raise InputError(
      f'{path} names images, but no column is a class, a patient or a part by '
      f'its name. Its columns are {", ".join(map(repr, parsed.iloc[0]))}; '
      'choose with config.data.columns="(\'patient=COLUMN\',)", or give '
      "config.data.table='' to do without it"
    )
  return Joined(by_path, columns, tuple(missing), tuple(tables))


def columns_of(
  tables: dict[str, bytes],
  paths: Iterable[str],
  given_columns: Sequence[str],
) -> dict[str, dict[str, str]]:
  """What the columns of files are that are tables and name images.

  Args:
    tables: contents by path.
    paths: of all images.
    given_columns: `config.data.columns`.

  Returns:
    By the file's path its columns by what they are; {} for no such table.
  """
  files = _Files(paths)
  columns: dict[str, dict[str, str]] = {}
  for path, data in tables.items():
    columns[path] = {}
    if set(names.words(names.stem(path))) & _NO_TRUTH:
      continue
    try:
      table = _identify(path, _parse(path, data), files, given_columns)
    except InputError:
      continue
    if table is not None:
      columns[path] = table.columns
  return columns
