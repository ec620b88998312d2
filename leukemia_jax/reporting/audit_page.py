"""audit.md and audit.html: what an audit says, to look at and to read."""

import pathlib
from collections.abc import Sequence

import matplotlib.axes
import matplotlib.figure
import matplotlib.patches
import numpy as np

from leukemia_jax.audit import properties, verdict
from leukemia_jax.audit.duplicates import KINDS, Duplicates
from leukemia_jax.audit.probes import DistancePoint, ProbeScore
from leukemia_jax.audit.properties import Property
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.reporting import figures, pages
from leukemia_jax.workdir.audited import Audit

# Titles of what the probes look at.
TITLES = {own.name: own.title for own in properties.OF_PIXELS} | {
  'file': 'file size, format and compression',
  'together': 'background, corners, sharpness and file',
}
_OF_PIXELS = {own.name: own for own in properties.OF_PIXELS}
# Centres and radii of the cells of a sketch, as shares of its side.
_CELLS = ((0.35, 0.4, 0.2), (0.72, 0.68, 0.15))
_SHOWN_PAIRS = 8
_LISTED_PAIRS = 20


def _sketch(axes: matplotlib.axes.Axes, own: Property | None) -> None:
  """A picture of an image with what a probe looks at in colour."""
  axes.set_xlim(0, 1)
  axes.set_ylim(1, 0)
  axes.set_aspect('equal')
  axes.set_axis_off()
  colour = 'C0'
  kind = own.looks_at if own else 'none'
  fill = colour if kind in ('image', 'background') else 'white'
  patches: list[matplotlib.patches.Patch] = [
    matplotlib.patches.Rectangle((0, 0), 1, 1, facecolor=fill, edgecolor='grey')
  ]
  inside = colour if kind in ('image', 'cells') else 'white'
  edge = colour if kind == 'edges' else 'grey'
  for x, y, radius in _CELLS if own else ():
    patches.append(
      matplotlib.patches.Circle(
        (x, y), radius, facecolor=inside, edgecolor=edge, linewidth=1.2
      )
    )
  if own and own.region:
    top, left, bottom, right = own.region
    patches.append(
      matplotlib.patches.Rectangle(
        (left, top), right - left, bottom - top, facecolor=colour
      )
    )
  for patch in patches:
    axes.add_patch(patch)
  if kind == 'grid':
    for at in (0.25, 0.5, 0.75):
      axes.axhline(at, color=colour, linewidth=0.8)
      axes.axvline(at, color=colour, linewidth=0.8)


def probe_figure(probes: dict[str, ProbeScore], chance: float) -> bytes:
  """What each property reaches, with its interval and where it looks.

  Args:
    probes: by name, the best first.
    chance: balanced accuracy without looking; gets a dotted line.

  Returns:
    An SVG file's bytes.
  """
  count = len(probes)
  figure = matplotlib.figure.Figure(figsize=(7.2, 0.42 * count + 0.8))
  axes = figure.add_axes((0.42, 0.12, 0.56, 0.86))
  for i, score in enumerate(probes.values()):
    if score.interval:
      axes.plot(score.interval, [i, i], color='C0', linewidth=2)
    axes.plot(score.balanced_accuracy, i, 'o', color='C0')
  axes.axvline(chance, color='grey', linestyle=':')
  axes.text(chance, -0.75, 'chance', color='grey', ha='center', fontsize=8)
  axes.set_xlim(0, 1)
  axes.set_ylim(count - 0.5, -0.5)
  axes.set_yticks(range(count), [TITLES[name] for name in probes])
  axes.tick_params(axis='y', pad=22, length=0)
  axes.set_xlabel('balanced accuracy, with 95 % interval over groups')
  axes.grid(alpha=0.3, axis='x')
  bottom, height = 0.12, 0.86
  for i, name in enumerate(probes):
    at = bottom + height * (1 - (i + 0.5) / count)
    side = 0.75 * height / count
    place = (0.385, at - side / 2, 0.03, side)
    _sketch(figure.add_axes(place), _OF_PIXELS.get(name))
  return figures.svg(figure)


def distance_figure(points: Sequence[DistancePoint], chance: float) -> bytes:
  """Accuracy of the colour probe by distance in file numbers.

  Args:
    points: two or more.
    chance: balanced accuracy without looking; gets a dotted line.

  Returns:
    An SVG file's bytes.
  """
  figure = matplotlib.figure.Figure(figsize=(5.6, 3.2), layout='constrained')
  axes = figure.subplots()
  places = range(len(points))
  values = [point.balanced_accuracy for point in points]
  known = [point.interval for point in points if point.interval]
  if len(known) == len(points):
    axes.fill_between(places, *np.array(known).T, alpha=0.2)
  axes.plot(places, values, marker='.')
  axes.axhline(chance, color='grey', linestyle=':', label='chance')
  axes.set_xticks(places, [str(point.gap) for point in points])
  axes.set_ylim(0, 1)
  axes.set_xlabel('files on each side that are not learnt from')
  axes.set_ylabel('balanced accuracy of colours')
  axes.grid(alpha=0.3)
  axes.legend()
  return figures.svg(figure)


def _classes(catalogue: Catalogue, *indices: int) -> str:
  """The classes of some images, each once."""
  names = [catalogue.class_names[catalogue.labels[i]] for i in indices]
  return ' / '.join(dict.fromkeys(names))


def _pair_sheet(
  pairs: Duplicates, catalogue: Catalogue, images: np.ndarray
) -> bytes | None:
  """Some pairs of each kind, side by side; None without pairs."""
  rows = []
  for kind, listed in pairs.by_kind.items():
    for first, second, similarity in listed[:_SHOWN_PAIRS]:
      classes = _classes(catalogue, first, second)
      label = f'{KINDS[kind]} {similarity:.2f}\n{classes}'
      rows.append((label, [images[first], images[second]]))
  if not rows:
    return None
  return figures.contact_sheet(rows, 'Images that show the same')


def _probe_rows(audit: Audit) -> list[list[str]]:
  return [
    [
      TITLES[name],
      f'{score.balanced_accuracy:.3f}',
      ' to '.join(f'{end:.3f}' for end in score.interval or ()) or '-',
      f'{score.p_value:.3f}',
      f'{score.forests} of {audit.folds}',
    ]
    for name, score in audit.probes.items()
  ]


def _pair_rows(pairs: Duplicates, catalogue: Catalogue) -> list[list[str]]:
  ids = catalogue.ids
  return [
    [
      KINDS[kind],
      f'{similarity:.2f}',
      *(pages.literal(ids[i]) for i in (first, second)),
      pages.literal(_classes(catalogue, first, second)),
    ]
    for kind, listed in pairs.by_kind.items()
    for first, second, similarity in listed[:_LISTED_PAIRS]
  ]


def write(
  workdir: pathlib.Path,
  audit: Audit,
  pairs: Duplicates,
  catalogue: Catalogue,
  images: np.ndarray | None,
) -> pathlib.Path:
  """Writes audit.md, audit.html and their figures.

  Args:
    workdir: where they go.
    audit: what they show.
    pairs: of the set.
    catalogue: of the set.
    images: of the set, uint8, shape (n, size, size, 3), if pages may show
      them; paths stand in any case.

  Returns:
    The path of audit.md.
  """
  drawn: dict[str, bytes] = {}
  if audit.probes and audit.chance:
    drawn['probes.svg'] = probe_figure(audit.probes, audit.chance)
  if len(audit.distances) > 1 and audit.chance:
    drawn['distances.svg'] = distance_figure(audit.distances, audit.chance)
  sheet = None
  if images is not None:
    sheet = _pair_sheet(pairs, catalogue, images)
  if sheet is not None:
    drawn['pairs.png'] = sheet
  counts = {kind: getattr(audit.duplicates, kind) for kind in KINDS}
  context = {
    'audit': audit,
    'level': verdict.LEVEL,
    'noted_shortcut': verdict.NOTED_SHORTCUT,
    'has_pairs_sheet': sheet is not None,
    'probe_header': [
      'what is looked at',
      'balanced accuracy',
      '95 % interval',
      'p, corrected',
      'random forest chosen',
    ],
    'probe_rows': _probe_rows(audit),
    'pair_counts': [
      [KINDS[kind], str(own.pairs), str(own.images)]
      for kind, own in counts.items()
    ],
    'pair_rows': _pair_rows(pairs, catalogue),
  }
  return pages.write(workdir, 'audit.md', context, drawn, name='audit')
