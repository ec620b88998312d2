"""Charts as SVG bytes: learning curves, confusion matrices, rates."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from leukemia_jax.metrics import calibration
from leukemia_jax.reporting import figures

# Scores that are not written as they are named.
_LABELS = {'dice': 'Dice'}


def curves(history: Sequence[dict[str, Any]], best_epoch: int) -> bytes:
  """Loss and accuracy of training and validation by epoch, and Dice if there.

  Args:
    history: the lines of metrics.jsonl.
    best_epoch: from 1; gets a dotted line.

  Returns:
    An SVG file's bytes.
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
  return figures.svg(figure)


def confusion(
  counts: Sequence[Sequence[int]], class_names: Sequence[str], title: str
) -> bytes:
  """A confusion matrix: counts and row percents, coloured by these.

  Args:
    counts: by true class (row) and predicted class (column).
    class_names: names of the classes.
    title: above the figure.

  Returns:
    An SVG file's bytes.
  """
  table = np.asarray(counts, float)
  share = table / np.maximum(table.sum(1, keepdims=True), 1)
  count = len(class_names)
  side = 2.2 + 0.75 * count
  figure = matplotlib.figure.Figure(
    figsize=(side + 0.6, side), layout='constrained'
  )
  axes = figure.subplots()
  axes.pcolormesh(share, cmap='Blues', vmin=0, vmax=1)
  axes.invert_yaxis()
  axes.set_aspect('equal')
  places = [i + 0.5 for i in range(count)]
  axes.set_xticks(places, class_names, rotation=30, ha='right')
  axes.set_yticks(places, class_names)
  axes.set_xlabel('predicted class')
  axes.set_ylabel('true class')
  axes.set_title(title)
  for i, j in np.ndindex(count, count):
    text = f'{int(table[i, j])}\n{100 * share[i, j]:.0f} %'
    axes.text(
      places[j],
      places[i],
      text,
      ha='center',
      va='center',
      fontsize=8,
      color='white' if share[i, j] > 0.5 else 'black',
    )
  return figures.svg(figure)


def threshold_curve(
  thresholds: np.ndarray, scores: dict[str, np.ndarray], chosen: float
) -> bytes:
  """Precision, recall and Dice by threshold.

  Args:
    thresholds: shape (n,).
    scores: 'precision', 'recall' and 'dice', shape (n,) each.
    chosen: the threshold that is used; gets a dotted line.

  Returns:
    An SVG file's bytes.
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
  return figures.svg(figure)


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
    An SVG file's bytes.
  """
  ticks = [0, 1, 2, 5, 10, 25, 75]
  columns = min(2, len(panels))
  rows = -(-len(panels) // columns)
  figure = matplotlib.figure.Figure(
    figsize=(5.4 * columns, 3.6 * rows), layout='constrained'
  )
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
  return figures.svg(figure)


class Scores(NamedTuple):
  """One class against the others: whether images are of it, and how sure."""

  truth: np.ndarray
  probability: np.ndarray


def _square(title: str, x: str, y: str) -> matplotlib.axes.Axes:
  """Axes of two shares, in a figure of their own."""
  figure = matplotlib.figure.Figure(figsize=(4.2, 4.2), layout='constrained')
  axes = figure.subplots()
  axes.set(title=title, xlabel=x, ylabel=y, aspect='equal')
  axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
  axes.grid(alpha=0.3)
  return axes


def _finish(axes: matplotlib.axes.Axes) -> bytes:
  axes.legend(fontsize=8)
  figure = axes.get_figure()
  assert isinstance(figure, matplotlib.figure.Figure)
  return figures.svg(figure)


_LINES = ('-', '--', '-.', ':')


def ranking(by_class: Mapping[str, Scores]) -> dict[str, bytes]:
  """Receiver operating characteristic, and precision and recall.

  Args:
    by_class: by name of the class; classes of no image, or of all, are left
      out.

  Returns:
    SVG files' bytes: 'roc.svg' and 'precision_recall.svg'.
  """
  from sklearn.metrics import precision_recall_curve, roc_curve

  roc = _square(
    'Each class against all others', '1 - specificity', 'sensitivity'
  )
  curve = _square('Each class against all others', 'recall', 'precision')
  roc.plot([0, 1], [0, 1], color='grey', linestyle=':')
  told = [
    (name, *own) for name, own in by_class.items() if len(set(own.truth)) > 1
  ]
  for i, (name, truth, probability) in enumerate(told):
    # There are ten colours.
    line: dict[str, Any] = {
      'color': f'C{i % 10}',
      'linestyle': _LINES[i // 10 % len(_LINES)],
    }
    fall_out, recall, _ = roc_curve(truth, probability)
    roc.plot(fall_out, recall, label=name, **line)
    precision, recall, _ = precision_recall_curve(truth, probability)
    curve.step(recall, precision, where='post', label=name, **line)
  return {'roc.svg': _finish(roc), 'precision_recall.svg': _finish(curve)}


def reliability(diagrams: Mapping[str, calibration.Reliability]) -> bytes:
  """How often predictions of each confidence are correct.

  Args:
    diagrams: by title.

  Returns:
    An SVG file's bytes.
  """
  axes = _square('Reliability', 'confidence', 'share correct')
  axes.plot([0, 1], [0, 1], color='grey', linestyle=':')
  for title, diagram in diagrams.items():
    used = diagram.images > 0
    axes.plot(
      diagram.confidence[used], diagram.accuracy[used], marker='o', label=title
    )
  return _finish(axes)
