"""Finished runs as models at work."""

import copy
import functools
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from leukemia_jax import build, devices, models
from leukemia_jax.data import decode
from leukemia_jax.errors import InputError
from leukemia_jax.inference import classifier, openvino_runtime, segmenter
from leukemia_jax.inference.prediction import Models
from leukemia_jax.inference.scale import Reference
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.workdir import RESULT
from leukemia_jax.workdir.saved import Trained

# What networks run in.
JAX, OPENVINO = 'jax', 'openvino'


class Loaded(NamedTuple):
  """Models, and what is known of the images that they were trained on.

  Attributes:
    models: at work, at a scale of 1.
    reference: how large what the training images show is.
    batch_size: images a step, on a GPU.
  """

  models: Models
  reference: Reference
  batch_size: int


def load(
  trained: Sequence[Trained],
  run_folders: Sequence[pathlib.Path],
  config: ConfigDict,
  calibration: pathlib.Path | None = None,
  runtime: str = JAX,
  named: Collection[str] = (),
) -> Loaded:
  """Puts finished runs to work.

  Args:
    trained: of classifiers of the same classes, and one segmenter at most.
    run_folders: their workdirs.
    config: that of the first, with what a prediction changes.
    calibration: workdir of an evaluation that fitted a temperature for the one
      classifier.
    runtime: that networks run in: `JAX`, or `OPENVINO`, which computes in
      `devices.fast_dtype()`, whatever a run's dtype; explanations are JAX'.
    named: keys of the config that the command names, for all runs.

  Returns:
    The models.

  Raises:
    InputError: they can't work together, a file of a run is damaged, or the
      runtime isn't known or isn't installed.
  """
  if runtime not in (JAX, OPENVINO):
    raise InputError(f'runtime={runtime!r} must be {JAX!r} or {OPENVINO!r}')
  compile_network: Callable[..., Any] = jax.jit
  if runtime == OPENVINO:
    compile_network = functools.partial(
      openvino_runtime.compile_network, dtype=devices.fast_dtype()
    )
    trained = [_in_float32(own) for own in trained]
  _check_decoding(trained, run_folders, named)
  rates = Rates(config.predict.false_alarms, config.predict.coverage)
  classifiers, segmenters, names = [], [], []
  for own, folder in zip(trained, run_folders, strict=True):
    if own.config.model.name in models.UNETS:
      segmenters.append(segmenter.make(own, folder, compile_network))
    else:
      classifiers.append(
        classifier.make(own, folder, rates, calibration, compile_network)
      )
      names.append(str(folder))
  if len(segmenters) > 1:
    raise InputError('--checkpoint names several segmenters: give one')
  if calibration and len(classifiers) != 1:
    raise InputError('--calibration is of one classifier: give it alone')
  classifier.check_alike(classifiers, names)
  if runtime == OPENVINO:
    classifiers = [
      own._replace(cpu_batch=openvino_runtime.BATCH) for own in classifiers
    ]
  only = segmenters[0] if segmenters else None
  decoding = build.decoding(config.data)
  return Loaded(
    Models(classifiers, only, decoding, scale=1.0),
    _reference(trained[0], run_folders[0], decoding),
    build.images_at_once(config.train),
  )


def _check_decoding(
  trained: Sequence[Trained],
  run_folders: Sequence[pathlib.Path],
  named: Collection[str],
) -> None:
  """Refuses runs that learnt from files which were decoded differently."""
  first = trained[0].config.data
  for own, folder in zip(trained, run_folders, strict=True):
    for key in ('turn_by_exif', 'white_level'):
      if own.config.data[key] != first[key] and f'data.{key}' not in named:
        raise InputError(
          f'--checkpoint: {run_folders[0]} was trained with config.data.{key}='
          f'{first[key]}, {folder} with {own.config.data[key]}: predict with '
          f'each alone, or give --config.data.{key} for all'
        )


def _in_float32(trained: Trained) -> Trained:
  config = copy.deepcopy(trained.config)
  config.model.dtype = 'float32'
  return trained._replace(config=config)


def _reference(
  trained: Trained, folder: pathlib.Path, decoding: decode.Options
) -> Reference:
  spectrum = trained.result.data.spectrum
  if spectrum is None:
    raise InputError(f'{folder / RESULT} is damaged: no data.spectrum')
  data = trained.config.data
  return Reference(spectrum, data.image_size, build.removal(data), decoding)
