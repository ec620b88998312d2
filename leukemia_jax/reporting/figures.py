"""Figures as PNG bytes: learning curves, confusion matrices, contact sheets."""

import io
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from leukemia_jax.reporting import lettering

# Scores that are not written as they are named.
_LABELS = {'dice': 'Dice'}


def _file(
  figure: matplotlib.figure.Figure,
  within: tuple[float, float, float, float] | None = None,
  **options: Any,
) -> bytes:
  """A figure's file; `within` is where its plots are packed tightly."""
  lettering.set_texts(figure)
  stream = io.BytesIO()
  with warnings.catch_warnings():
    # Letters without a font were said in one line.
    warnings.filterwarnings('ignore', r'Glyph .* missing from')
    if within:
      figure.tight_layout(rect=within)
    figure.savefig(stream, bbox_inches='tight', **options)
  return stream.getvalue()


def _png(
  figure: matplotlib.figure.Figure,
  within: tuple[float, float, float, float] | None = None,
) -> bytes:
  # Without the version in it the same figure is the same file.
  return _file(figure, within, format='png', dpi=110, metadata={'Software': ''})


def svg(figure: matplotlib.figure.Figure) -> bytes:
  """A figure as SVG; the same figure is the same file."""
  with matplotlib.rc_context({'svg.hashsalt': 'leukemia_jax'}):
    return _file(figure, format='svg', metadata={'Date': None})


def curves(history: Sequence[dict[str, Any]], best_epoch: int) -> bytes:
  """Loss and accuracy of training and validation by epoch, and Dice if there.

  Args:
    history: the lines of metrics.jsonl.
    best_epoch: from 1; gets a dotted line.

  Returns:
    A PNG file's bytes.
  """
  names = [
    name
    for name in ('loss', 'accuracy', 'dice')
    if f'validation_{name}' in history[0]
  ]
  figure = matplotlib.figure.Figure(
    figsize=(4.5 * len(names), 3.4), layout='constrained'
  )
  epochs = [line['epoch'] for line in history]
  for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
    for part, style in (('train', 'C0.-'), ('validation', 'C1.--')):
      if f'{part}_{name}' not in history[0]:
        continue
      values = [line[f'{part}_{name}'] for line in history]
      axes.plot(epochs, values, style, label=part)
    axes.axvline(best_epoch, color='grey', linestyle=':', label='best')
    axes.set_xlabel('epoch')
    axes.set_ylabel(_LABELS.get(name, name))
    # One epoch is one tick.
    whole = matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(whole)
    axes.grid(alpha=0.3)
    axes.legend()
  return _png(figure)


class Panel(NamedTuple):
  """One plot of `error_by_rate`.

  Attributes:
    title: what stands above it.
    series: by name, in the legend's order: learning rates, incorrect images in
      percent, their deviations, and the published ones (nan for none).
    baseline: incorrect images in percent; gets a dotted line.
  """

  title: str
  series: dict[str, np.ndarray]
  baseline: float


def error_by_rate(panels: Sequence[Panel]) -> bytes:
  """Incorrect images by learning rate: a plot a panel, a line a series.

  Args:
    panels: one or more; each series has shape (4, n). Published numbers, if
      there are any, are rings.

  Returns:
    A PNG file's bytes.
  """
  ticks = [0, 1, 2, 5, 10, 25, 75]
  columns = min(2, len(panels))
  rows = -(-len(panels) // columns)
  figure = matplotlib.figure.Figure(figsize=(5.4 * columns, 3.6 * rows))
  every = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
  for axes in every[len(panels) :]:
    axes.set_visible(False)
  for axes, panel in zip(every, panels, strict=False):
    for i, (name, (x, y, deviation, published)) in enumerate(
      panel.series.items()
    ):
      # Side by side, so that bars do not hide one another.
      x = x * 1.08 ** (i - (len(panel.series) - 1) / 2)
      colour = f'C{i}'
      axes.errorbar(
        x, y, deviation, color=colour, marker='.', capsize=2, label=name
      )
      axes.plot(
        x, published, color=colour, marker='o', fillstyle='none', linestyle=''
      )
    if any(np.isfinite(s[3]).any() for s in panel.series.values()):
      axes.plot([], [], 'o', color='grey', fillstyle='none', label='published')
    axes.axhline(
      panel.baseline, color='grey', linestyle=':', label='colour 3-NN'
    )
    axes.set_xscale('log')
    # Whole percents are far from those of a network that learnt nothing.
    axes.set_yscale('symlog', linthresh=1)
    axes.set_ylim(0, 100)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel('learning rate')
    axes.set_ylabel('incorrect test images, %')
    axes.set_title(panel.title, fontsize=10)
    axes.grid(alpha=0.3)
  every[0].legend(fontsize=8)
  return _png(figure, (0, 0, 1, 1))


def threshold_curve(
  thresholds: np.ndarray, scores: dict[str, np.ndarray], chosen: float
) -> bytes:
  """Precision, recall and Dice by threshold.

  Args:
    thresholds: shape (n,).
    scores: 'precision', 'recall' and 'dice', shape (n,) each.
    chosen: the threshold that is used; gets a dotted line.

  Returns:
    A PNG file's bytes.
  """
  figure = matplotlib.figure.Figure(figsize=(4.8, 3.4))
  axes = figure.subplots()
  for name in ('precision', 'recall', 'dice'):
    label = _LABELS.get(name, name)
    axes.plot(thresholds, scores[name], marker='.', label=label)
  axes.axvline(chosen, color='grey', linestyle=':', label='chosen')
  axes.set_xlabel('threshold')
  axes.set_ylabel('score on validation')
  axes.grid(alpha=0.3)
  axes.legend()
  return _png(figure)


def error_overlay(
  image: np.ndarray, truth: np.ndarray, predicted: np.ndarray
) -> np.ndarray:
  """An image with its incorrect pixels coloured.

  Args:
    image: uint8, shape (height, width, 3).
    truth: bool, shape (height, width).
    predicted: bool, of the same shape.

  Returns:
    uint8 image: pale, red for false positives, blue for false negatives.
  """
  overlay = 128 + image // 2
  overlay[predicted & ~truth] = (220, 40, 40)
  overlay[truth & ~predicted] = (40, 60, 220)
  return overlay


def confusion(
  counts: Sequence[Sequence[int]], class_names: Sequence[str], title: str
) -> bytes:
  """A confusion matrix: counts, coloured by share of the true class.

  Args:
    counts: by true class (row) and predicted class (column).
    class_names: names of the classes.
    title: above the figure.

  Returns:
    A PNG file's bytes.
  """
  table = np.asarray(counts, float)
  share = table / np.maximum(table.sum(1, keepdims=True), 1)
  side = 2.2 + 0.6 * len(class_names)
  figure = matplotlib.figure.Figure(figsize=(side + 0.6, side))
  axes = figure.subplots()
  axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
  ticks = range(len(class_names))
  axes.set_xticks(ticks, class_names, rotation=30, ha='right')
  axes.set_yticks(ticks, class_names)
  axes.set_xlabel('predicted class')
  axes.set_ylabel('true class')
  axes.set_title(title)
  for i in ticks:
    for j in ticks:
      colour = 'white' if share[i, j] > 0.5 else 'black'
      text = str(int(table[i, j]))
      axes.text(j, i, text, ha='center', va='center', color=colour)
  return _png(figure)


def contact_sheet(
  rows: Sequence[tuple[str, Sequence[np.ndarray]]], title: str
) -> bytes:
  """Images in labelled rows.

  Args:
    rows: a label and its images, uint8 (height, width, 3), each.
    title: above the sheet.

  Returns:
    A PNG file's bytes.
  """
  columns = max(len(images) for _, images in rows)
  figure = matplotlib.figure.Figure(figsize=(1.8 * columns, 1.9 * len(rows)))
  grid = figure.subplots(len(rows), columns, squeeze=False)
  for (label, images), line in zip(rows, grid, strict=True):
    for i, axes in enumerate(line):
      axes.set_xticks([])
      axes.set_yticks([])
      for side in axes.spines.values():
        side.set_visible(False)
      if i < len(images):
        axes.imshow(images[i])
    line[0].set_ylabel(label)
  figure.suptitle(title)
  return _png(figure, (0, 0, 1, 0.98))


def captioned(
  images: np.ndarray, captions: Sequence[str], title: str, columns: int = 4
) -> bytes:
  """Images with a caption each.

  Args:
    images: uint8, shape (n, height, width, 3).
    captions: n texts.
    title: above the sheet.
    columns: images in a row.

  Returns:
    A PNG file's bytes.
  """
  lines = -(-len(images) // columns)
  figure = matplotlib.figure.Figure(figsize=(2.4 * columns, 2.7 * lines + 0.4))
  every = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in every:
    axes.set_axis_off()
  for axes, image, caption in zip(every, images, captions, strict=False):
    axes.imshow(image)
    axes.set_title(caption, fontsize=8)
  figure.suptitle(title)
  return _png(figure, (0, 0, 1, 0.98))


# Images of each kind on the sheet of the best, middle and worst.
_SHEET_IMAGES = 3


def error_sheet(
  images: np.ndarray, truth: np.ndarray, predicted: np.ndarray, dice: np.ndarray
) -> bytes:
  """The best, middle and worst images, with their masks and errors.

  Args:
    images: uint8, shape (n, height, width, 3).
    truth: bool, shape (n, height, width).
    predicted: bool, of the same shape.
    dice: float, shape (n,), by which images are ordered.

  Returns:
    A PNG file's bytes.
  """
  # Of images that have cells, if any do: an empty pair would always be best.
  with_cells = np.flatnonzero(truth.any((1, 2)))
  if not len(with_cells):
    with_cells = np.arange(len(truth))
  ordered = with_cells[np.argsort(-dice[with_cells], kind='stable')]
  middle = max(0, (len(ordered) - _SHEET_IMAGES) // 2)
  chosen = {
    'best': ordered[:_SHEET_IMAGES],
    'middle': ordered[middle : middle + _SHEET_IMAGES],
    'worst': ordered[-_SHEET_IMAGES:],
  }
  rows = []
  for name, picked in chosen.items():
    for i in picked:
      masks = [np.repeat(m[i][..., None], 3, -1) for m in (truth, predicted)]
      drawn = [np.where(mask, 255, 0).astype(np.uint8) for mask in masks]
      errors = error_overlay(images[i], truth[i], predicted[i])
      label = f'{name}\nDice {dice[i]:.2f}'
      rows.append((label, [images[i], *drawn, errors]))
  return contact_sheet(
    rows,
    'Image, truth, prediction, errors (red: false positive, blue: false '
    'negative)',
  )
