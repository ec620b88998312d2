"""predictions.md and predictions.html: what was said of new images."""

import collections
import csv
import io
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import PIL.Image

from leukemia_jax.reporting import pages

# Longer side of a picture on the sheet, px.
_THUMBNAIL = 144
_QUALITY = 80
Row = dict[str, str]


class Summary(NamedTuple):
  """What a command did.

  Attributes:
    source: name of the input.
    images: number of images that were read.
    unreadable: number of those that could not be.
    models: names of the runs.
    scale: factor on the size of images; see `config.predict`.
    false_alarms: likewise.
    coverage: likewise.
    sheet: number of images on the page, at most.
    ok: the flag of an image that nothing is said against.
  """

  source: str
  images: int
  unreadable: int
  models: Sequence[str]
  scale: float
  false_alarms: float
  coverage: float
  sheet: int
  ok: str


class Tables(NamedTuple):
  """Files that a command wrote; None for what it did not.

  Attributes:
    classes: a line an image.
    counts: likewise.
    cells: a line a cell.
  """

  classes: pathlib.Path | None
  counts: pathlib.Path | None
  cells: pathlib.Path | None

  @property
  def by_image(self) -> list[pathlib.Path]:
    """Those that name the same images, line by line."""
    return [path for path in (self.classes, self.counts) if path]


def write(
  workdir: pathlib.Path,
  name: str,
  summary: Summary,
  tables: Tables,
  picture: Callable[[str], PIL.Image.Image] | None,
) -> pathlib.Path:
  """Writes the page of a prediction.

  Args:
    workdir: where it goes.
    name: of its files, without .md and .html.
    summary: what was done.
    tables: what was written.
    picture: maps an image's path to a picture of it; None if pages may not show
      images.

  Returns:
    The path of the Markdown.
  """
  classes, flags = _count(tables.classes)
  chosen = list(itertools.islice(_joined(tables), summary.sheet))
  chosen.sort(key=lambda row: row.get('flags', '') == summary.ok)
  drawn = {}
  if picture:
    for i, row in enumerate(chosen):
      row['picture'] = f'{name}-sheet/{i:03}.jpg'
      drawn[row['picture']] = _thumbnail(picture(row['path']))
  header, rows = _sheet(chosen)
  context = {
    'summary': summary,
    'classes': classes,
    'flags': flags,
    'tables': [path.name for path in tables.by_image],
    'header': header,
    'rows': rows,
    'listed': len(chosen),
    'cells': tables.cells and tables.cells.name,
  }
  return pages.write(workdir, 'predictions.md', context, drawn, name=name)


def _read(path: pathlib.Path) -> Iterator[Row]:
  with path.open(encoding='utf-8', newline='') as stream:
    yield from csv.DictReader(stream)


def _count(
  path: pathlib.Path | None,
) -> tuple[dict[str, int], dict[str, int]]:
  """Images by predicted class, and by flag."""
  classes: collections.Counter[str] = collections.Counter()
  flags: collections.Counter[str] = collections.Counter()
  for row in _read(path) if path else ():
    classes[row['predicted_class']] += 1
    flags.update(row['flags'].split(';'))
  return dict(classes.most_common()), dict(flags.most_common())


def _joined(tables: Tables) -> Iterator[Row]:
  """What all tables say of each image: they name the same ones."""
  for lines in zip(*map(_read, tables.by_image), strict=True):
    row: Row = {}
    for line in lines:
      row |= line
    yield row


def _thumbnail(image: PIL.Image.Image) -> bytes:
  image = image.convert('RGB')
  image.thumbnail((_THUMBNAIL, _THUMBNAIL))
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=_QUALITY)
  return stream.getvalue()


def _sheet(chosen: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
  """The table of the chosen images."""
  if not chosen:
    return [], []
  columns: dict[str, Callable[[Row], str]] = {
    'image': lambda row: pages.literal(row['path'])
  }
  if 'picture' in chosen[0]:
    columns['picture'] = lambda row: (
      f'![{pages.literal(row["path"])}]({row["picture"]})'
    )
  if 'flags' in chosen[0]:
    columns |= {
      'flags': lambda row: row['flags'].replace(';', ', '),
      'predicted': lambda row: pages.literal(row['predicted_class']),
      'probability, %': lambda row: pages.percent(
        float(row[f'p_{row["predicted_class"]}'])
      ),
    }
  if 'cells' in chosen[0]:
    columns |= {
      'white cells': lambda row: row['cells'],
      'area, %': lambda row: pages.percent(float(row['cell_share'])),
      'median diameter, px': lambda row: pages.number(
        float(row['median_diameter']), 1
      ),
    }
  return list(columns), [
    [cell(row) for cell in columns.values()] for row in chosen
  ]
