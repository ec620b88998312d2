"""Pages from templates: Markdown, and the same as one HTML file."""

import base64
import io
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jinja2
import markdown_it
import PIL.Image

from leukemia_jax import files

NOT_A_DEVICE = (
  'Research software; not a medical device, and no basis for a diagnosis.'
)
_KINDS = {'svg': 'svg+xml', 'png': 'png', 'jpg': 'jpeg'}
# What stands between a page and its folded details.
_DETAILS = '<!-- details -->'
_SPECIAL = re.compile(r'([\\`*_\[\]<>|#&])')
_ESCAPED = re.compile(r'\\([\\`*_\[\]<>|#&])')
_CONTROL = re.compile(r'[\x00-\x1f\x7f]')


def number(value: float | None, digits: int = 4) -> str:
  """A number for a table; counts as they are, a dash where there is none."""
  if value is None or isinstance(value, int):
    return '-' if value is None else str(value)
  return f'{value:.{digits}f}'


def percent(share: float | None, digits: int = 1) -> str:
  """A share as a percentage, without its sign."""
  return '-' if share is None else f'{100 * share:.{digits}f}'


def duration(seconds: float | None) -> str:
  """Seconds in the unit that a person would choose."""
  if seconds is None:
    return '-'
  return f'{seconds / 60:.1f} min' if seconds >= 100 else f'{seconds:.1f} s'


def size(count: float) -> str:
  """Bytes in the unit that a person would choose."""
  for unit in ('B', 'kB', 'MB'):
    if count < 999.5:
      return f'{count:.3g} {unit}'
    count /= 1000
  return f'{count:.1f} GB'


def literal(text: object) -> str:
  """A text that Markdown shows as it is."""
  return _SPECIAL.sub(
    r'\\\1', _CONTROL.sub('\N{REPLACEMENT CHARACTER}', str(text))
  )


def short_hash(digest: str) -> str:
  """As much of a hash as tells two apart."""
  return digest[:12]


def table(
  header: list[str], rows: list[list[str]], bold: frozenset[int] = frozenset()
) -> str:
  """A Markdown table, some of its rows in bold."""
  lines = [header, ['---'] * len(header)]
  for i, row in enumerate(rows):
    lines.append([f'**{cell}**' for cell in row] if i in bold else row)
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('leukemia_jax.reporting'),
    # Markdown escapes by `literal`; what becomes HTML is escaped by itself.
    autoescape=jinja2.select_autoescape(['html']),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    'number': number,
    'percent': percent,
    'duration': duration,
    'size': size,
    'literal': literal,
    'short_hash': short_hash,
  }
  environment.globals |= {
    'table': table,
    'not_a_device': NOT_A_DEVICE,
    'details_marker': _DETAILS,
  }
  return environment


def render(template: str, context: dict[str, Any]) -> str:
  """A template filled in, without heaps of empty lines."""
  text = _environment().get_template(template).render(context)
  return re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def write(
  workdir: pathlib.Path,
  template: str,
  context: dict[str, Any],
  figures: dict[str, bytes],
  name: str = 'report',
) -> pathlib.Path:
  """Writes a page as Markdown with its figures, and as HTML, whole in itself.

  Args:
    workdir: where they go.
    template: name of a template; it begins with a heading, and what follows
      `details_marker` is folded.
    context: what it shows.
    figures: PNG and SVG files by name.
    name: of the page's files, without .md and .html.

  Returns:
    The path of the Markdown.
  """
  heading, _, rest = render(template, context).partition('\n')
  body, details = (part.strip() for part in rest.split(_DETAILS))
  title = _ESCAPED.sub(r'\1', heading.removeprefix('# '))
  for figure, image in figures.items():
    files.write(workdir / figure, image)
  path = workdir / f'{name}.md'
  fold = f'<details>\n<summary>Details</summary>\n\n{details}\n\n</details>'
  files.write(path, f'{heading}\n\n{body}\n\n{fold}\n')
  numbers = itertools.count(1)
  page = _environment().get_template('page.html')
  files.write(
    workdir / f'{name}.html',
    page.render(
      title=title,
      body=_to_html(body, figures, numbers),
      details=_to_html(details, figures, numbers),
    ),
  )
  return path


def _to_html(
  markdown: str, figures: dict[str, bytes], numbers: Iterator[int]
) -> str:
  """Markdown as HTML with its figures in it; HTML in it is shown as text.

  What may be wider than a phone scrolls in a box of its own, by keyboard too.
  """
  parser = markdown_it.MarkdownIt('commonmark', {'html': False}).enable('table')
  text = parser.render(markdown)

  def embed(match: re.Match[str]) -> str:
    if match[1] not in figures:
      return match[0]
    image = figures[match[1]]
    data = base64.b64encode(image).decode()
    width, height = _size_in_pixels(image)
    return (
      f'width="{width}" height="{height}" '
      f'src="data:image/{_KINDS[match[1].rpartition(".")[2]]};base64,{data}"'
    )

  text = re.sub('src="([^"]*)"', embed, text)
  text = text.replace('<th>', '<th scope="col">')
  text = text.replace('<pre>', '<pre tabindex="0">')
  text = re.sub(
    '<table>',
    lambda _: (
      '<div class="scroll" role="region" tabindex="0" '
      f'aria-label="Table {next(numbers)}">\n<table>'
    ),
    text,
  )
  return text.replace('</table>', '</table>\n</div>')


def _size_in_pixels(image: bytes) -> tuple[int, int]:
  """Width and height of a PNG, JPEG or SVG file, as a page lays it out."""
  if image.startswith((b'\x89PNG', b'\xff\xd8')):
    with PIL.Image.open(io.BytesIO(image)) as opened:
      return opened.size
  # Matplotlib writes points, 72 an inch; a page has 96 px an inch.
  edges = [
    re.search(rb'<svg[^>]*? %s="([\d.]+)pt"' % name, image)
    for name in (b'width', b'height')
  ]
  assert all(edges)
  width, height = (round(float(e[1]) * 96 / 72) for e in edges if e)
  return width, height
