"""The page of a training run or an evaluation, from what lies in its folder."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from leukemia_jax import files, models
from leukemia_jax.data import protocols
from leukemia_jax.evaluation import predictions
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.evaluation.scored import Scored, Subject
from leukemia_jax.metrics import bootstrap, segmentation
from leukemia_jax.reporting import (
  charts,
  class_page,
  figures,
  page_rows,
  pages,
)
from leukemia_jax.workdir import METRICS
from leukemia_jax.workdir.records import (
  NO_PATIENTS,
  DataRecord,
  ModelRecord,
  Result,
  SplitRecord,
)

# Drawn right after scoring, from arrays that are not stored.
_MISTAKES, _ERRORS, _THRESHOLDS = 'mistakes.png', 'errors.png', 'thresholds.svg'
SHEETS = _MISTAKES, _ERRORS
# Scores of the whole test part: without an interval, most have none.
_HEADLINES = {'test.balanced_accuracy', 'test.dice'}


def model_title(model: ModelRecord) -> str:
  """A model's name, and how it is smaller than the published network."""
  title = models.TITLES[model.name]
  published = models.published_size(model.name)
  own = models.Size(model.width, tuple(model.blocks), model.depth)
  if own == published:
    return title
  changes = [f'width {model.width:g}']
  if model.blocks:
    changes.append(f'blocks {"-".join(map(str, model.blocks))}')
  else:
    changes.append(f'depth {model.depth}')
  changes.append(f'{model.parameters / 1e6:.1f} M parameters')
  return f'{title}, reduced: {", ".join(changes)}'


def class_sheets(subject: Subject, scored: Scored) -> dict[str, bytes]:
  """The test images that were predicted incorrectly with most confidence.

  Args:
    subject: what was scored.
    scored: its predictions.

  Returns:
    PNG files' bytes by name; none if all are correct, or images may not be
    shown.
  """
  predicted = scored.predictions['test']
  assert isinstance(predicted, ClassPredictions)
  indices = subject.parts['test']
  truth = np.asarray(subject.dataset.labels)[indices]
  confidence = predicted.probabilities.max(-1)
  incorrect = np.flatnonzero(predicted.labels != truth)
  ordered = incorrect[np.argsort(-confidence[incorrect], kind='stable')]
  chosen = ordered[: page_rows.SHOWN_MISTAKES]
  if not len(chosen) or not subject.scoring.shows_images:
    return {}
  names = subject.class_names
  sheet = figures.captioned(
    np.asarray(subject.dataset.images[indices[chosen]]),
    [
      f'{names[truth[i]]}\npredicted {names[predicted.labels[i]]}, '
      f'{confidence[i]:.2f}'
      for i in chosen
    ],
    f'Most confident of {len(incorrect)} incorrect test images',
  )
  return {_MISTAKES: sheet}


def mask_sheets(subject: Subject, scored: Scored) -> dict[str, bytes]:
  """Scores by threshold, and the best, middle and worst images.

  Args:
    subject: what was scored.
    scored: its predictions.

  Returns:
    Files' bytes by name.
  """
  masks = scored.masks
  assert masks is not None
  drawn = {}
  if subject.scoring.shows_images:
    drawn[_ERRORS] = figures.error_sheet(
      masks.images, masks.truth, masks.predicted, masks.dice
    )
  if masks.threshold_scores is not None:
    drawn[_THRESHOLDS] = charts.threshold_curve(
      segmentation.THRESHOLDS, masks.threshold_scores, scored.threshold or 0.0
    )
  return drawn


def next_command(result: Result, workdir: pathlib.Path) -> tuple[str, str]:
  """What a reader would do next: why, and the command."""
  # A path of this machine is nobody's business.
  name = 'WORKDIR' if workdir.is_absolute() else workdir
  source = ''
  if result.data.source != 'synthetic':
    source = ' --config.data.source=FOLDER_OR_ZIP'
  if result.recalibration:
    known = result.recalibration
    why = 'Use this temperature for other images of that laboratory:'
    if known.local.mean >= min(known.home.mean, known.raw.mean):
      why = (
        'This temperature did not lower the error of calibration on images '
        'that it was not fitted to: fit one to more, or leave it. To use it '
        'nevertheless:'
      )
    return (
      why,
      'python main.py --mode=evaluate --checkpoint=RUN '
      f'--calibration={name} --workdir=runs/calibrated{source}',
    )
  if result.checkpoint:
    return (
      'See whether another run differs from this one on the same images:',
      f'python main.py --mode=compare --runs={name},OTHER '
      '--workdir=runs/compared',
    )
  return (
    'Ask how much of this score the images give away without a cell:',
    f'python main.py --mode=audit --workdir=runs/audit{source}',
  )


def _problems(data: DataRecord) -> list[str]:
  """What makes scores too good, or doubtful, of what was looked for."""
  problems = []
  copies = data.test_copies_in_training
  if copies is not None:
    problems.append(f'{copies} test images equal one trained on')
  for part, count in (data.held_out_seen_by_weights or {}).items():
    problems.append(
      f'the starting weights have learnt from {count} images of the {part} part'
    )
  return problems + (data.masks.warnings if data.masks else [])


def _keeps_groups(split: SplitRecord | None) -> bool:
  """Whether no group is in two parts."""
  return (
    split is not None
    and split.protocol in protocols.BY_GROUPS
    and split.grouping != 'none'
  )


def write(
  workdir: pathlib.Path,
  result: Result,
  *,
  template: str,
  context: Callable[[Result, Sequence[Row]], dict[str, Any]],
  drawn: Callable[[Result, Sequence[Row]], dict[str, bytes]],
  shows_images: bool,
) -> pathlib.Path:
  """Writes report.md, report.html, model_card.md and the charts of a run.

  Args:
    workdir: of the run, with predictions.csv and the sheets that were drawn
      right after scoring.
    result: of the run.
    template: name of the page's template.
    context: maps the result and its predictions to the page's tables.
    drawn: likewise to its charts, by file name.
    shows_images: whether images may be shown; else sheets of them are removed.

  Returns:
    The path of report.md.
  """
  _, rows = predictions.read(workdir / predictions.NAME, result.data.classes)
  charted = drawn(result, rows)
  history = files.read_json_lines(workdir / METRICS)
  if history:
    charted['curves.svg'] = charts.curves(history, result.best_epoch or 0)
  if not shows_images:
    for name in SHEETS:
      (workdir / name).unlink(missing_ok=True)
  for name in (*SHEETS, _THRESHOLDS):
    if (workdir / name).exists():
      charted[name] = (workdir / name).read_bytes()
  why, command = next_command(result, workdir)
  record = result.intervals
  coverage = None
  if record and record.smallest and record.smallest < bootstrap.ENOUGH_GROUPS:
    coverage = bootstrap.COVERAGE
  values = context(result, rows) | {
    'result': result,
    'model_title': model_title(result.model),
    'problems': _problems(result.data),
    'keeps_groups': _keeps_groups(result.data.split),
    'no_patients': NO_PATIENTS,
    'part_rows': page_rows.parts_table(result, rows),
    'coverage': coverage,
    'has_intervals': bool(record and _HEADLINES & record.ends.keys()),
    'drawn': set(charted),
    'predictions': predictions.NAME,
    'next_why': why,
    'next_command': command,
  }
  if result.cross_validation:
    values |= class_page.fold_context(result)
  if result.checkpoint is None:
    card = pages.render('model_card.md', values)
    files.write(workdir / 'model_card.md', card)
  return pages.write(workdir, template, values, charted)
