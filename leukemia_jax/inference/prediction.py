"""Images through models: in threads, and given out in their order."""

import functools
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from leukemia_jax import devices, files, parallel
from leukemia_jax.data import checked, decode, names
from leukemia_jax.inference import classifier, explain, segmenter
from leukemia_jax.inference.classifier import Answers, Classifier
from leukemia_jax.inference.inputs import Image
from leukemia_jax.inference.segmenter import Cell, Segmenter
from leukemia_jax.transforms.colour import Removal

# Batches that are under way, for each thread.
_AHEAD = 2
MASKS, INSTANCES, OVERLAYS = 'masks', 'instances', 'overlays'
EXPLANATIONS = 'explanations'


# An image by `Classifier.view`.
_Squares = dict[tuple[int, Removal], np.ndarray]


class Models(NamedTuple):
  """What images are given to.

  Attributes:
    classifiers: none, one, or an ensemble.
    segmenter: if there is one.
    decoding: how files are decoded.
    scale: factor on the size of images; see `decode.to_scale`.
    explains: whether pictures of where classifiers look are made.
  """

  classifiers: Sequence[Classifier]
  segmenter: Segmenter | None
  decoding: decode.Options
  scale: float
  explains: bool = False


class Predicted(NamedTuple):
  """What is said of an image.

  Attributes:
    path: of the image in its input.
    flaw: why it can't be read; '' if it can. Then the rest is known.
    answers: of classifiers, on this image alone; None without one.
    instances: of a segmenter, int32 of the image's own size, if it has no
      folder to write to.
    cells: of a segmenter; None without one.
    cell_share: share of the image that cells cover.
    is_multipage: see `decode.Decoded`.
    bits: see there.
    peak: see there.
  """

  path: str
  flaw: str = ''
  answers: Answers | None = None
  instances: np.ndarray | None = None
  cells: Sequence[Cell] | None = None
  cell_share: float = 0.0
  is_multipage: bool = False
  bits: int = 8
  peak: int = 0


def predict(
  models: Models,
  images: Iterable[Image],
  *,
  batch_size: int,
  folder: pathlib.Path | None = None,
) -> Iterator[Predicted]:
  """Predicts images.

  Args:
    models: what says something of them.
    images: of any number; they are read as they are needed.
    batch_size: images a step of a classifier, on a GPU.
    folder: where masks, instances, overlays and explanations go, each under the
      path of its image and .png; None for nowhere.

  Yields:
    What is said of each, in their order.
  """
  # A segmenter takes one image a step.
  cpu_batch = max((own.cpu_batch for own in models.classifiers), default=1)
  size, _ = devices.step_batching(batch_size, cpu_batch)
  # A thread decodes too, so there is one for each core.
  threads = parallel.cores()
  jobs = (
    functools.partial(_predict_batch, models, batch, size, folder)
    for batch in _batched(images, size)
  )
  # Alone, until one has compiled the steps: else each thread would.
  for job in jobs:
    batch = job()
    yield from batch
    if not all(own.flaw for own in batch):
      break
  for batch in parallel.in_order(jobs, threads, _AHEAD * threads):
    yield from batch


def compile_steps(models: Models, size: int) -> None:
  """Compiles steps for batches of a size, before there are images."""

  def black(own: Classifier | Segmenter, count: int) -> np.ndarray:
    side = max(own.image_size, round(own.image_size * models.scale))
    return np.zeros((count, side, side, 3), np.uint8)

  for own in models.classifiers:
    own.step(own.variables, black(own, size))
  if models.segmenter:
    models.segmenter.step(
      models.segmenter.variables, black(models.segmenter, 1)
    )
  # After all steps: what converts one for another runtime clears JAX' own.
  if models.explains:
    for own in models.classifiers:
      own.heat(own.variables, black(own, size), np.zeros(size, int))


def _batched(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
  iterator = iter(images)
  while batch := list(itertools.islice(iterator, size)):
    yield batch


def _predict_batch(
  models: Models,
  images: Sequence[Image],
  size: int,
  folder: pathlib.Path | None,
) -> list[Predicted]:
  """Predicts `size` images or less."""
  predicted: list[Predicted] = []
  # Places of those that can be read, and their pixels.
  readable, pixels = [], []
  for image in images:
    try:
      own, squares = _predict_one(models, image, folder)
      readable.append(len(predicted))
      pixels.append(squares)
    except decode.BadImageError as error:
      own = Predicted(image.path, str(error))
    except MemoryError as error:
      files.check_machine(error, image.path)
      raise
    predicted.append(own)
  if models.classifiers and pixels:
    answers = _answer(models.classifiers, pixels, size)
    if models.explains and folder:
      drawn = _draw_heat(models.classifiers, pixels, answers, size)
      for place, picture in zip(readable, drawn, strict=True):
        own = predicted[place]
        target = folder / EXPLANATIONS / f'{own.path}.png'
        try:
          files.write(target, checked.to_png(picture))
        except OSError as error:
          files.check_machine(error, target)
          flaw = f'its explanation cannot be written: {error.strerror}'
          predicted[place] = Predicted(own.path, flaw)
    for i, place in enumerate(readable):
      if predicted[place].flaw:
        continue
      own_answers = Answers(*(column[i : i + 1] for column in answers))
      predicted[place] = predicted[place]._replace(answers=own_answers)
  return predicted


def _predict_one(
  models: Models, image: Image, folder: pathlib.Path | None
) -> tuple[Predicted, _Squares]:
  """What needs an image as it is: its cells; and it at classifiers' sizes."""
  if way_out := names.foreign_format(image.path):
    raise decode.BadImageError(way_out)
  try:
    data = image.read()
  except decode.BadImageError:
    raise
  except Exception as error:
    files.check_machine(error, image.path)
    # zipfile and zlib raise many kinds on a damaged entry; OSError otherwise.
    raise decode.BadImageError(f'cannot be read: {error!r}') from None
  decoded = decode.decode(data, models.decoding)
  whole = decoded.image
  predicted = Predicted(
    image.path,
    is_multipage=decoded.is_multipage,
    bits=decoded.bits,
    peak=decoded.peak,
  )
  if models.segmenter:
    predicted = _find_cells(models, whole, predicted)
    assert predicted.instances is not None
    if folder:
      drawn = segmenter.overlay(whole, predicted.instances)
      _write_pictures(folder, image.path, predicted.instances, drawn)
      predicted = predicted._replace(instances=None)
  return predicted, _squares(models, whole)


def _find_cells(
  models: Models, whole: PIL.Image.Image, predicted: Predicted
) -> Predicted:
  """Adds what a segmenter says."""
  assert models.segmenter is not None
  instances = segmenter.separate(models.segmenter, whole, models.scale)
  return predicted._replace(
    instances=instances,
    cells=segmenter.measure(whole, instances),
    cell_share=float((instances > 0).mean()),
  )


def _squares(models: Models, whole: PIL.Image.Image) -> _Squares:
  """An image in each view that classifiers take."""
  return {
    (size, removal): decode.to_scale(whole, size, models.scale, removal=removal)
    for size, removal in {own.view for own in models.classifiers}
  }


def predict_decoded(
  models: Models, whole: PIL.Image.Image
) -> tuple[Predicted, np.ndarray | None]:
  """Predicts one image that is decoded already.

  Args:
    models: what says something of it.
    whole: the image, in mode RGB.

  Returns:
    What is said of it, and, if they explain and there is a classifier, a
    picture of where classifiers look, uint8 of shape (size, size, 3).

  Raises:
    BadImageError: the image is too long for its width to look for cells in.
  """
  predicted, picture = Predicted(''), None
  if models.segmenter:
    predicted = _find_cells(models, whole, predicted)
  if models.classifiers:
    pixels = [_squares(models, whole)]
    answers = _answer(models.classifiers, pixels, 1)
    predicted = predicted._replace(answers=answers)
    if models.explains:
      (picture,) = _draw_heat(models.classifiers, pixels, answers, 1)
  return predicted, picture


def _write_pictures(
  folder: pathlib.Path,
  path: str,
  instances: np.ndarray,
  overlay: PIL.Image.Image,
) -> None:
  mask = np.where(instances > 0, 255, 0).astype(np.uint8)
  pictures: dict[str, np.ndarray | PIL.Image.Image] = {
    MASKS: mask,
    INSTANCES: instances.astype(np.uint16),
    OVERLAYS: overlay,
  }
  try:
    for kind, picture in pictures.items():
      target = folder / kind / f'{path}.png'
      files.write(target, checked.to_png(np.asarray(picture)))
  except OSError as error:
    files.check_machine(error, folder)
    raise decode.BadImageError(
      f'its mask cannot be written: {error.strerror}'
    ) from None


def _batch_for(
  own: Classifier, pixels: Sequence[_Squares], size: int
) -> np.ndarray:
  """Images at a classifier's size, filled up to one shape for all batches."""
  batch = np.stack([image[own.view] for image in pixels])
  return np.resize(batch, (size, *batch.shape[1:]))


def _answer(
  classifiers: Sequence[Classifier],
  pixels: Sequence[_Squares],
  size: int,
) -> Answers:
  """What classifiers say of some images."""
  count = len(pixels)
  outputs = []
  for own in classifiers:
    batch = _batch_for(own, pixels, size)
    probabilities, features = own.step(own.variables, batch)
    said = np.asarray(probabilities)[:count], np.asarray(features)[:count]
    outputs.append(said)
  return classifier.answer(classifiers, outputs)


def _draw_heat(
  classifiers: Sequence[Classifier],
  pixels: Sequence[_Squares],
  answers: Answers,
  size: int,
) -> Iterator[np.ndarray]:
  """Draws where classifiers see the predicted class, on average."""
  labels = np.resize(answers.probabilities.argmax(1), size)
  heats = []
  for own in classifiers:
    batch = _batch_for(own, pixels, size)
    heats.append(np.asarray(own.heat(own.variables, batch, labels)))
  for i, squares in enumerate(pixels):
    image = squares[classifiers[0].view]
    own_heats = [
      np.asarray(PIL.Image.fromarray(heat[i]).resize(image.shape[1::-1]))
      for heat in heats
    ]
    yield explain.overlay(image, np.mean(own_heats, 0))
