"""Classification and segmentation: what differs between them, as two values.

A command picks one by the name of the model and hands parts of it down.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, files, models
from leukemia_jax.build import Inputs, Network
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.errors import InputError
from leukemia_jax.evaluation import (
  assessment,
  classifier,
  cross_validation,
  predictions,
  segmenter,
)
from leukemia_jax.evaluation.assessment import Assessment, IntervalGroups
from leukemia_jax.evaluation.predictions import Row
from leukemia_jax.evaluation.scored import Scored, Subject
from leukemia_jax.metrics import classification, losses, segmentation
from leukemia_jax.metrics.losses import Objective
from leukemia_jax.reporting import class_page, mask_page, run_page
from leukemia_jax.workdir import checkpoint, limits_file, result
from leukemia_jax.workdir.records import (
  DataRecord,
  ModelRecord,
  Result,
  Scores,
  Shortcut,
)


class Page(NamedTuple):
  """How a result is shown.

  Attributes:
    template: of the page.
    context: maps a result and its predictions to the page's tables.
    drawn: likewise to its charts, by file name.
    sheets: maps what was scored to figures of its images, by file name.
    headline: maps a result to one line.
  """

  template: str
  context: Callable[[Result, Sequence[Row]], dict[str, Any]]
  drawn: Callable[[Result, Sequence[Row]], dict[str, bytes]]
  sheets: Callable[[Subject, Scored], dict[str, bytes]]
  headline: Callable[[Result], str]


class Task(NamedTuple):
  """What a model is for.

  Attributes:
    name: 'classification' or 'segmentation'.
    targets: what a model learns: 'classes' or 'masks'.
    num_outputs: maps the number of classes to that of the model's outputs.
    objective: maps `config.train` to what is minimised.
    confusion: maps (logits, targets, sample weight) to counts.
    extra_scores: maps such counts to further scores of an epoch.
    class_names: maps the names of the set and of the model to those scored.
    check_classes: refuses a config that asks for classes that aren't there.
    score: scores a model.
    score_folds: maps (predictions, results of the folds, groups, benign class)
      to the scores of all images, their assessment, and that of shortcuts.
    page: shows a result.
  """

  name: str
  targets: str
  num_outputs: Callable[[int], int]
  objective: Callable[[ConfigDict], Objective]
  confusion: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  extra_scores: Callable[[np.ndarray], dict[str, float]]
  class_names: Callable[
    [str, tuple[str, ...], tuple[str, ...]], tuple[str, ...]
  ]
  check_classes: Callable[[ConfigDict, Sequence[str]], None]
  score: Callable[[Subject], Scored]
  score_folds: Callable[
    [Sequence[Row], Sequence[Result], IntervalGroups, str],
    tuple[Scores, Assessment, Shortcut | None],
  ]
  page: Page


def _interval(finished: Result, name: str) -> str:
  """The 95 % interval of a score, where it has one."""
  record = finished.intervals
  if record is None or name not in record.ends:
    return ''
  low, high = record.ends[name]
  return f' ({low:.4f} to {high:.4f} over {record.groups} groups)'


def _class_headline(finished: Result) -> str:
  test = finished.class_scores('test')
  return (
    f'test accuracy {test.accuracy:.4f}, balanced {test.balanced_accuracy:.4f}'
    f'{_interval(finished, "test.balanced_accuracy")}, worst class recall '
    f'{test.worst_class_recall:.4f}, over {test.images} images'
  )


def _mask_headline(finished: Result) -> str:
  test, rule = finished.mask_scores('test'), finished.baselines.colour_rule
  return (
    f'test Dice {test.dice:.4f}{_interval(finished, "test.dice")}, IoU '
    f'{test.iou:.4f}, over {test.images} images'
    + (f' (a colour rule: Dice {rule.dice:.4f})' if rule else '')
  )


def _names_of_model(
  source: str, of_set: tuple[str, ...], of_model: tuple[str, ...]
) -> tuple[str, ...]:
  """The model's classes, which must hold those of the set."""
  unknown = sorted(set(of_set) - set(of_model))
  if unknown:
    raise InputError(
      f'{source} has the classes {", ".join(unknown)}, which the model does '
      f'not know; it was trained on {", ".join(of_model)}. Rename the folders'
    )
  return of_model


def _names_of_set(
  source: str, of_set: tuple[str, ...], of_model: tuple[str, ...]
) -> tuple[str, ...]:
  """The set's classes: cells are cells, in whatever classes."""
  del source, of_model
  return of_set


CLASSIFY = Task(
  name='classification',
  targets='classes',
  num_outputs=lambda num_classes: num_classes,
  objective=lambda train: losses.make_class_objective(train.loss),
  confusion=classification.confusion_matrix,
  extra_scores=lambda confusion: {},
  class_names=_names_of_model,
  check_classes=build.check_benign_class,
  score=classifier.score,
  score_folds=cross_validation.classes,
  page=Page(
    'classification.md',
    class_page.context,
    class_page.drawn,
    run_page.class_sheets,
    _class_headline,
  ),
)
SEGMENT = Task(
  name='segmentation',
  targets='masks',
  num_outputs=lambda num_classes: 1,
  objective=lambda train: functools.partial(
    losses.mask_objective, loss=train.mask_loss
  ),
  confusion=segmentation.pixel_confusion,
  extra_scores=lambda confusion: {
    'validation_dice': segmentation.dice(confusion)
  },
  class_names=_names_of_set,
  check_classes=lambda config, names: None,
  score=segmenter.score,
  score_folds=cross_validation.masks,
  page=Page(
    'segmentation.md',
    mask_page.context,
    lambda result, rows: {},
    run_page.mask_sheets,
    _mask_headline,
  ),
)


def for_model(name: str) -> Task:
  """The task of a model.

  Args:
    name: one of `models.NAMES`.

  Returns:
    The task.
  """
  return SEGMENT if name in models.UNETS else CLASSIFY


def make_network(task: Task, config: ConfigDict, num_outputs: int) -> Network:
  """The model of a config, and how it learns its task."""
  return build.network(
    config,
    num_outputs,
    objective=task.objective(config.train),
    confusion=task.confusion,
  )


def describe(
  task: Task,
  model: ModelRecord,
  data: DataRecord,
  variables: dict[str, Any],
  scored: Scored,
  **more: Any,
) -> Result:
  """Puts a result together.

  Args:
    task: of the model.
    model: what was scored.
    data: on what.
    variables: the weights.
    scored: the scores.
    **more: further fields of a result, its `cost` among them.

  Returns:
    The result.
  """
  return Result(
    task=task.name,
    model=model,
    data=data,
    parameters_sha256=checkpoint.fingerprint(variables),
    test=scored.parts['test'],
    validation=scored.parts.get('validation'),
    train=scored.parts.get('train'),
    baselines=scored.baselines,
    intervals=scored.assessment.intervals,
    ranking=scored.assessment.ranking,
    calibration=scored.assessment.calibration,
    limits=scored.assessment.limits,
    threshold=scored.threshold,
    **vars(result.environment()),
    **more,
  )


def finish_folds(
  task: Task,
  workdir: pathlib.Path,
  folders: Sequence[pathlib.Path],
  catalogue: Catalogue,
  inputs: Inputs,
  benign_class: str,
) -> None:
  """Scores the folds of a cross-validation together.

  Args:
    task: of the models.
    workdir: of the cross-validation.
    folders: of the folds' runs, all of them finished.
    catalogue: of the set.
    inputs: of the cross-validation.
    benign_class: the healthy class, or ''.
  """
  runs = [result.read(folder) for folder in folders]
  header, rows = predictions.join(
    [f / predictions.NAME for f in folders], runs[0].data.classes
  )
  number = {name: i for i, name in enumerate(catalogue.ids)}
  sources = np.array([number[row['path']] for row in rows])
  if len(np.unique(sources)) < len(sources):
    # An earlier version may have drawn each fold from folds of its own.
    raise InputError(
      f'{workdir}: images are in the test part of several folds; remove its '
      'folders fold-*, and train again'
    )
  over = assessment.set_groups(
    catalogue, inputs.spec.protocol, inputs.keys.split
  ).over(sources, catalogue.labels[sources])
  scored = task.score_folds(rows, runs, over, benign_class)
  files.write(workdir / predictions.NAME, predictions.from_rows(header, rows))
  joined = cross_validation.join(runs, *scored)
  result.write(workdir, joined)
  path = write_report(task, workdir, joined, shows_images=False)
  record = joined.cross_validation
  assert record is not None
  print(f'{record.folds} folds: {task.page.headline(joined)}; see {path}')


def write_report(
  task: Task, workdir: pathlib.Path, finished: Result, shows_images: bool
) -> pathlib.Path:
  """Writes the pages of a run from what lies in its folder.

  Args:
    task: of the model.
    workdir: of the run.
    finished: its result.
    shows_images: see `build.shows_images`.

  Returns:
    The path of report.md.
  """
  page = task.page
  return run_page.write(
    workdir,
    finished,
    template=page.template,
    context=page.context,
    drawn=page.drawn,
    shows_images=shows_images,
  )


def finish(
  task: Task,
  workdir: pathlib.Path,
  finished: Result,
  subject: Subject,
  scored: Scored,
) -> None:
  """Writes a run's results, and prints the score that counts."""
  files.write(workdir / predictions.NAME, predictions.to_csv(subject, scored))
  if scored.limits:
    limits_file.write(workdir, scored.limits)
  for name in run_page.SHEETS:
    (workdir / name).unlink(missing_ok=True)
  for name, sheet in task.page.sheets(subject, scored).items():
    files.write(workdir / name, sheet)
  result.write(workdir, finished)
  path = write_report(task, workdir, finished, subject.scoring.shows_images)
  print(f'{task.page.headline(finished)}; see {path}')
