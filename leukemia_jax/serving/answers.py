"""What the page is told of one image: a function of its bytes."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image
from skimage import segmentation

from leukemia_jax.data import checked, decode
from leukemia_jax.data.looks import Looks
from leukemia_jax.inference import prediction
from leukemia_jax.inference.prediction import Models, Predicted
from leukemia_jax.serving import edits as edits_module
from leukemia_jax.serving.edits import Edits

# Longer side of pictures on the page, px; masks are of the image's own size.
_LONGER = 1024
# Of what covers cells, and their outlines: RGB.
_COVER, _OUTLINE = (0, 160, 90), (0, 60, 30)


def answer(models: Models, data: bytes, edits: Edits) -> dict[str, Any]:
  """Predicts an image for the page.

  Args:
    models: what says something of it.
    data: the file's bytes.
    edits: what is done to it before.

  Returns:
    What JSON can hold; pictures as data URLs.

  Raises:
    BadImageError: it can't be read, or looked at.
  """
  decoded = decode.decode(data, models.decoding)
  looks = Looks(models.decoding.white_level)
  looks.add('this file', decoded)
  whole = edits_module.apply(edits, decoded.image)
  models = models._replace(scale=edits.scale)
  predicted, heat = prediction.predict_decoded(models, whole)
  said: dict[str, Any] = {
    'width': whole.width,
    'height': whole.height,
    'scale': edits.scale,
    'picture': _url(_to_jpeg(_reduced(whole)), 'jpeg'),
    'warnings': list(looks.warnings()),
  }
  if predicted.answers:
    answers = predicted.answers
    said['probabilities'] = answers.probabilities[0].tolist()
    said['entropy'] = float(answers.entropy[0])
    said['flags'] = answers.flags()[0].split(';')
  if heat is not None:
    said['heat'] = _url(checked.to_png(heat))
  if predicted.cells is not None:
    said |= _cells(predicted)
  return said


def _cells(predicted: Predicted) -> dict[str, Any]:
  """What is said of cells."""
  instances, cells = predicted.instances, predicted.cells
  assert instances is not None and cells is not None
  diameters = [cell.diameter for cell in cells]
  mask = np.where(instances > 0, 255, 0).astype(np.uint8)
  return {
    'cells': [list(cell) for cell in cells],
    'cell_share': predicted.cell_share,
    'median_diameter': float(np.median(diameters)) if diameters else 0.0,
    'layer': _url(checked.to_png(_layer(instances))),
    'mask': _url(checked.to_png(mask)),
    'instances': _url(checked.to_png(instances.astype(np.uint16))),
  }


def _layer(instances: np.ndarray) -> np.ndarray:
  """Cells in a colour, with outlines, on nothing: uint8 RGBA."""
  numbers = Image.fromarray(instances.astype(np.int32))
  small = np.asarray(_reduced(numbers, Image.Resampling.NEAREST))
  edges = segmentation.find_boundaries(small, mode='inner')
  layer = np.zeros((*small.shape, 4), np.uint8)
  layer[small > 0] = (*_COVER, 150)
  layer[edges & (small > 0)] = (*_OUTLINE, 255)
  return layer


def _reduced(
  image: Image.Image, how: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
  """An image as the page shows it."""
  factor = min(1.0, _LONGER / max(image.size))
  width, height = (max(1, round(side * factor)) for side in image.size)
  return image.resize((width, height), how)


def _to_jpeg(image: Image.Image) -> bytes:
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=90)
  return stream.getvalue()


def _url(content: bytes, kind: str = 'png') -> str:
  return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
