"""A trained segmenter, and the cells that it finds in images of any size."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from leukemia_jax import build, models
from leukemia_jax.data import decode
from leukemia_jax.errors import InputError
from leukemia_jax.metrics import magnification, objects
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.preprocess import preprocess
from leukemia_jax.workdir.saved import Trained

# Squares that a long image is cut into overlap by this share of their side.
_OVERLAP = 0.25
_MOST_SQUARES = 64
# Longer side of an overlay, px.
_OVERLAY = 1024
_OUTLINE = (0, 120, 60)


class Segmenter(NamedTuple):
  """A trained segmenter at work.

  Attributes:
    image_size: side of the images that it takes, px.
    variables: its weights, kernels rounded to what it computes in.
    step: maps (variables, uint8 images) to the probability of cells, float32
      (batch, height, width); compiled.
    threshold: probability above which a pixel is predicted a cell.
    smallest: diameter of the smallest cell, as a share of the shorter side of
      a training image.
  """

  image_size: int
  variables: Any
  step: Callable[[Any, Any], jax.Array]
  threshold: float
  smallest: float


def make(
  trained: Trained,
  workdir: pathlib.Path,
  compile_network: Callable[..., Any] = jax.jit,
) -> Segmenter:
  """Makes a segmenter of a finished run.

  Args:
    trained: the run.
    workdir: of the run.
    compile_network: see `classifier.make`.

  Returns:
    The segmenter.

  Raises:
    InputError: the run's result says no threshold.
  """
  config, finished = trained.config, trained.result
  if finished.threshold is None:
    raise InputError(f'{workdir}: its result.json has no threshold')
  removal = build.removal(config.data)
  model = build.create_model(config, finished.model.num_outputs)
  kind = config.model.preprocess

  @compile_network
  def network(variables: Any, images: jax.Array) -> tuple[jax.Array]:
    logits, _ = model.apply(variables, preprocess(images, kind), train=False)
    return (jax.nn.sigmoid(logits[..., 0]),)

  def step(variables: Any, images: Any) -> jax.Array:
    (probabilities,) = network(
      variables, colour.remove_all(images, None, removal)
    )
    return probabilities

  return Segmenter(
    config.data.image_size,
    models.with_rounded_kernels(model, trained.variables),
    step,
    finished.threshold,
    config.data.smallest_cell,
  )


def squares(width: int, height: int) -> list[tuple[int, int, int, int]]:
  """Squares that cover an image, each as wide as its shorter side.

  Args:
    width: of the image, px.
    height: of the image, px.

  Returns:
    (left, top, right, bottom) of each, spread evenly along the longer side.

  Raises:
    BadImageError: the image is too long for its width.
  """
  side, length = sorted((width, height))
  count = 1 + int(np.ceil((length / side - 1) / (1 - _OVERLAP)))
  if count > _MOST_SQUARES:
    raise decode.BadImageError(
      f'{width} x {height} px is too narrow to look for cells in'
    )
  starts = np.round(np.linspace(0, length - side, count)).astype(int).tolist()
  if width >= height:
    return [(at, 0, at + side, side) for at in starts]
  return [(0, at, side, at + side) for at in starts]


def probability(
  segmenter: Segmenter, image: Image.Image, scale: float
) -> np.ndarray:
  """How likely each pixel of an image shows a white cell.

  Args:
    segmenter: the model.
    image: in mode RGB, of any size.
    scale: factor on its size; see `decode.to_scale`.

  Returns:
    float32, shape (height, width). Each square is scaled as in training; where
    squares overlap they are blended.

  Raises:
    BadImageError: the image is too long for its width.
  """
  width, height = image.size
  total = np.zeros((height, width), np.float32)
  share = np.zeros((height, width), np.float32)
  for box in squares(width, height):
    left, top, right, bottom = box
    side = right - left
    size = segmenter.image_size
    pixels = decode.to_scale(image.crop(box), size, scale)
    own = np.asarray(segmenter.step(segmenter.variables, pixels[None]))[0]
    inner = max(1, round(size * scale))
    # What was mirrored around it goes.
    at = (len(own) - inner) // 2
    own = own[at : at + inner, at : at + inner]
    scaled = Image.fromarray(own).resize(
      (side, side), Image.Resampling.BILINEAR
    )
    # Most where the square's middle is, along the way that squares follow.
    ramp = np.minimum(np.arange(side) + 1, side - np.arange(side))
    weight = np.broadcast_to(ramp, (side, side)).astype(np.float32)
    if height > width:
      weight = weight.T
    total[top:bottom, left:right] += np.asarray(scaled) * weight
    share[top:bottom, left:right] += weight
  return total / share


class Cell(NamedTuple):
  """A white cell; lengths in px of the image itself.

  Attributes:
    number: its value in the image of instances, from 1.
    x: of its centre, from the left.
    y: of its centre, from the top.
    area: px.
    diameter: of a disc of that area.
    roundness: 4 pi area / perimeter^2, 1 for a disc, by Crofton's perimeter.
    red: mean of the channel, 0..255; likewise the next two.
    nucleus: share of the cell whose optical density is that of nuclei, by
      Otsu's threshold over the image's cells.
  """

  number: int
  x: float
  y: float
  area: int
  diameter: float
  roundness: float
  red: float
  green: float
  blue: float
  nucleus: float


def separate(
  segmenter: Segmenter, image: Image.Image, scale: float
) -> np.ndarray:
  """The cells of an image.

  Args:
    segmenter: the model.
    image: in mode RGB, of any size.
    scale: factor on its size; see `decode.to_scale`.

  Returns:
    int32, shape (height, width): 0 for background, cells from 1 on.

  Raises:
    BadImageError: the image is too long for its width.
  """
  mask = probability(segmenter, image, scale) > segmenter.threshold
  smallest = segmenter.smallest * min(image.size) / scale
  return objects.separate_cells(mask, smallest=smallest)


def measure(image: Image.Image, instances: np.ndarray) -> list[Cell]:
  """Measures cells.

  Args:
    image: in mode RGB.
    instances: int, shape (height, width), from `separate`.

  Returns:
    The cells, by number.
  """
  from skimage import filters, measure

  if not instances.any():
    return []
  pixels = np.asarray(image)
  density = magnification.density(pixels)
  inside = density[instances > 0]
  level = filters.threshold_otsu(inside) if np.ptp(inside) > 0 else np.inf
  cells = []
  for own in measure.regionprops(instances):
    members = tuple(own.coords.T)
    y, x = own.centroid
    perimeter = max(own.perimeter_crofton, 1.0)
    red, green, blue = pixels[members].mean(0)
    cells.append(
      Cell(
        number=int(own.label),
        x=x,
        y=y,
        area=int(own.area),
        diameter=own.equivalent_diameter_area,
        roundness=min(1.0, 4 * np.pi * own.area / perimeter**2),
        red=red,
        green=green,
        blue=blue,
        nucleus=float((density[members] > level).mean()),
      )
    )
  return cells


def overlay(image: Image.Image, instances: np.ndarray) -> Image.Image:
  """An image with the outlines of its cells, at most 1,024 px wide or high."""
  from skimage import segmentation

  factor = min(1.0, _OVERLAY / max(image.size))
  width, height = (max(1, round(side * factor)) for side in image.size)
  size = width, height
  small = np.array(image.resize(size, Image.Resampling.BILINEAR))
  numbers = Image.fromarray(instances.astype(np.int32)).resize(
    size, Image.Resampling.NEAREST
  )
  edges = segmentation.find_boundaries(np.asarray(numbers), mode='outer')
  small[edges] = _OUTLINE
  return Image.fromarray(small)
