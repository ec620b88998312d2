"""calibration.json: a temperature for a model at another laboratory."""

import dataclasses
import pathlib

from leukemia_jax import files
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import result
from leukemia_jax.workdir.claim import FORMAT, check_format

NAME = 'calibration.json'


@dataclasses.dataclass(frozen=True)
class LocalCalibration:
  """A temperature, and what it was fitted to.

  Attributes:
    parameters_sha256: of the model; see `checkpoint.fingerprint`.
    temperature: what its logits are divided by.
    pixel_hashes: of the images that it was fitted to.
  """

  parameters_sha256: str
  temperature: float
  pixel_hashes: list[str]


def write(workdir: pathlib.Path, local: LocalCalibration) -> None:
  """Writes calibration.json."""
  files.write_json(workdir / NAME, {'format': FORMAT} | result.to_json(local))


def read(workdir: pathlib.Path, parameters_sha256: str) -> LocalCalibration:
  """Reads calibration.json.

  Args:
    workdir: of the evaluation that wrote it.
    parameters_sha256: of the model that it is used with.

  Returns:
    The temperature.

  Raises:
    InputError: there is none, it is damaged, or another model's.
  """
  path = workdir / NAME
  if not path.exists():
    raise InputError(
      f'--calibration={workdir}: no temperature was fitted there; run '
      '--mode=evaluate with config.evaluate.recalibrate, and give its --workdir'
    )
  content = files.read_json(path)
  check_format(content, path)
  local = result.from_json(content, LocalCalibration, path)
  if local.parameters_sha256 != parameters_sha256:
    raise InputError(
      f'{path} was fitted to another model; run --mode=evaluate with '
      'config.evaluate.recalibrate on this one'
    )
  if not 0 < local.temperature < float('inf'):
    raise InputError(f'{path} is damaged: temperature={local.temperature}')
  return local
