"""Figures as files' bytes; sheets of images as PNG."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from leukemia_jax.reporting import lettering


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


def _png(figure: matplotlib.figure.Figure) -> bytes:
  # Without the version in it the same figure is the same file.
  within = 0, 0, 1, 0.98
  return _file(figure, within, format='png', dpi=110, metadata={'Software': ''})


def svg(figure: matplotlib.figure.Figure) -> bytes:
  """A figure as SVG; the same figure is the same file."""
  with matplotlib.rc_context({'svg.hashsalt': 'leukemia_jax'}):
    return _file(figure, format='svg', metadata={'Date': None})


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
  return _png(figure)


# Images in a row of those with captions.
_CAPTIONED_COLUMNS = 4


def captioned(images: np.ndarray, captions: Sequence[str], title: str) -> bytes:
  """Images with a caption each.

  Args:
    images: uint8, shape (n, height, width, 3).
    captions: n texts.
    title: above the sheet.

  Returns:
    A PNG file's bytes.
  """
  columns = _CAPTIONED_COLUMNS
  lines = -(-len(images) // columns)
  figure = matplotlib.figure.Figure(figsize=(2.4 * columns, 2.7 * lines + 0.4))
  every = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in every:
    axes.set_axis_off()
  for axes, image, caption in zip(every, images, captions, strict=False):
    axes.imshow(image)
    axes.set_title(caption, fontsize=8)
  figure.suptitle(title)
  return _png(figure)


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
