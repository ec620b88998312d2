"""result.json as records: what identifies a result, its scores and its cost.

The names of the fields are the keys of the file; None is left away where it is
a field's default.
"""

import dataclasses
import importlib.metadata
import pathlib
import platform
import sys
import time
from typing import Any, TypeVar

import cattrs
import cattrs.gen
import jax
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import devices, files
from leukemia_jax.audit.baselines import ColourRule
from leukemia_jax.data import grouping, masks
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.input_pipeline import InputSpec
from leukemia_jax.data.masks import ClassCoverage
from leukemia_jax.errors import InputError
from leukemia_jax.metrics.classification import ClassificationScores
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.workdir import RESULT
from leukemia_jax.workdir.claim import FORMAT, check_format

_PACKAGES = (
  'leukemia_jax',
  'jax',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
)
NO_PATIENTS = 'no patients known'
Scores = ClassificationScores | MaskScores
T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class ModelRecord:
  """The model; `num_outputs` are classes, or 1 for masks."""

  name: str
  width: float
  blocks: list[int]
  depth: int
  image_size: int
  num_outputs: int
  parameters: int
  statistics: int


@dataclasses.dataclass(frozen=True)
class SplitRecord:
  """How the set was split; see `config.data`."""

  option: int
  protocol: str
  grouping: str
  split: str = 'random'
  block: int | None = None
  folds: int | None = None
  fold: int | None = None
  embargo: int | None = None


@dataclasses.dataclass(frozen=True)
class MaskRecord:
  """How masks were read, and what looks wrong; counts are of files."""

  rule: str
  cleaned: bool
  bad: int
  unpaired: int
  by_class: dict[str, ClassCoverage]
  warnings: list[str]
  dropped_empty: int | None = None


@dataclasses.dataclass(frozen=True)
class DataRecord:
  """The set.

  Attributes:
    source: its name alone: where it lies is nobody's business.
    fingerprint: SHA-256 over all files, their ids and classes.
    scale: `config.data.scale`.
    classes: those of the model; to segment, those of the set.
    images: number of images.
    unit: 'field' or 'cell': what an image shows.
    groups: number of groups that are not torn apart.
    patients: number of patients, or NO_PATIENTS.
    skipped: number of bad images that were left out.
    split: of a training run.
    patients_by_part: of a training run, where patients are known.
    counts: images by part and class, repeated ones counted again.
    held_out_seen_by_weights: held-out images that the starting weights have
      learnt from, by part.
    masks: if they were read.
    left_out_as_trained_on: of an evaluation, images that were not scored.
  """

  source: str
  fingerprint: str
  scale: float
  classes: list[str]
  images: int
  groups: int
  skipped: int
  unit: str = 'field'
  patients: int | str = NO_PATIENTS
  patients_by_part: dict[str, int] | None = None
  split: SplitRecord | None = None
  counts: dict[str, dict[str, int]] | None = None
  held_out_seen_by_weights: dict[str, int] | None = None
  masks: MaskRecord | None = None
  left_out_as_trained_on: int | None = None


@dataclasses.dataclass(frozen=True)
class Baselines:
  """What is reached on the test part without a network.

  Attributes:
    colour_3_nearest_neighbours: accuracy; see `audit.baselines`.
    colour_balanced_accuracy: the same baseline's balanced accuracy.
    background: scores of masks that are all background.
    colour_rule: scores of the masks of `rule`.
    rule: the colour rule fitted to the training part.
  """

  colour_3_nearest_neighbours: float | None = None
  colour_balanced_accuracy: float | None = None
  background: MaskScores | None = None
  colour_rule: MaskScores | None = None
  rule: ColourRule | None = None


@dataclasses.dataclass(frozen=True)
class CrossValidation:
  """Several folds, each tested by a model that was trained without it.

  Attributes:
    folds: number of folds.
    groups: number of groups that intervals are over.
    group: what such a group is.
    scores: of each fold's test part, by name.
    mean: over folds, by name of the score.
    standard_deviation: over folds, by name of the score.
    pooled: of all images together, each predicted once, by name of the score.
    interval_95: of `pooled` over groups, its ends by name of the score.
  """

  folds: int
  groups: int
  group: str
  scores: dict[str, list[float]]
  mean: dict[str, float]
  standard_deviation: dict[str, float]
  pooled: dict[str, float]
  interval_95: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a command took; times in seconds."""

  seconds: float
  peak_memory_bytes: int | None
  prepare_seconds: float | None = None
  compile_seconds: float | None = None
  train_seconds: float | None = None
  images_per_second: float | None = None
  resumed: bool | None = None


@dataclasses.dataclass(frozen=True)
class Environment:
  """The versions and the device that numbers come from."""

  versions: dict[str, str]
  device: str


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished training run or evaluation.

  Attributes:
    task: 'classification' or 'segmentation'.
    model: the model.
    data: the set.
    parameters_sha256: see `checkpoint.fingerprint`.
    test: scores of the test part; likewise `validation` and `train`, where the
      model's own set was scored.
    baselines: beside those of the test part.
    cost: of the command.
    versions: of packages.
    device: that computed.
    threshold: probability above which a pixel is predicted a cell.
    epochs: of training.
    best_epoch: that of the weights, from 1.
    checkpoint: name of the run that an evaluation scored.
    cross_validation: of several folds; `test` is then of all images, each
      scored by the model that was not trained on it.
  """

  task: str
  model: ModelRecord
  data: DataRecord
  parameters_sha256: str
  test: Scores
  baselines: Baselines
  cost: Cost
  versions: dict[str, str]
  device: str
  train: Scores | None = None
  validation: Scores | None = None
  threshold: float | None = None
  epochs: int | None = None
  best_epoch: int | None = None
  checkpoint: str | None = None
  cross_validation: CrossValidation | None = None

  def class_scores(self, part: str) -> ClassificationScores:
    """A classifier's scores of a part."""
    scores = getattr(self, part)
    assert isinstance(scores, ClassificationScores)
    return scores

  def mask_scores(self, part: str) -> MaskScores:
    """A segmenter's scores of a part."""
    scores = getattr(self, part)
    assert isinstance(scores, MaskScores)
    return scores


_converter = cattrs.Converter(omit_if_default=True)
_converter.register_structure_hook(int | str, lambda value, _: value)
# It is said where no patients are known.
_converter.register_unstructure_hook(
  DataRecord,
  cattrs.gen.make_dict_unstructure_fn(
    DataRecord,
    _converter,
    patients=cattrs.gen.override(omit_if_default=False),
    _cattrs_omit_if_default=True,
  ),
)
# The scores of either task, by their own class.
_converter.register_unstructure_hook_func(
  lambda kind: kind in (Scores, Scores | None),
  lambda value: _converter.unstructure(value, type(value)),
)


def to_json(record: Any) -> Any:
  """A record as JSON types."""
  return _converter.unstructure(record)


def from_json(content: Any, kind: type[T], path: pathlib.Path) -> T:
  """A record from JSON types.

  Args:
    content: the file's JSON, parsed.
    kind: the record's class.
    path: of the file, for the error.

  Returns:
    The record.

  Raises:
    InputError: a key is missing, or a value can't be read as its type.
  """
  try:
    return _converter.structure(content, kind)
  except Exception as error:
    # cattrs groups whatever the fields' types raise.
    flaws = '; '.join(cattrs.transform_error(error)[:3])
    raise InputError(f'{path} is damaged: {flaws}') from error


def write(workdir: pathlib.Path, result: Result) -> None:
  """Writes result.json."""
  files.write_json(workdir / RESULT, {'format': FORMAT} | to_json(result))


def read(workdir: pathlib.Path) -> Result:
  """Reads result.json.

  Args:
    workdir: of a finished run.

  Returns:
    The result.

  Raises:
    InputError: there is none, it is damaged, or of another version.
  """
  path = workdir / RESULT
  content = files.read_json(path)
  check_format(content, path)
  return from_json(content, Result, path)


def size_of(tree: Any) -> int:
  """The number of values in a pytree of arrays."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def model_record(
  config: ConfigDict, num_outputs: int, variables: dict[str, Any]
) -> ModelRecord:
  """Describes the model of a config."""
  return ModelRecord(
    name=config.model.name,
    width=config.model.width,
    blocks=list(config.model.blocks),
    depth=config.model.depth,
    image_size=config.data.image_size,
    num_outputs=num_outputs,
    parameters=size_of(variables['params']),
    statistics=size_of(variables['batch_stats']),
  )


def data_record(config: ConfigDict, catalogue: Catalogue) -> DataRecord:
  """Describes the set of a config."""
  data = config.data
  groups = grouping.group_ids(catalogue, data.grouping, data.block)
  return DataRecord(
    source=pathlib.Path(data.source).name,
    fingerprint=catalogue.fingerprint,
    scale=data.scale,
    classes=list(catalogue.class_names),
    images=len(catalogue.ids),
    groups=len(set(groups.tolist())),
    skipped=len(catalogue.bad_images) + len(catalogue.contradictory),
    unit=data.unit,
    patients=catalogue.num_patients or NO_PATIENTS,
  )


def mask_record(spec: InputSpec, catalogue: Catalogue) -> MaskRecord | None:
  """How a set's masks were read, if they were."""
  if np.isnan(catalogue.coverage).all():
    return None
  names = catalogue.class_names
  summaries = masks.by_class(catalogue.coverage, catalogue.labels, len(names))
  record = MaskRecord(
    rule=spec.mask_reading.rule,
    cleaned=spec.mask_reading.clean,
    bad=len(catalogue.bad_masks),
    unpaired=len(catalogue.notes.unpaired),
    by_class=dict(zip(names, summaries, strict=True)),
    warnings=masks.warnings(summaries, names),
  )
  return record


def environment() -> Environment:
  """The versions and the device of this process."""
  versions = {'python': platform.python_version()}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = 'not installed'
  return Environment(versions, devices.describe())


def peak_memory_bytes(of_children: bool = False) -> int | None:
  """The most memory that this process, or one of its children, took.

  Args:
    of_children: whether children count instead.

  Returns:
    Bytes; None on systems that don't count it.
  """
  try:
    import resource
  except ImportError:  # Windows
    return None
  who = resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF
  # Linux counts kilobytes, macOS bytes.
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(who).ru_maxrss * unit


def cost(started: float, **more: Any) -> Cost:
  """What a command took so far: seconds, peak memory, and what is given."""
  return Cost(
    seconds=round(time.perf_counter() - started, 1),
    peak_memory_bytes=peak_memory_bytes(),
    **more,
  )
