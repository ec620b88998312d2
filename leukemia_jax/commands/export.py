"""--mode=export: a trained model as files for other programs, and archives."""

import datetime
import hashlib
import importlib.util
import pathlib
from typing import Any

import jax

from leukemia_jax import build, files, models
from leukemia_jax.config_check import override
from leukemia_jax.inference import exported, loading
from leukemia_jax.inference.exported import Check, Portable
from leukemia_jax.inference.prediction import Models
from leukemia_jax.lock import lock_run
from leukemia_jax.pretrained import keras_weights, safetensors_files
from leukemia_jax.reporting import pages
from leukemia_jax.workdir import claim, description, result, saved
from leukemia_jax.workdir.description import (
  Architecture,
  Description,
  ExportedFile,
)
from leukemia_jax.workdir.saved import Trained

STABLEHLO, ONNX = 'model.stablehlo', 'model.onnx'
KERAS = 'model.weights.h5'
# What makes and runs ONNX.
_CONVERTERS = ('jax2onnx', 'onnxruntime')
# JAX reads what it wrote for six months.
_READABLE = datetime.timedelta(days=182)


def run(
  overrides: dict[str, Any],
  workdir: pathlib.Path,
  run_folder: pathlib.Path,
  calibration: pathlib.Path | None = None,
) -> None:
  """Writes a trained model for other programs.

  Args:
    overrides: values by config key; those of a prediction are taken.
    workdir: where everything goes.
    run_folder: workdir of the training run.
    calibration: workdir of an evaluation that fitted a temperature.

  Raises:
    InputError: something can't be used, or a file differs from the model.
  """
  trained = saved.load_trained(run_folder)
  config = override(trained.config, overrides, 'export')
  named = {
    'model': trained.result.parameters_sha256,
    'calibration': str(calibration.resolve()) if calibration else '',
  }
  claim.check(workdir, 'export', config, **named)
  loaded = loading.load([trained], [run_folder], config, calibration)
  with lock_run(workdir):
    claim.claim(workdir, 'export', config, **named)
    portable = _portable(loaded.models)
    written = {}
    for name, (content, check) in _programs(portable).items():
      files.write(workdir / name, content)
      written[name] = _digest(content, *check)
    written |= _write_weights(workdir, trained)
    # Of an earlier export, which model.json would not name.
    if ONNX not in written:
      (workdir / ONNX).unlink(missing_ok=True)
    own = _describe(trained, run_folder, loaded.models, portable, written)
    description.write(workdir, own)
  for name, said in written.items():
    print(f'{name}: {_in_words(said)}')
  print(f'the model itself: {own.images_per_second:.1f} images/s')
  print(f'What they are is in {workdir / description.NAME}. {own.statement}')


def _portable(own: Models) -> Portable:
  """The one model as a function of images."""
  if own.segmenter:
    return exported.of_segmenter(own.segmenter)
  return exported.of_classifier(own.classifiers[0])


def _programs(portable: Portable) -> dict[str, tuple[bytes, Check]]:
  """What can be run, once it answers what the model does; nothing is written.

  An ONNX that can't be made is said, and left out.
  """
  content = exported.to_stablehlo(portable)
  stored = exported.run_stablehlo(content)
  programs = {STABLEHLO: (content, exported.check(stored, portable, STABLEHLO))}
  if not all(map(importlib.util.find_spec, _CONVERTERS)):
    print(f"{ONNX} is not written: pip install 'leukemia_jax[onnx]'")
    return programs
  try:
    content = exported.to_onnx(portable)
    stored = exported.run_onnx(content)
  except Exception as error:
    # The converter raises many kinds on what it doesn't know.
    print(f'warning: {ONNX} cannot be made: {type(error).__name__}: {error}')
    return programs
  programs[ONNX] = content, exported.check(stored, portable, ONNX)
  return programs


def _digest(content: bytes, *check: float) -> ExportedFile:
  return ExportedFile(hashlib.sha256(content).hexdigest(), *check)


def _write_weights(
  workdir: pathlib.Path, trained: Trained
) -> dict[str, ExportedFile]:
  """Writes weights alone, for archives.

  For Keras there are no heads like ours, nor a U-Net with batch norms.
  """
  config, variables = trained.config.model, trained.variables
  content = safetensors_files.to_bytes(variables)
  files.write(workdir / description.WEIGHTS, content)
  written = {description.WEIGHTS: _digest(content)}
  if config.batch_norm:
    print(f"{KERAS} is not written: Keras' U-Net has no batch norms")
    return written
  if config.name in models.BACKBONES:
    variables = {
      collection: {'backbone': tree['backbone']}
      for collection, tree in variables.items()
    }
  fields = build.backbone_fields(config)
  # Weights don't depend on them.
  for name in ('dtype', 'momentum', 'remat'):
    fields.pop(name, None)
  path = workdir / KERAS
  keras_weights.export_weights(variables, path, config.name, **fields)
  return written | {KERAS: _digest(path.read_bytes())}


def _describe(
  trained: Trained,
  run_folder: pathlib.Path,
  own: Models,
  portable: Portable,
  written: dict[str, ExportedFile],
) -> Description:
  """What model.json says."""
  config, finished = trained.config.model, trained.result
  classifier = own.classifiers[0] if own.classifiers else None
  today = datetime.date.today()
  return Description(
    statement=pages.NOT_A_DEVICE,
    task=finished.task,
    run=run_folder.name,
    parameters_sha256=finished.parameters_sha256,
    architecture=Architecture(
      config.name,
      config.width,
      list(config.blocks),
      config.depth,
      config.batch_norm,
      config.momentum,
      config.preprocess,
    ),
    classes=list(classifier.class_names) if classifier else [],
    image_size=portable.size,
    scale=trained.config.data.scale,
    input=f'{exported.INPUT}: uint8 (batch, {portable.size}, {portable.size}, '
    '3), RGB',
    outputs=portable.outputs,
    temperature=classifier and classifier.temperature,
    least_probability=classifier and classifier.least,
    threshold=own.segmenter and own.segmenter.threshold,
    files=written,
    images_per_second=exported.images_per_second(
      jax.jit(portable.function), exported.smears(portable.size)
    ),
    platforms=list(exported.PLATFORMS),
    written=today.isoformat(),
    readable_until=(today + _READABLE).isoformat(),
    versions=result.environment().versions,
  )


def _in_words(file: ExportedFile) -> str:
  if file.largest_difference is None:
    return 'weights'
  return (
    f'answers what the model does, to {file.largest_difference:.1g}; '
    f'{file.images_per_second:.1f} images/s'
  )
