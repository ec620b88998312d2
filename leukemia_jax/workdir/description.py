"""model.json: what an exported model is, for those who lack its run."""

import dataclasses
import hashlib
import pathlib
from typing import Any

from leukemia_jax import files
from leukemia_jax.config_keys import keys
from leukemia_jax.errors import InputError
from leukemia_jax.pretrained import safetensors_files
from leukemia_jax.workdir import result
from leukemia_jax.workdir.claim import FORMAT, check_format

NAME, WEIGHTS = 'model.json', 'model.safetensors'


@dataclasses.dataclass(frozen=True)
class ExportedFile:
  """A file beside model.json.

  Attributes:
    sha256: of its bytes.
    largest_difference: of what it answers to what the model itself does, on
      synthetic smears; None for a file of weights.
    images_per_second: on the machine that wrote it; likewise.
  """

  sha256: str
  largest_difference: float | None = None
  images_per_second: float | None = None


@dataclasses.dataclass(frozen=True)
class Architecture:
  """Keys of `config.model` that say which network it is."""

  name: str
  width: float
  blocks: list[int]
  depth: int
  batch_norm: bool
  momentum: float
  preprocess: str


@dataclasses.dataclass(frozen=True)
class Description:
  """An exported model.

  Attributes:
    statement: what it is not.
    task: 'classification' or 'segmentation'.
    run: name of the training run.
    parameters_sha256: see `checkpoint.fingerprint`.
    architecture: of the network.
    classes: of a classifier, in the order of probabilities.
    image_size: side of the images that it takes, px: the shorter side is scaled
      to it (bilinear with anti-aliasing), and the middle taken.
    scale: `config.data.scale` of the run.
    input: of both forms of the model.
    outputs: of both, by name.
    temperature: inside, that logits are divided by; of a classifier.
    least_probability: from which on a class is possible; of a classifier.
    threshold: inside, above which a pixel is a cell; of a segmenter.
    files: beside this one.
    images_per_second: of the model itself, in batches of eight.
    platforms: that model.stablehlo is for.
    written: date, as YYYY-MM-DD.
    readable_until: date until which JAX promises that its new versions read
      model.stablehlo.
    versions: of packages that wrote the files.
  """

  statement: str
  task: str
  run: str
  parameters_sha256: str
  architecture: Architecture
  classes: list[str]
  image_size: int
  scale: float
  input: str
  outputs: dict[str, str]
  temperature: float | None
  least_probability: float | None
  threshold: float | None
  files: dict[str, ExportedFile]
  images_per_second: float
  platforms: list[str]
  written: str
  readable_until: str
  versions: dict[str, str]


def write(workdir: pathlib.Path, description: Description) -> None:
  """Writes model.json."""
  files.write_json(
    workdir / NAME, {'format': FORMAT} | result.to_json(description)
  )


def read(folder: pathlib.Path) -> Description:
  """Reads model.json.

  Args:
    folder: of an exported model.

  Returns:
    What it says.

  Raises:
    InputError: it is missing, damaged, or of another version.
  """
  path = folder / NAME
  content = files.read_json(path)
  check_format(content, path)
  own = result.from_json(content, Description, path)
  rules = keys()
  for field, value in dataclasses.asdict(own.architecture).items():
    rule = rules[f'model.{field}'].rule
    if not rule.allows(tuple(value) if field == 'blocks' else value):
      raise InputError(
        f'{path} is damaged: {field}={value!r} must be {rule.words}'
      )
  return own


def read_weights(folder: pathlib.Path, own: Description) -> dict[str, Any]:
  """Reads the weights of an exported model.

  Args:
    folder: of the model.
    own: what its model.json says.

  Returns:
    'params' and 'batch_stats', float32 arrays.

  Raises:
    InputError: the file is missing, damaged, or not that of model.json.
  """
  path = folder / WEIGHTS
  try:
    with path.open('rb') as stream:
      digest = hashlib.file_digest(stream, 'sha256').hexdigest()
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from None
  if WEIGHTS not in own.files or digest != own.files[WEIGHTS].sha256:
    raise InputError(
      f'{path} is not the file that {NAME} names: its SHA-256 is {digest}. '
      'Fetch both again'
    )
  return safetensors_files.read(path)
