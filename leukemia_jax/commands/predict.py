"""--mode=predict: what trained models say of images without labels."""

import itertools
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
from ml_collections import ConfigDict

from leukemia_jax import build, devices, progress
from leukemia_jax.config_check import override
from leukemia_jax.data import decode
from leukemia_jax.data.looks import Looks
from leukemia_jax.errors import InputError
from leukemia_jax.inference import (
  classifier,
  inputs,
  loading,
  prediction,
  scale,
)
from leukemia_jax.inference.classifier import Answers
from leukemia_jax.inference.inputs import Image
from leukemia_jax.inference.loading import Loaded
from leukemia_jax.inference.prediction import Models, Predicted
from leukemia_jax.inference.segmenter import Cell
from leukemia_jax.lock import lock_folder, lock_run
from leukemia_jax.reporting import predictions_page
from leukemia_jax.workdir import claim, outputs, saved
from leukemia_jax.workdir.outputs import Outputs, Progress
from leukemia_jax.workdir.saved import Trained

# Images between two commits of what was written.
_COMMIT = 256
# Images that say how large cells are: at most, and to be believed.
_MEASURED, _ENOUGH = 32, 8


def run(
  overrides: dict[str, Any],
  workdir: pathlib.Path,
  run_folders: Sequence[pathlib.Path],
  source: str,
  shard: tuple[int, int],
  calibration: pathlib.Path | None = None,
  explains: bool = False,
  runtime: str = loading.JAX,
) -> None:
  """Predicts images, and says which of its answers not to believe.

  Args:
    overrides: values by config key; only keys that leave the models as they are
      are taken.
    workdir: where everything goes; a command that was cut off goes on there.
    run_folders: workdirs of the training runs; the answers of several
      classifiers are averaged.
    source: an image, a folder or a .zip.
    shard: (i, n): every n-th image of it from the i-th on.
    calibration: workdir of an evaluation that fitted a temperature.
    explains: whether pictures of where classifiers look are written.
    runtime: that networks run in; see `loading.load`.

  Raises:
    InputError: something can't be used.
    SystemExit: some images can't be read; the others are done.
  """
  path = inputs.check(source)
  _check_place(workdir, path)
  trained = [saved.load_trained(folder) for folder in run_folders]
  _check_explains(explains, trained)
  config = override(trained[0].config, overrides, 'predict')
  options = inputs.Options(config.data.max_bytes, config.data.follow_links)
  total, every_name = _count(path, options)
  named = {
    'models': [own.result.parameters_sha256 for own in trained],
    'input': str(path.resolve()),
    'shards': shard[1],
    'explain': explains,
    'calibration': str(calibration.resolve()) if calibration else '',
    **_named_runtime(runtime),
    # A shard can't know what another one left to it.
    **({'images': every_name} if shard[1] > 1 else {}),
  }
  claim.check(workdir, 'predict', config, **named)
  some = inputs.images(path, options, (0, -(-total // _MEASURED)))
  loaded = loading.load(
    trained, run_folders, config, calibration, runtime, overrides
  )
  if runtime != loading.JAX:
    print('networks are converted first, which may take a minute', flush=True)
  factor = _scale(config.predict.scale, workdir, some, loaded)
  models = loaded.models._replace(scale=factor, explains=explains)
  with lock_run(workdir, _suffix(shard)):
    # Shards may start at once.
    with lock_folder(workdir):
      claim.claim(workdir, 'predict', config, **named)
    job = _Job(config, workdir, path, options, shard)
    state, tables = _predict(job, models, -(-(total - shard[0]) // shard[1]))
    run_names = [folder.name for folder in run_folders]
    page = _write_page(job, models, run_names, state, tables)
  print(f'{state.items - state.flawed} images predicted; see {page}')
  if state.flawed:
    print(
      f'error: {state.flawed} of {state.items} images cannot be read: see '
      f'{workdir / tables.flaws}',
      file=sys.stderr,
    )
    sys.exit(1)


def _check_place(workdir: pathlib.Path, path: pathlib.Path) -> None:
  if path.is_dir() and workdir.resolve().is_relative_to(path.resolve()):
    raise InputError(
      f'--workdir={workdir} lies in --input={path}; give a folder outside the '
      'images'
    )


def _count(path: pathlib.Path, options: inputs.Options) -> tuple[int, str]:
  """How many images the input holds, and what says which these are."""
  total, every_name = 0, ''
  for image in inputs.images(path, options):
    total, every_name = total + 1, outputs.with_name(every_name, image.path)
  if not total:
    raise InputError(f'--input={path}: no image lies there')
  return total, f'{total}, hash of names {every_name[:16]}'


def _check_explains(explains: bool, trained: Sequence[Trained]) -> None:
  tasks = [own.result.task for own in trained]
  if explains and 'classification' not in tasks:
    raise InputError('--explain needs a classifier among --checkpoint')


def _named_runtime(runtime: str) -> dict[str, str]:
  """What says how answers are rounded; folders of 0.5.0 say nothing."""
  if runtime == loading.JAX:
    return {}
  return {'runtime': f'{runtime}, {devices.fast_dtype()}'}


class _Job(NamedTuple):
  """What a command works on.

  Attributes:
    config: of the command.
    workdir: of the command.
    path: of the input.
    options: what may be opened of it.
    shard: which images of it.
  """

  config: ConfigDict
  workdir: pathlib.Path
  path: pathlib.Path
  options: inputs.Options
  shard: tuple[int, int]

  def images(self) -> Iterator[Image]:
    """The images of the shard."""
    return inputs.images(self.path, self.options, self.shard)


def _suffix(shard: tuple[int, int]) -> str:
  """What names of a shard's files have more; '' if it is the only one."""
  index, count = shard
  return f'-{index}-of-{count}' if count > 1 else ''


def _journal(suffix: str) -> str:
  return f'progress{suffix}.json'


def _scale(
  asked: str, workdir: pathlib.Path, images: Iterator[Image], loaded: Loaded
) -> float:
  """The factor on the size of images that the config names, or measured."""
  if asked != 'auto':
    return float(asked)
  # Images may have come since: those that are left are scaled as the first.
  known = outputs.known_scale(workdir.glob(_journal('*')))
  if known is not None:
    return known
  measured = scale.measure(images, loaded.reference)
  if not measured.is_known:
    print(
      'warning: these images do not tell how large cells are, having another '
      'stain or other cells than the training images, or those of one class '
      'alone; they are not scaled (config.predict.scale=auto)'
    )
  elif measured.scale != 1 and measured.images < _ENOUGH:
    print(
      f'warning: cells may be {1 / measured.scale:.2g} times as large as in '
      f'training, by {measured.images} images, too few to be sure: they are '
      f'not scaled. If they are, give config.predict.scale={measured.scale:.2g}'
    )
    return 1.0
  elif measured.scale != 1:
    print(
      f'cells are {1 / measured.scale:.2g} times as large as in training, by '
      f'{measured.images} images: all are scaled by {measured.scale:.2g} '
      '(config.predict.scale=auto)'
    )
  return measured.scale


class _Tables(NamedTuple):
  """Names of what a shard writes; '' for what it doesn't."""

  flaws: str
  classes: str
  cells: str
  counts: str

  def headers(self, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Columns by name."""
    shares = [f'p_{name}' for name in class_names]
    columns = {
      self.flaws: ['path', 'reason'],
      self.classes: ['path', 'predicted_class', *shares, 'entropy', 'flags'],
      self.cells: ['path', *Cell._fields],
      self.counts: ['path', 'cells', 'cell_share', 'median_diameter'],
    }
    return {name: header for name, header in columns.items() if name}


def _predict(job: _Job, models: Models, total: int) -> tuple[Progress, _Tables]:
  """Predicts what is left to do, and writes it."""
  suffix = _suffix(job.shard)
  class_names = models.classifiers[0].class_names if models.classifiers else ()
  tables = _Tables(
    f'unreadable{suffix}.csv',
    f'predictions{suffix}.csv' if models.classifiers else '',
    f'cells{suffix}.csv' if models.segmenter else '',
    f'counts{suffix}.csv' if models.segmenter else '',
  )
  headers = tables.headers(class_names)
  with outputs.opened(job.workdir, _journal(suffix), headers) as files:
    done = files.progress.items
    if done:
      print(
        f'{done} of {total} images are done already, by their names: to '
        'predict what has changed since, give another --workdir'
      )
    predicted = prediction.predict(
      models,
      _left(files.progress, job),
      batch_size=build.images_at_once(job.config.train),
      folder=job.workdir,
    )
    tracked = progress.track(predicted, 'Predicting', total - done)
    state = _write(files, tracked, tables, class_names, models)
    return state, tables


def _write_page(
  job: _Job,
  models: Models,
  run_names: Sequence[str],
  state: Progress,
  tables: _Tables,
) -> pathlib.Path:
  """Writes the page of what was predicted."""
  own = job.config.predict
  summary = predictions_page.Summary(
    source=job.path.name,
    images=state.items - state.flawed,
    unreadable=state.flawed,
    models=run_names,
    scale=models.scale,
    false_alarms=own.false_alarms,
    coverage=own.coverage,
    sheet=own.sheet,
    ok=classifier.OK,
  )
  # The sheet's images are among these.
  first = itertools.islice(job.images(), own.sheet + state.flawed)
  reads = {image.path: image.read for image in first}

  def picture(name: str) -> PIL.Image.Image:
    if models.segmenter:
      return PIL.Image.open(job.workdir / prediction.OVERLAYS / f'{name}.png')
    return decode.decode(reads[name](), models.decoding).image

  shows_images = job.config.report.include_images != 'no'
  return predictions_page.write(
    job.workdir,
    f'predictions{_suffix(job.shard)}',
    summary,
    predictions_page.Tables(
      job.workdir / tables.classes if tables.classes else None,
      job.workdir / tables.counts if tables.counts else None,
      job.workdir / tables.cells if tables.cells else None,
    ),
    picture if shows_images else None,
  )


def _left(state: Progress, job: _Job) -> Iterator[Image]:
  """The images that are not done."""
  images, last, names = job.images(), '', ''
  for _ in range(state.items):
    image = next(images, None)
    last = image.path if image else ''
    names = outputs.with_name(names, last)
  if last != state.last or (state.names and names != state.names):
    raise InputError(
      f'--input={job.path} holds other images than when this began; give '
      'another --workdir'
    )
  return images


def _write(
  files: Outputs,
  predicted: Iterator[Predicted],
  tables: _Tables,
  class_names: Sequence[str],
  models: Models,
) -> Progress:
  """Writes what is said of images, as it comes."""
  state, looks = files.progress, Looks(models.decoding.white_level)
  for own in predicted:
    looks.add(own.path, own)
    if own.flaw:
      print(progress.printable(f'{own.path}: {own.flaw}'), file=sys.stderr)
      files.append(tables.flaws, [[own.path, own.flaw]])
    if own.answers:
      row = _answer_row(own.answers, class_names)
      files.append(tables.classes, [[own.path, *row]])
    if own.cells is not None:
      files.append(tables.cells, [[own.path, *_short(c)] for c in own.cells])
      diameters = [cell.diameter for cell in own.cells]
      counted = [own.cell_share, np.median(diameters) if diameters else 0.0]
      row = [str(len(own.cells)), *_short(counted)]
      files.append(tables.counts, [[own.path, *row]])
    flawed = state.flawed + bool(own.flaw)
    # An older journal has none, and none is begun halfway.
    names = ''
    if state.names or not state.items:
      names = outputs.with_name(state.names, own.path)
    state = Progress(state.items + 1, own.path, flawed, models.scale, names)
    if state.items % _COMMIT == 0:
      files.commit(state)
  files.commit(state)
  for warning in looks.warnings():
    print(progress.printable(f'warning: {warning}'))
  return state


def _answer_row(answers: Answers, class_names: Sequence[str]) -> list[str]:
  """What predictions.csv says of an image."""
  shares = answers.probabilities[0]
  return [
    class_names[int(shares.argmax())],
    *_short([*shares, answers.entropy[0]]),
    answers.flags()[0],
  ]


def _short(values: Iterable[float]) -> list[str]:
  return [str(v) if isinstance(v, int) else f'{v:.6g}' for v in values]
