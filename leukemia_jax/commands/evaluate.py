"""--mode=evaluate: scores a trained model on its own set or on any other."""

import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, tasks
from leukemia_jax.build import Inputs
from leukemia_jax.config_keys import check_config, check_paths, keys
from leukemia_jax.data import input_pipeline, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.errors import InputError
from leukemia_jax.evaluation import assessment
from leukemia_jax.evaluation.scored import Fitted, Subject, Temperature
from leukemia_jax.lock import lock_run
from leukemia_jax.tasks import Task
from leukemia_jax.workdir import RESULT, claim, result, saved
from leukemia_jax.workdir.records import Result
from leukemia_jax.workdir.saved import Trained


def run(
  overrides: dict[str, Any], workdir: pathlib.Path, run_folder: pathlib.Path
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

  Raises:
    InputError: a path or key can't be used, the classes aren't the model's,
      or the model's own source has changed.
  """
  _check_place(workdir, run_folder)
  trained = saved.load_trained(run_folder)
  config = _evaluation_config(trained.config, overrides)
  check_paths(config, workdir)
  checkpoint = str(run_folder.resolve())
  claim.check(workdir, 'evaluate', config, checkpoint=checkpoint)
  with lock_run(workdir):
    _evaluate(config, overrides, workdir, run_folder, trained)


def _evaluate(
  config: ConfigDict,
  overrides: dict[str, Any],
  workdir: pathlib.Path,
  run_folder: pathlib.Path,
  trained: Trained,
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
  dataset, origins, parts, left_out = _parts_to_score(
    inputs, run_folder, overrides, originals, catalogue
  )
  masks = result.mask_record(inputs.spec, catalogue)
  for warning in masks.warnings if masks else ():
    print(f'warning: {warning}')
  claim.claim(workdir, 'evaluate', config, checkpoint=str(run_folder.resolve()))
  network = tasks.make_network(task, config, trained.result.model.num_outputs)
  subject = Subject(
    *(network, trained.variables, names, dataset, catalogue, origins, parts),
    scoring=build.scoring(config, inputs),
    over=assessment.interval_groups(
      *(catalogue, origins[parts['test'], 0]),
      *(inputs.spec.protocol, inputs.keys.split),
    ),
    fitted=_fitted(task, trained.result, run_folder),
  )
  scored = task.score(subject)
  data = dataclasses.replace(
    result.data_record(config, catalogue),
    classes=list(names),
    masks=masks,
    left_out_as_trained_on=left_out,
  )
  finished = tasks.describe(
    task,
    trained.result.model,
    data,
    trained.variables,
    scored,
    checkpoint=run_folder.resolve().name,
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


def _evaluation_config(
  config: ConfigDict, overrides: dict[str, Any]
) -> ConfigDict:
  """A trained run's config with the keys that an evaluation may change."""
  allowed = [name for name, key in keys().items() if key.evaluation]
  for key in overrides:
    if key not in allowed:
      raise InputError(
        f"config.{key} is the trained model's own and cannot be given with "
        f'--mode=evaluate; these can: {", ".join(allowed)}'
      )
  config = ConfigDict(config.to_dict())
  config.update_from_flattened_dict(overrides)
  check_config(config)
  return config


def _fitted(task: Task, finished: Result, run_folder: pathlib.Path) -> Fitted:
  """What the training run chose."""
  if task.targets != 'masks':
    own = finished.calibration
    if own is None or own.temperature is None or own.fitted_to is None:
      path = run_folder / RESULT
      raise InputError(f'{path} is damaged: no temperature')
    return Fitted(temperature=Temperature(own.temperature, own.fitted_to))
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
  """

  dataset: Dataset
  origins: np.ndarray
  parts: dict[str, np.ndarray]
  left_out: int


def _parts_to_score(
  inputs: Inputs,
  run_folder: pathlib.Path,
  overrides: dict[str, Any],
  originals: Dataset,
  catalogue: Catalogue,
) -> _Scorable:
  """What is scored: a run's own parts, or all of another set."""
  split, fingerprint, learnt = saved.read_split(run_folder)
  if fingerprint == catalogue.fingerprint:
    dataset, indices, origins = input_pipeline.materialise(
      split, originals, key=inputs.keys.copies, augment=inputs.augment
    )
    parts = dict(zip(splits.PARTS, map(np.unique, indices), strict=True))
    return _Scorable(dataset, origins, parts, 0)
  source = inputs.spec.source.source
  is_same_source = 'data.source' not in overrides and not any(
    key.startswith('synthetic.') for key in overrides
  )
  if is_same_source:
    raise InputError(
      f'{source} has changed since {run_folder} was trained on it; give '
      'config.data.source to score it as another set'
    )
  hashes = catalogue.pixel_hashes
  new = [i for i, value in enumerate(hashes) if value not in learnt]
  left_out = len(hashes) - len(new)
  if not new:
    raise InputError(
      f'{source} holds nothing but images that the model was trained on'
    )
  if left_out:
    print(f'{left_out} images left out: the model was trained on them')
  origins = splits.originals(np.arange(len(hashes)))
  return _Scorable(
    originals, origins, {'test': np.array(new, np.int32)}, left_out
  )
