"""The study's grid: backbones x loading options x rates x dropouts."""

import itertools
from typing import NamedTuple

from ml_collections import ConfigDict

from leukemia_jax.config_check import check_config, check_size
from leukemia_jax.training import initial_weights

# The axes of the grid, in `config.study`.
AXES = ('models', 'options', 'learning_rates', 'dropout_rates')


class Row(NamedTuple):
  """One experiment of the grid."""

  number: int
  model: str
  option: int
  learning_rate: float
  dropout_rate: float


def grid(study: ConfigDict) -> list[Row]:
  """All rows of a study, numbered in the order of the study's tables.

  Args:
    study: `config.study`.

  Returns:
    The rows, from number 0 on.
  """
  axes = [study[axis] for axis in AXES]
  return [Row(i, *row) for i, row in enumerate(itertools.product(*axes))]


def model_config(config: ConfigDict, name: str) -> ConfigDict:
  """The experiment of one backbone of a study.

  Args:
    config: the study.
    name: the backbone's.

  Returns:
    A config for a frozen backbone of that name, with the fields of its section
    of `config.study`, or of the run that its weights are from.

  Raises:
    InputError: a value can't be; named as the user gave it.
  """
  config = ConfigDict(config.to_dict())
  config.model.name = name
  config.model.update(config.study[name])
  config.train.freeze_backbone = True
  prefix = f'config.study.{name}'
  config = initial_weights.match_source_run(config)
  config = initial_weights.resolve_auto(config, prefix=prefix)
  check_config(config, prefix)
  check_size(config)
  return config
