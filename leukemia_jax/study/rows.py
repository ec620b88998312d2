"""A study's rows on disk, as records; the names of the fields are the keys."""

import dataclasses
import pathlib
from typing import Any

from leukemia_jax import files, models
from leukemia_jax.errors import InputError
from leukemia_jax.metrics.classification import ClassificationScores
from leukemia_jax.study.grid import Row
from leukemia_jax.workdir import ROWS, result
from leukemia_jax.workdir.claim import FORMAT, check_format
from leukemia_jax.workdir.records import Environment


@dataclasses.dataclass(frozen=True)
class Provenance:
  """The images and the weights that a row's features are of."""

  fingerprint: str
  weights_sha256: str


@dataclasses.dataclass(frozen=True)
class BackboneRecord:
  """What a backbone is and costs; the speed is None if it was not measured."""

  name: str
  width: float
  blocks: list[int]
  image_size: int
  dtype: str
  weights: str
  preprocess: str
  features: int
  parameters: int
  flops_per_image: float | None
  images_per_second: float | None


@dataclasses.dataclass(frozen=True)
class StudyData:
  """The set of a row, its originals by class, and how it was split."""

  originals: dict[str, int]
  source: str
  protocol: str
  loss: str
  counts: dict[str, dict[str, int]]


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of the images, which options share, and of an option's indices."""

  images_bytes: int
  index_bytes: int


@dataclasses.dataclass(frozen=True)
class TestImages:
  """The test images of an option, in the order in which they are predicted."""

  images: list[int]
  labels: list[int]


@dataclasses.dataclass(frozen=True)
class Repeat:
  """A trained head: its course, its scores, its test predictions."""

  seed: int
  epochs: int
  best_epoch: int
  diverged: bool
  seconds: float
  train: ClassificationScores
  validation: ClassificationScores
  test: ClassificationScores
  predicted: list[int]


@dataclasses.dataclass(frozen=True)
class RowRecord:
  """A finished row; the first five fields are its place in the grid."""

  number: int
  model: str
  option: int
  learning_rate: float
  dropout_rate: float
  provenance: Provenance
  backbone: BackboneRecord
  environment: Environment
  data: StudyData
  memory: Memory
  test: TestImages
  colour_3_nearest_neighbours: float
  repeats: list[Repeat]
  held_out_seen_by_weights: dict[str, int] | None = None


def path_of(workdir: pathlib.Path, row: Row) -> pathlib.Path:
  """Where a row is stored."""
  return workdir / ROWS / f'{row.number:03d}.json'


def write(path: pathlib.Path, record: RowRecord) -> None:
  """Writes a row."""
  files.write_json(path, {'format': FORMAT} | result.to_json(record))


def _parse(path: pathlib.Path) -> Any:
  content = files.read_json(path)
  check_format(content, path)
  return content


def read_provenance(path: pathlib.Path) -> Provenance:
  """The provenance of a stored row.

  Raises:
    InputError: the file is damaged, or of another version.
  """
  content = _parse(path)
  try:
    return result.from_json(content['provenance'], Provenance, path)
  except (KeyError, InputError):
    raise InputError(
      f'{path} is damaged; remove it and give the same command again'
    ) from None


def _read(path: pathlib.Path) -> RowRecord:
  try:
    row = result.from_json(_parse(path), RowRecord, path)
    if not row.repeats or row.model not in models.BACKBONES:
      raise InputError(f'{path} is damaged: no repeats, or no such backbone')
    lengths = {len(repeat.predicted) for repeat in row.repeats}
    if lengths | {len(row.test.images)} != {len(row.test.labels)}:
      raise InputError(f'{path} is damaged: test images are missing')
  except InputError as error:
    raise InputError(
      f'{error}; remove it and give the same command again'
    ) from error
  return row


def read_all(workdir: pathlib.Path) -> list[RowRecord]:
  """All finished rows of a study.

  Args:
    workdir: of the study.

  Returns:
    The rows, by number.

  Raises:
    InputError: a file is damaged or of another version, or rows are of
      different images or weights.
  """
  paths = sorted((workdir / ROWS).glob('*.json'))
  rows = [_read(path) for path in paths]
  images = {row.provenance.fingerprint for row in rows}
  weights = {(row.model, row.provenance.weights_sha256) for row in rows}
  if len(images) != 1 or len(weights) != len(dict(weights)):
    raise InputError(
      f'{workdir / ROWS} holds rows of different images or weights; give a new '
      '--workdir'
    )
  return rows
