"""A study as a run: features once, then every head that is missing.

A frozen backbone's features of fixed images are constants. They are computed
once, and the heads of a backbone and option are then trained on them together.
"""

import functools
import hashlib
import itertools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, devices, files, models, parallel, progress
from leukemia_jax.audit import baselines
from leukemia_jax.build import Network
from leukemia_jax.config_keys import RANDOM
from leukemia_jax.data import input_pipeline, protocols, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.errors import InputError
from leukemia_jax.lock import lock_folder
from leukemia_jax.metrics import classification, losses
from leukemia_jax.study import calibration, features, heads, rows
from leukemia_jax.study.grid import Row, grid, model_config
from leukemia_jax.training import initial_weights, setup
from leukemia_jax.workdir import claim, result


class StudySet(NamedTuple):
  """The study's images, fixed, with every option's parts.

  Attributes:
    dataset: originals, then the augmented copies that the protocol asks for.
    catalogue: of the originals.
    splits: by option.
    indices: of the images in `dataset` by option, for the three parts.
    colour: by option, what colours alone reach on its test part.
  """

  dataset: Dataset
  catalogue: Catalogue
  splits: dict[int, splits.Split]
  indices: dict[int, list[np.ndarray]]
  colour: dict[int, float]


def load(config: ConfigDict) -> StudySet:
  """Reads the set once for all options: they share one set of copies."""
  inputs = build.inputs(config, 'classes')
  originals, catalogue = input_pipeline.load(inputs.spec)
  build.check_benign_class(config, catalogue.class_names)
  input_pipeline.warn_of_parts(inputs.spec, catalogue)
  by_option, options = {}, config.study.options
  takes_parts = protocols.takes_source_parts(catalogue, inputs.spec.protocol)
  if takes_parts and len(options) > 1:
    raise InputError(
      f'config.study.options={options}: the source has parts of its own, which '
      f'are the split of each; give config.study.options=({options[0]},), or '
      'config.data.split=random'
    )
  for option in options:
    protocol = inputs.spec.protocol._replace(option=option)
    spec = inputs.spec._replace(protocol=protocol)
    by_option[option] = input_pipeline.make_split(
      inputs.keys.split, catalogue, spec
    )
  dataset, every, _ = input_pipeline.materialise(
    list(itertools.chain(*by_option.values())),
    originals,
    key=inputs.keys.copies,
    augment=inputs.augment,
  )
  count = len(splits.PARTS)
  indices = {
    option: every[i * count : (i + 1) * count]
    for i, option in enumerate(by_option)
  }
  colours = baselines.colour_features(dataset.images)
  labels = np.asarray(dataset.labels)
  colour = {
    option: baselines.colour_accuracy(
      colours, labels, np.unique(parts[0]), np.unique(parts[2])
    )
    for option, parts in indices.items()
  }
  return StudySet(dataset, catalogue, by_option, indices, colour)


def make_backbone(config: ConfigDict, study_set: StudySet) -> features.Backbone:
  """A backbone of the study; one with random weights gets statistics.

  Args:
    config: of the backbone, from `grid.model_config`.
    study_set: the images.

  Returns:
    The backbone.

  Raises:
    InputError: there are too few images to calibrate it on.
  """
  fields = build.backbone_fields(config.model)
  create = functools.partial(models.create, config.model.name, num_classes=0)
  fingerprint = initial_weights.fingerprint(config)
  names = study_set.catalogue.class_names
  load_weights = functools.partial(initial_weights.backbone, config, names)
  count = config.study.calibration_images
  if config.model.weights != RANDOM or not count:
    return features.Backbone(
      create(**fields), config.model.preprocess, fingerprint, load_weights
    )
  # What no test part holds, mixed: a batch of one class has other statistics.
  tested = protocols.tested(study_set.catalogue, study_set.splits.values())
  free = np.flatnonzero(~tested)
  if len(free) < config.train.batch_size:
    raise InputError(
      f'config.study.calibration_images={count}: {len(free)} images are in no '
      f'test part, a batch takes {config.train.batch_size}. Give weights, or 0 '
      'to leave random weights as they are'
    )
  key = build.make_keys(config.seed).init
  chosen = np.asarray(jax.random.permutation(key, free))[:count]
  images = np.asarray(study_set.dataset.images[chosen])

  def calibrated() -> dict[str, Any]:
    return calibration.calibrate(
      create(**fields | {'momentum': 0.0}),
      load_weights,
      images,
      preprocessing=config.model.preprocess,
      batch_size=config.train.batch_size,
    )

  digest, batch = _sha256(images.tobytes()), config.train.batch_size
  fingerprint += f', calibrated on {digest} by {batch}'
  return features.Backbone(
    create(**fields), config.model.preprocess, fingerprint, calibrated
  )


def _check(config: ConfigDict, every: list[Row]) -> None:
  """Refuses what the grid can't take, before anything is read."""
  if config.study.row >= len(every):
    raise InputError(
      f'config.study.row={config.study.row}: the study has the rows 0 to '
      f'{len(every) - 1}, or -1 for all'
    )
  if config.data.protocol not in protocols.STUDY_PROTOCOLS:
    raise InputError(
      f'config.data.protocol={config.data.protocol}: a study takes '
      f'{" or ".join(protocols.STUDY_PROTOCOLS)}'
    )
  if config.data.folds > 1:
    raise InputError(
      f'config.data.folds={config.data.folds}: a study has one split; give '
      'config.data.folds=1'
    )


def run(config: ConfigDict, workdir: pathlib.Path) -> int:
  """Trains what is missing of a study.

  Images are fixed: copies are augmented once, before the split
  (`balance_then_split`), or none is augmented (`split_then_balance`).

  Args:
    config: the study; `config.study.row` asks for one row alone.
    workdir: where rows/ goes. Several processes may share it, each with rows of
      its own. Finished rows are left as they are.

  Returns:
    How many rows were asked for; all of them are finished.

  Raises:
    InputError: the data, the weights or the workdir can't be used.
  """
  config = initial_weights.resolve_dtype(config, workdir)
  every = grid(config.study)
  _check(config, every)
  claim.check(workdir, 'study', config)
  wanted = [row for row in every if config.study.row in (-1, row.number)]
  missing = [r for r in wanted if not rows.path_of(workdir, r).exists()]
  if not missing:
    return len(wanted)
  names = list(dict.fromkeys(row.model for row in missing))
  configs = {name: model_config(config, name) for name in names}
  study_set = load(configs[names[0]])
  backbones = {name: make_backbone(c, study_set) for name, c in configs.items()}
  provenances = {
    name: rows.Provenance(
      study_set.catalogue.fingerprint, _sha256(backbone.fingerprint.encode())
    )
    for name, backbone in backbones.items()
  }
  _check_rows(workdir, every, provenances)
  with lock_folder(workdir):
    claim.claim(workdir, 'study', config)
  for name, of_model in configs.items():
    _run_backbone(
      of_model,
      workdir,
      study_set,
      backbones[name],
      provenances[name],
      [row for row in every if row.model == name],
      missing,
    )
  return len(wanted)


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


def _check_rows(
  workdir: pathlib.Path,
  every: list[Row],
  provenances: dict[str, rows.Provenance],
) -> None:
  """Refuses to add rows to those of other images or weights."""
  fingerprint = next(iter(provenances.values())).fingerprint
  for row in every:
    path = rows.path_of(workdir, row)
    if not path.exists():
      continue
    saved = rows.read_provenance(path)
    # Of a backbone all of whose rows are finished only the images are known.
    current = provenances.get(
      row.model, rows.Provenance(fingerprint, saved.weights_sha256)
    )
    if saved != current:
      raise InputError(
        f'{path} is of other images or weights than there are now; give a new '
        '--workdir'
      )


def _run_backbone(
  config: ConfigDict,
  workdir: pathlib.Path,
  study_set: StudySet,
  backbone: features.Backbone,
  provenance: rows.Provenance,
  of_model: list[Row],
  missing: list[Row],
) -> None:
  """Computes a backbone's features and trains its heads."""
  extracted = features.extract(
    backbone,
    study_set.dataset.images,
    cache=files.expand(config.data.cache_dir) / 'features',
    batch_size=config.train.batch_size,
  )
  print(
    f'{config.model.name}: features of {len(extracted.features)} images, '
    f'{extracted.computed} computed in {extracted.seconds:.1f} s'
  )
  facts = {
    'provenance': provenance,
    'backbone': _backbone_record(config, backbone, extracted, study_set),
    'environment': result.environment(),
  }
  data = Dataset(jnp.asarray(extracted.features), study_set.dataset.labels)
  _run_heads(config, workdir, study_set, data, of_model, missing, facts)


def _head_network(config: ConfigDict, num_classes: int, rate: float) -> Network:
  """A head on features, as a network."""
  return Network(
    models.Head(num_classes, rate),
    None,
    losses.make_class_objective(config.train.loss),
    classification.confusion_matrix,
    num_classes,
  )


def _run_heads(
  config: ConfigDict,
  workdir: pathlib.Path,
  study_set: StudySet,
  data: Dataset,
  of_model: list[Row],
  missing: list[Row],
  facts: dict[str, Any],
) -> None:
  """Trains the heads of one backbone that are missing, group by group."""
  # Another process may have finished some meanwhile.
  missing = [r for r in missing if not rows.path_of(workdir, r).exists()]
  wanted = [row for row in of_model if row in missing]
  repeats, schedule = config.study.repeats, setup.schedule(config)
  num_classes = len(study_set.catalogue.class_names)
  by_rate = {
    rate: heads.Heads(
      _head_network(config, num_classes, rate),
      schedule,
      accumulate=config.train.accumulate,
    )
    for rate in {row.dropout_rate for row in wanted}
  }
  by_option = {
    option: facts | _option_facts(config, study_set, option)
    for option in dict.fromkeys(row.option for row in wanted)
  }
  parts = {
    option: heads.parts_of(study_set.indices[option], schedule.batch_size)
    for option in by_option
  }
  started = time.perf_counter()
  with progress.bar() as bar:
    task = bar.add_task(
      f'Heads of {config.model.name}',
      total=len(wanted) * repeats * schedule.epochs,
    )
    advance = functools.partial(bar.advance, task)
    jobs, in_turn, workers = [], [], 1
    for option, rate in dict.fromkeys(
      (row.option, row.dropout_rate) for row in wanted
    ):
      group = [
        r for r in of_model if (r.option, r.dropout_rate) == (option, rate)
      ]
      runs = [
        heads.Run(row.learning_rate, config.seed + i, row in missing)
        for row in group
        for i in range(repeats)
      ]
      in_turn += [row for row in group if row in missing]
      together = [runs]
      if not by_rate[rate].side_by_side:
        together = [[run] for run in runs if run.wanted]
        workers = devices.steps_at_once()
      jobs += [
        functools.partial(by_rate[rate].run, r, data, parts[option], advance)
        for r in together
      ]
    trained = itertools.chain.from_iterable(
      parallel.in_order(jobs, workers, ahead=len(jobs))
    )
    for row in in_turn:
      own = [_repeat(config, study_set, next(trained)) for _ in range(repeats)]
      _store(workdir, row, by_option[row.option] | {'repeats': own})
  print(
    f'{config.model.name}: {len(wanted) * repeats} heads trained in '
    f'{time.perf_counter() - started:.1f} s'
  )


def _store(workdir: pathlib.Path, row: Row, facts: dict[str, Any]) -> None:
  """Writes a row, unless another process has."""
  with lock_folder(workdir):
    path = rows.path_of(workdir, row)
    if not path.exists():
      rows.write(path, rows.RowRecord(**row._asdict(), **facts))


def _repeat(
  config: ConfigDict, study_set: StudySet, trained: heads.TrainedHead
) -> rows.Repeat:
  """A head's record."""
  names = study_set.catalogue.class_names
  scores = {
    part: classification.scores(
      np.asarray(sums.confusion),
      float(sums.loss),
      names,
      config.data.benign_class,
    )
    for part, sums in trained.sums.items()
  }
  return rows.Repeat(
    seed=trained.seed,
    epochs=trained.outcome.epochs,
    best_epoch=trained.outcome.best_epoch,
    diverged=trained.outcome.diverged,
    seconds=trained.seconds,
    predicted=trained.predicted.tolist(),
    **scores,
  )


def _option_facts(
  config: ConfigDict, study_set: StudySet, option: int
) -> dict[str, Any]:
  """What the rows of a loading option have in common."""
  split, catalogue = study_set.splits[option], study_set.catalogue
  originals = np.bincount(catalogue.labels).tolist()
  tested = np.unique(study_set.indices[option][2])
  learnt = initial_weights.learnt_by(config.model.weights)
  return {
    'data': rows.StudyData(
      originals=dict(zip(catalogue.class_names, originals, strict=True)),
      source=pathlib.Path(config.data.source).name,
      protocol=config.data.protocol,
      loss=config.train.loss,
      counts=splits.part_counts(split, catalogue),
    ),
    'held_out_seen_by_weights': initial_weights.seen_images(
      config.model.weights, learnt, split, catalogue
    ),
    'memory': rows.Memory(
      images_bytes=study_set.dataset.images.nbytes,
      index_bytes=sum(part.nbytes for part in study_set.indices[option]),
    ),
    'test': rows.TestImages(
      images=tested.tolist(),
      labels=np.asarray(study_set.dataset.labels)[tested].tolist(),
    ),
    'colour_3_nearest_neighbours': study_set.colour[option],
  }


def _backbone_record(
  config: ConfigDict,
  backbone: features.Backbone,
  extracted: features.Extracted,
  study_set: StudySet,
) -> rows.BackboneRecord:
  """What a backbone is and costs."""
  shape = (1, *study_set.dataset.images.shape[1:])
  image = jax.ShapeDtypeStruct(shape, jnp.uint8)
  variables = jax.eval_shape(
    lambda: backbone.model.init(
      jax.random.key(0), jnp.zeros(shape), train=False
    )
  )
  step = features.make_step(
    apply_fn=backbone.model.apply, preprocessing=backbone.preprocessing
  )
  lowered = step.lower(variables, image)
  # Not every device knows it before it has compiled the step.
  cost = lowered.cost_analysis() or lowered.compile().cost_analysis() or {}
  return rows.BackboneRecord(
    name=config.model.name,
    width=config.model.width,
    blocks=list(config.model.blocks),
    image_size=shape[1],
    dtype=config.model.dtype,
    weights=pathlib.Path(config.model.weights).name,
    preprocess=config.model.preprocess,
    features=extracted.features.shape[-1],
    parameters=result.size_of(variables['params']),
    flops_per_image=cost.get('flops'),
    images_per_second=extracted.rate,
  )
