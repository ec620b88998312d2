"""Leukemia classification and segmentation from blood smears, in JAX.

    import leukemia_jax
    model = leukemia_jax.load('runs/first')
    table = model.predict(['a.jpg', 'b.png'])

Research software; not a medical device.
"""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from leukemia_jax.inference.model import Model
  from leukemia_jax.workdir.records import Result

__version__ = '0.6.0.dev0'
__all__ = ['load', 'train']

# In a checkout `leukemia_jax.configs` is the folder beside the package.
_CHECKOUT = pathlib.Path(__file__).parents[1]
if (_CHECKOUT / 'configs/default.py').is_file():
  __path__.append(str(_CHECKOUT))


def load(*workdirs: str | pathlib.Path, runtime: str = 'jax') -> 'Model':
  """Loads trained models.

  Args:
    *workdirs: of finished training runs: a classifier, several of the same
      classes, whose probabilities are averaged, and one segmenter at most.
    runtime: what networks run in: 'jax', or 'openvino', an extra that is faster
      on many processors.

  Returns:
    The model.

  Raises:
    InputError: a run is not there, not finished, or damaged, or the runtime is
      not known or not installed.
  """
  from leukemia_jax import files
  from leukemia_jax.errors import InputError
  from leukemia_jax.inference import loading, model
  from leukemia_jax.workdir import saved

  if not workdirs:
    raise InputError('give the workdir of a training run, or of several')
  folders = [files.expand(workdir) for workdir in workdirs]
  trained = [saved.load_trained(folder) for folder in folders]
  config = trained[0].config
  return model.Model(loading.load(trained, folders, config, runtime=runtime))


def train(config: 'ConfigDict', workdir: str | pathlib.Path) -> 'Result':
  """Trains a model, or goes on where a run was cut off.

  Args:
    config: as of `leukemia_jax.configs.default.get_config()`.
    workdir: where everything goes.

  Returns:
    What result.json holds.

  Raises:
    InputError: the config, the images or the workdir can't be used.
  """
  from leukemia_jax import files
  from leukemia_jax.commands import train
  from leukemia_jax.config_check import check_config, check_mode, check_paths
  from leukemia_jax.workdir import result

  folder = files.expand(workdir)
  check_paths(config, folder)
  check_config(config)
  check_mode(config, 'train')
  train.run(config, folder)
  return result.read(folder)
