"""--mode=evaluate: scores a trained model on its own set or on any other."""

import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, tasks
from leukemia_jax.build import Inputs
from leukemia_jax.config_check import check_paths, override
from leukemia_jax.data import input_pipeline, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.errors import InputError
from leukemia_jax.evaluation import assessment, classifier, recalibration
from leukemia_jax.evaluation.assessment import SetGroups
from leukemia_jax.evaluation.scored import (
  Fitted,
  Scored,
  Subject,
  Temperature,
)
from leukemia_jax.lock import lock_run
from leukemia_jax.tasks import Task
from leukemia_jax.workdir import (
  RESULT,
  calibration_file,
  claim,
  result,
  saved,
)
from leukemia_jax.workdir.calibration_file import LocalCalibration
from leukemia_jax.workdir.records import Recalibration, Result
from leukemia_jax.workdir.saved import Trained


def run(
  overrides: dict[str, Any],
  workdir: pathlib.Path,
  run_folder: pathlib.Path,
  calibration: pathlib.Path | None = None,
) -> None:
  """Scores a trained model on its own set or on any other.

  On the set that it was trained on, its own three parts are scored. On any
  other, all images are the test part, except those that are pixel for pixel
  among its training or validation images: they are left out and counted.

  Args:
    overrides: values by config key; without `data.source` the model's own
      source is scored. Only keys that leave the model as it is are taken.
    workdir: where the result goes.
    run_folder: the workdir of the training run.
    calibration: the workdir of an evaluation that fitted a temperature, which
      is used instead of the training run's; the images that it was fitted to
      are not scored.

  Raises:
    InputError: a path or key can't be used, the classes aren't the model's,
      or the model's own source has changed.
  """
  _check_place(workdir, run_folder)
  trained = saved.load_trained(run_folder)
  config = override(trained.config, overrides, 'evaluate')
  check_paths(config, workdir)
  named = {'checkpoint': str(run_folder.resolve())}
  local = None
  if calibration:
    local = calibration_file.read(calibration, trained.result.parameters_sha256)
    named['calibration'] = str(calibration.resolve())
    if config.evaluate.recalibrate:
      raise InputError(
        '--calibration uses a temperature, and config.evaluate.recalibrate='
        f'{config.evaluate.recalibrate} fits another: give one of the two'
      )
  claim.check(workdir, 'evaluate', config, **named)
  with lock_run(workdir):
    _evaluate(config, overrides, workdir, run_folder, trained, local, named)


def _evaluate(
  config: ConfigDict,
  overrides: dict[str, Any],
  workdir: pathlib.Path,
  run_folder: pathlib.Path,
  trained: Trained,
  local: LocalCalibration | None,
  named: dict[str, str],
) -> None:
  """Scores a model by a config that was checked."""
  started = time.perf_counter()
  _warn_of_unit(config, trained.config)
  task = tasks.for_model(config.model.name)
  inputs = build.inputs(config, task.targets)
  originals, catalogue = input_pipeline.load(inputs.spec, min_classes=1)
  names = task.class_names(
    config.data.source,
    catalogue.class_names,
    tuple(trained.result.data.classes),
  )
  task.check_classes(config, names)
  numbers = [names.index(name) for name in catalogue.class_names]
  labels = jnp.asarray(numbers, jnp.int32)[originals.labels]
  originals = originals._replace(labels=labels)
  dataset, origins, parts, left_out, named_alike = _parts_to_score(
    inputs, run_folder, overrides, originals, catalogue
  )
  groups = assessment.set_groups(
    catalogue, inputs.spec.protocol, inputs.keys.split
  )
  if local:
    parts['test'] = _without(local, catalogue, groups, origins, parts['test'])
  masks = result.mask_record(inputs.spec, catalogue)
  for warning in masks.warnings if masks else ():
    print(f'warning: {warning}')
  if config.evaluate.recalibrate >= len(parts['test']):
    raise _none_left(config.evaluate.recalibrate, len(parts['test']))
  claim.claim(workdir, 'evaluate', config, **named)
  network = tasks.make_network(task, config, trained.result.model.num_outputs)
  subject = Subject(
    *(network, trained.variables, names, dataset, catalogue, origins, parts),
    scoring=build.scoring(config, inputs),
    groups=groups,
    fitted=_fitted(task, trained.result, run_folder, local),
  )
  scored = task.score(subject)
  recalibrated = None
  if config.evaluate.recalibrate:
    recalibrated = _recalibrate(
      *(config.evaluate.recalibrate, inputs.keys.train, subject, scored),
      *(workdir, trained.result.parameters_sha256),
    )
  data = dataclasses.replace(
    result.data_record(config, catalogue),
    classes=list(names),
    masks=masks,
    left_out_as_trained_on=left_out,
    patients_named_as_learnt=named_alike,
  )
  finished = tasks.describe(
    task,
    trained.result.model,
    data,
    trained.variables,
    scored,
    checkpoint=run_folder.resolve().name,
    recalibration=recalibrated,
    cost=result.cost(started),
  )
  tasks.finish(task, workdir, finished, subject, scored)


def _warn_of_unit(config: ConfigDict, trained: ConfigDict) -> None:
  own, scored = trained.data.unit, config.data.unit
  if own != scored:
    print(
      f'warning: the model was trained on images of one {own} each, '
      f'and these are of one {scored} each (config.data.unit): its scores say '
      'little'
    )


def _check_place(workdir: pathlib.Path, run_folder: pathlib.Path) -> None:
  if workdir.resolve().is_relative_to(run_folder.resolve()):
    raise InputError(
      f'--workdir={workdir} lies in --checkpoint={run_folder}; give another '
      'folder for the scores'
    )


def _without(
  local: LocalCalibration,
  catalogue: Catalogue,
  groups: SetGroups,
  origins: np.ndarray,
  indices: np.ndarray,
) -> np.ndarray:
  """A part without the groups that a temperature was fitted to images of."""
  fitted_to = set(local.pixel_hashes)
  is_known = [value in fitted_to for value in catalogue.pixel_hashes]
  known = np.unique(groups.ids[is_known])
  scored = indices[~np.isin(groups.ids[origins[indices, 0]], known)]
  if not len(scored):
    raise InputError(
      f'--calibration was fitted to images of every {groups.group} here: none '
      'is left to score'
    )
  left_out = len(indices) - len(scored)
  print(f'{left_out} images left out: --calibration knows their groups')
  return scored


def _recalibrate(
  count: int,
  key: jax.Array,
  subject: Subject,
  scored: Scored,
  workdir: pathlib.Path,
  parameters_sha256: str,
) -> Recalibration:
  """Fits a temperature to `count` images of the test part, and writes it."""
  outcomes = classifier.outcomes(subject, scored.predictions)
  over = subject.over_test()
  outcome = recalibration.recalibrate(key, outcomes, over, count)
  if outcome is None:
    in_groups = (
      f' in {len(over.groups.majority)} groups ({subject.groups.group})'
    )
    raise _none_left(count, len(outcomes.truth), in_groups)
  record, chosen = outcome
  hashes = subject.catalogue.pixel_hashes
  sources = subject.origins[subject.parts['test'][chosen], 0]
  local = LocalCalibration(
    parameters_sha256, record.temperature, [hashes[i] for i in sources]
  )
  calibration_file.write(workdir, local)
  return record


def _none_left(count: int, images: int, in_groups: str = '') -> InputError:
  return InputError(
    f'config.evaluate.recalibrate={count}: of {images} test images{in_groups} '
    'none is left to score; give fewer'
  )


def _fitted(
  task: Task,
  finished: Result,
  run_folder: pathlib.Path,
  local: LocalCalibration | None,
) -> Fitted:
  """What the training run chose, or what was fitted at this laboratory."""
  if local:
    count = len(local.pixel_hashes)
    return Fitted(
      temperature=Temperature(local.temperature, count, is_local=True)
    )
  if task.targets != 'masks':
    temperature = Temperature(*result.fitted_temperature(finished, run_folder))
    return Fitted(temperature=temperature)
  rule = finished.baselines.rule
  if finished.threshold is None or rule is None:
    path = run_folder / RESULT
    raise InputError(f'{path} is damaged: no threshold or colour rule')
  return Fitted(finished.threshold, rule)


class _Scorable(NamedTuple):
  """What an evaluation scores; see `Subject`.

  Attributes:
    dataset: the set, with the copies that the run's parts hold.
    origins: of its images.
    parts: indices by part.
    left_out: how many images were left out: the model was trained on them.
    named_alike: number of patients of another set that are named as some that
      the model has learnt from; None for a run's own set, or if unknown.
  """

  dataset: Dataset
  origins: np.ndarray
  parts: dict[str, np.ndarray]
  left_out: int
  named_alike: int | None


def _parts_to_score(
  inputs: Inputs,
  run_folder: pathlib.Path,
  overrides: dict[str, Any],
  originals: Dataset,
  catalogue: Catalogue,
) -> _Scorable:
  """What is scored: a run's own parts, or all of another set."""
  split, fingerprint, _, learnt = saved.read_split(run_folder)
  if fingerprint == catalogue.fingerprint:
    dataset, indices, origins = input_pipeline.materialise(
      split, originals, key=inputs.keys.copies, augment=inputs.augment
    )
    parts = dict(zip(splits.PARTS, map(np.unique, indices), strict=True))
    return _Scorable(dataset, origins, parts, 0, None)
  source = inputs.spec.source.source
  is_same_source = 'data.source' not in overrides and not any(
    key.startswith('synthetic.') for key in overrides
  )
  if is_same_source:
    raise InputError(
      f'{source} has changed since {run_folder} was trained on it; give '
      'config.data.source to score it as another set'
    )
  hashes, known = catalogue.pixel_hashes, learnt.pixel_hashes
  new = [i for i, value in enumerate(hashes) if value not in known]
  left_out = len(hashes) - len(new)
  if not new:
    raise InputError(
      f'{source} holds nothing but images that the model was trained on'
    )
  if left_out:
    print(f'{left_out} images left out: the model was trained on them')
  if not learnt.is_known:
    print(
      'warning: nobody knows which images the weights that the model started '
      'from have learnt from: if some are here, scores are too good'
    )
  # By name alone: numbers of two laboratories may be the same.
  named_alike = {catalogue.patients[i] for i in new} & learnt.patients
  if named_alike:
    print(
      f'warning: {len(named_alike)} patients are named as some that the model '
      f'has learnt from, such as {min(named_alike)}: if these are the same '
      'persons, scores are too good'
    )
  origins = splits.originals(np.arange(len(hashes)))
  return _Scorable(
    originals,
    origins,
    {'test': np.array(new, np.int32)},
    left_out,
    len(named_alike) if learnt.patients and catalogue.num_patients else None,
  )
