"""Writes and reads result.json, and describes what it is of.

None is left away where it is a field's default.
"""

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
from leukemia_jax.data import grouping, masks
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.input_pipeline import InputSpec
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import RESULT
from leukemia_jax.workdir.claim import FORMAT, check_format
from leukemia_jax.workdir.records import (
  NO_PATIENTS,
  Cost,
  DataRecord,
  Environment,
  MaskRecord,
  ModelRecord,
  Result,
  Scores,
)

_PACKAGES = (
  'leukemia_jax',
  'jax',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
)
T = TypeVar('T')

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


def fitted_temperature(
  result: Result, folder: pathlib.Path
) -> tuple[float, int]:
  """What a classifier's training run fitted.

  Args:
    result: of the run.
    folder: its workdir.

  Returns:
    The temperature, and to how many images.

  Raises:
    InputError: the result says none.
  """
  known = result.calibration
  if known is None or known.temperature is None or known.fitted_to is None:
    raise InputError(f'{folder / RESULT} is damaged: no temperature')
  return known.temperature, known.fitted_to
