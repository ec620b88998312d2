"""Images that a model of synthetic smears was not trained on, of six kinds.

Each function takes fields as they are rendered, uint8 (n, 224, 224, 3),
and returns a list of images of any size, as a laboratory might hand them in.
"""

import pathlib

import numpy as np
import skimage.color
import skimage.data
import sklearn.datasets
from PIL import Image
from scipy import ndimage
from skimage import measure

# Photographs that come with scikit-image.
_PHOTOGRAPHS = (
  'astronaut.png',
  'brick.png',
  'camera.png',
  'chelsea.png',
  'coffee.png',
  'coins.png',
  'grass.png',
  'gravel.png',
  'hubble_deep_field.jpg',
  'motorcycle_left.png',
  'retina.jpg',
  'rocket.jpg',
)
_CROPS = 8


def single_cells(
  fields: np.ndarray, masks: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
  """A white cell of each field alone, 1.6 of its diameters wide.

  Args:
    fields: the fields.
    masks: bool, shape (n, 224, 224): white cells.
    rng: chooses the cell.

  Returns:
    An image of each field that has a cell away from its border.
  """
  crops = []
  for field, mask in zip(fields, masks, strict=True):
    places = []
    for region in measure.regionprops(measure.label(mask)):
      top, left, bottom, right_edge = region.bbox
      side = max(bottom - top, right_edge - left)
      half = int(0.8 * side)
      y, x = (top + bottom) // 2, (left + right_edge) // 2
      inside = min(y, x, 224 - y, 224 - x) >= half
      if 14 <= side <= 40 and inside:
        places.append((y, x, half))
    if places:
      y, x, half = places[rng.integers(len(places))]
      crops.append(field[y - half : y + half, x - half : x + half])
  return crops


def other_stain(
  fields: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
  """Hues turned by a quarter to three quarters of the circle."""
  turned = []
  for field, turn in zip(
    fields, rng.uniform(0.25, 0.75, len(fields)), strict=True
  ):
    hsv = skimage.color.rgb2hsv(field)
    hsv[..., 0] = (hsv[..., 0] + turn) % 1
    turned.append(_uint8(255 * skimage.color.hsv2rgb(hsv)))
  return turned


def half_scale(
  fields: np.ndarray, rng: np.random.Generator
) -> list[np.ndarray]:
  """Four fields of one view, whose cells are half as wide in the image."""
  mixed = rng.permutation(len(fields))[: len(fields) // 4 * 4].reshape(-1, 4)
  return [
    np.vstack([np.hstack([*fields[own[:2]]]), np.hstack([*fields[own[2:]]])])
    for own in mixed
  ]


def defocused(fields: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
  """Blurred by 3 to 6 px."""
  blurs = rng.uniform(3, 6, len(fields))
  return [
    ndimage.gaussian_filter(field, (blur, blur, 0))
    for field, blur in zip(fields, blurs, strict=True)
  ]


def blank(fields: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
  """The light and noise of each field without a cell."""
  empty = []
  for field in fields:
    light = np.percentile(field, 90, (0, 1))
    noise = rng.normal(0, 2, field.shape)
    empty.append(_uint8(light[None, None] + noise))
  return empty


def photographs(rng: np.random.Generator) -> list[np.ndarray]:
  """Squares of the photographs in scikit-image and scikit-learn."""
  folder = pathlib.Path(skimage.data.__file__).parent
  paths = [folder / name for name in _PHOTOGRAPHS]
  paths += map(pathlib.Path, sklearn.datasets.load_sample_images().filenames)
  crops = []
  for path in paths:
    with Image.open(path) as photograph:
      pixels = np.asarray(photograph.convert('RGB'))
    for _ in range(_CROPS):
      side = int(min(pixels.shape[:2]) * rng.uniform(0.4, 1))
      y, x = (rng.integers(n - side + 1) for n in pixels.shape[:2])
      crops.append(pixels[y : y + side, x : x + side])
  return crops


def _uint8(values: np.ndarray) -> np.ndarray:
  return np.clip(np.round(values), 0, 255).astype(np.uint8)
