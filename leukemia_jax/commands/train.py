"""--mode=train: trains a model and scores it on its three parts."""

import contextlib
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from leukemia_jax import __version__, build, files, sharding, tasks
from leukemia_jax.build import Inputs
from leukemia_jax.data import (
  input_pipeline,
  part_contents,
  protocols,
  splits,
)
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.masks import EMPTY_SHARE
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError
from leukemia_jax.evaluation import assessment
from leukemia_jax.evaluation.scored import Subject
from leukemia_jax.lock import lock_run
from leukemia_jax.metrics import magnification
from leukemia_jax.tasks import Task
from leukemia_jax.training import initial_weights, loop, setup
from leukemia_jax.training.calls import TrainingCost
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal
from leukemia_jax.workdir import CONFIG, RESULT, SPLIT, claim, result, saved
from leukemia_jax.workdir.records import DataRecord, MaskRecord, SplitRecord
from leukemia_jax.workdir.saved import Learnt, SavedSplit

# Training images that tell how large cells are.
_MEASURED = 64


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Trains a model and scores it on its three parts.

  Args:
    config: the config.
    workdir: where everything of the run goes. A run that was cut off is resumed
      from its latest checkpoint; a finished one is left as it is.

  Raises:
    InputError: the data or the workdir can't be used, or the loss diverged.
  """
  config = initial_weights.resolve_auto(config, workdir)
  claim.check(workdir, 'train', config)
  task = tasks.for_model(config.model.name)
  if (workdir / RESULT).exists():
    source = files.read_json(workdir / CONFIG)['data']['source']
    if not claim.same_place(source, config.data.source):
      raise InputError(
        f'--workdir={workdir} holds a finished run on {source}: for '
        f'config.data.source={config.data.source} give another --workdir'
      )
    if not sharding.leads():
      return
    path = tasks.write_report(
      task, workdir, result.read(workdir), build.shows_images(config)
    )
    print(f'this run is finished: see {path}')
    return
  started = time.perf_counter()
  mesh = sharding.make_mesh(
    config.mesh.devices, config.train.batch_size, config.train.accumulate
  )
  # Of several processes the first alone writes files of the run.
  with lock_run(workdir) if sharding.leads() else contextlib.nullcontext():
    inputs = build.inputs(config, task.targets)
    loaded = input_pipeline.load(inputs.spec)
    input_pipeline.warn_of_parts(inputs.spec, loaded[1])
    if config.data.folds == 1 or config.data.fold >= 0:
      _train(task, config, inputs, loaded, workdir, mesh, started)
    elif jax.process_count() > 1:
      raise InputError(
        'several processes train one model: give --config.data.fold too'
      )
    else:
      _train_folds(task, config, inputs, loaded, workdir, mesh)


def _train_folds(
  task: Task,
  config: ConfigDict,
  inputs: Inputs,
  loaded: tuple[Dataset, Catalogue],
  workdir: pathlib.Path,
  mesh: Mesh,
) -> None:
  """Trains a model for each fold, then scores all of them together."""
  folders = []
  for fold in range(config.data.folds):
    own = ConfigDict(config.to_dict())
    own.data.fold = fold
    folders.append(workdir / f'fold-{fold}')
    claim.check(folders[-1], 'train', own)
    # Another job may be at work on this fold alone.
    with lock_run(folders[-1]):
      if (folders[-1] / RESULT).exists():
        _check_images(saved.read_split(folders[-1]), inputs, loaded[1])
        continue
      print(f'fold {fold} of {config.data.folds}, from 0')
      protocol = inputs.spec.protocol._replace(fold=fold)
      own_inputs = inputs._replace(spec=inputs.spec._replace(protocol=protocol))
      started = time.perf_counter()
      _train(task, own, own_inputs, loaded, folders[-1], mesh, started)
    # The first fold has shown that the input is good.
    claim.claim(workdir, 'train', config)
  claim.claim(workdir, 'train', config)
  tasks.finish_folds(
    *(task, workdir, folders, loaded[1], inputs),
    benign_class=config.data.benign_class,
  )


def _train(
  task: Task,
  config: ConfigDict,
  inputs: Inputs,
  loaded: tuple[Dataset, Catalogue],
  workdir: pathlib.Path,
  mesh: Mesh,
  started: float,
) -> None:
  """Trains and scores one model."""
  originals, catalogue = loaded
  split, before, seen_before = _resume_split(workdir, config, inputs, catalogue)
  masks = _mask_record(inputs, catalogue, split)
  names = catalogue.class_names
  task.check_classes(config, names)
  num_outputs = task.num_outputs(len(names))
  network = tasks.make_network(task, config, num_outputs)
  _check_agreement(config, catalogue)
  state = sharding.broadcast(
    setup.first_state(config, network, inputs, names, workdir)
  )
  if sharding.leads():
    # Only now: a mistyped path must not keep the workdir from the right one.
    claim.claim(workdir, 'train', config)
    saved.write_split(workdir, split, catalogue, before)
  dataset, indices, origins = input_pipeline.materialise(
    split, originals, key=inputs.keys.copies, augment=inputs.augment
  )
  prepared = time.perf_counter() - started
  outcome = loop.fit(
    state,
    setup.learner(config, network, inputs, task.extra_scores),
    loop.TrainingData(dataset, indices[0], indices[1]),
    key=inputs.keys.train,
    schedule=setup.schedule(config),
    workdir=workdir,
    mesh=mesh,
  )
  sharding.leave()
  if not sharding.leads():
    return
  variables = outcome.variables
  # Repeated training images count once.
  parts = dict(zip(splits.PARTS, map(np.unique, indices), strict=True))
  subject = Subject(
    *(network, variables, names, dataset, catalogue, origins, parts),
    scoring=build.scoring(config, inputs),
    groups=assessment.set_groups(
      catalogue, inputs.spec.protocol, inputs.keys.split
    ),
  )
  scored = task.score(subject)
  data = dataclasses.replace(
    _data_record(config, inputs, split, catalogue),
    held_out_seen_by_weights=seen_before,
    masks=masks,
    spectrum=_spectrum(dataset, parts['train'], inputs.spec.removal),
  )
  finished = tasks.describe(
    task,
    result.model_record(config, num_outputs, variables),
    data,
    variables,
    scored,
    epochs=outcome.epochs,
    best_epoch=outcome.best_epoch,
    cost=result.cost(started, **_training_cost(prepared, mesh, outcome.cost)),
  )
  tasks.finish(task, workdir, finished, subject, scored)


def _check_agreement(config: ConfigDict, catalogue: Catalogue) -> None:
  """Refuses processes of one training that were started differently."""
  values = config.to_dict()
  # Paths are a machine's own; what lies there has its fingerprint.
  values['data'] |= {'source': '', 'cache_dir': ''}
  sharding.agree(json.dumps(values), catalogue.fingerprint, __version__)


def _data_record(
  config: ConfigDict, inputs: Inputs, split: Split, catalogue: Catalogue
) -> DataRecord:
  """What is said of the set and its split."""
  return dataclasses.replace(
    result.data_record(config, catalogue),
    split=_split_record(inputs, catalogue),
    counts=splits.part_counts(split, catalogue),
    in_no_part=len(catalogue.ids) - len(np.unique(np.concatenate(split)[:, 0])),
    patients_by_part=_patient_counts(split, catalogue),
    test_copies_in_training=_copies(split, catalogue),
  )


def _resume_split(
  workdir: pathlib.Path,
  config: ConfigDict,
  inputs: Inputs,
  catalogue: Catalogue,
) -> tuple[Split, Learnt, dict[str, int] | None]:
  """The split that the run began with, or a new one; warnings are printed.

  And what its starting weights have learnt from, with how many of these images
  are held out.
  """
  spec, weights, before = inputs.spec, config.model.weights, None
  if (workdir / SPLIT).exists():
    begun = saved.read_split(workdir)
    _check_images(begun, inputs, catalogue)
    split, before = begun.split, begun.before
  else:
    split = input_pipeline.make_split(inputs.keys.split, catalogue, spec)
  before = before or initial_weights.learnt_by(weights)
  for warning in input_pipeline.warnings_of_split(
    split, catalogue, spec.protocol
  ):
    print(f'warning: {warning}')
  seen_before = initial_weights.seen_images(weights, before, split, catalogue)
  return split, before, seen_before


def _check_images(
  begun: SavedSplit, inputs: Inputs, catalogue: Catalogue
) -> None:
  """Refuses to go on with other images than a run began with."""
  if begun.fingerprint != catalogue.fingerprint:
    raise InputError(
      f'{inputs.spec.source.source} has changed since this run began; give a '
      'new --workdir'
    )


def _mask_record(
  inputs: Inputs, catalogue: Catalogue, split: Split
) -> MaskRecord | None:
  """How masks were read, if they were; warnings are printed."""
  masks = result.mask_record(inputs.spec, catalogue)
  for warning in masks.warnings if masks else ():
    print(f'warning: {warning}')
  if masks is None or not inputs.spec.drop_empty_masks:
    return masks
  empty = np.flatnonzero(catalogue.coverage < EMPTY_SHARE)
  dropped = len(np.setdiff1d(empty, np.concatenate(split)[:, 0]))
  print(f'{dropped} images with an empty mask left out of training')
  return dataclasses.replace(masks, dropped_empty=dropped)


def _split_record(inputs: Inputs, catalogue: Catalogue) -> SplitRecord:
  protocol = inputs.spec.protocol
  by_folds = protocol.folds > 1
  takes_source = protocol.split == 'source' or (
    protocols.takes_source_parts(catalogue, protocol)
  )
  return SplitRecord(
    protocol.option,
    protocol.name,
    protocol.grouping,
    split='source' if takes_source else 'random',
    block=protocol.block if protocol.grouping == 'blocks' else None,
    folds=protocol.folds if by_folds else None,
    fold=protocol.fold if by_folds else None,
    embargo=protocol.embargo if protocol.grouping == 'contiguous' else None,
  )


def _spectrum(
  dataset: Dataset, indices: np.ndarray, removal: Removal
) -> list[float]:
  """How large what training images show is."""
  places = np.linspace(0, len(indices) - 1, _MEASURED).astype(int)
  images = (
    np.asarray(colour.without_corners(image, removal))
    for image in np.asarray(dataset.images[indices[places]])
  )
  return [round(v, 4) for v in magnification.mean_spectrum(images).tolist()]


def _copies(split: Split, catalogue: Catalogue) -> int:
  """Number of test images that equal a training image."""
  train, test = (
    [catalogue.pixel_hashes[i] for i in np.unique(part, axis=0)[:, 0]]
    for part in (split.train, split.test)
  )
  known = set(train)
  return sum(value in known for value in test)


def _patient_counts(
  split: Split, catalogue: Catalogue
) -> dict[str, int] | None:
  if not catalogue.num_patients:
    return None
  by_part = part_contents.patients_by_part(split, catalogue)
  return {part: len(patients) for part, patients in by_part.items()}


def _training_cost(
  prepared: float, mesh: Mesh, cost: TrainingCost
) -> dict[str, Any]:
  seconds = cost.train_seconds
  return {
    'prepare_seconds': round(prepared, 1),
    'compile_seconds': round(cost.compile_seconds, 1),
    'train_seconds': round(seconds, 1),
    'images_per_second': round(cost.images / seconds, 1) if seconds else None,
    'resumed': cost.resumed,
    'devices': mesh.size,
  }
