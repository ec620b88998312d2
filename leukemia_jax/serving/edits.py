"""What a person may do to an image on the page before it is predicted."""

from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

# Factors on an image's size; steps are compiled for each that is asked for.
SCALES = (0.25, 0.35, 0.5, 0.71, 1.0, 1.41, 2.0)


class Edits(NamedTuple):
  """Edits, in the order in which they are made.

  Attributes:
    rotation: degrees counter-clockwise, -180 to 180.
    mirror: 1 where left and right change places; else 0.
    flip: 1 where top and bottom change places; else 0.
    brightness: factor on values, 0.25 to 4.
    contrast: factor on differences to the mean grey, 0.25 to 4.
    scale: one of `SCALES`; see `decode.to_scale`.
  """

  rotation: float = 0.0
  mirror: float = 0.0
  flip: float = 0.0
  brightness: float = 1.0
  contrast: float = 1.0
  scale: float = 1.0


def parse(query: Mapping[str, str], scale: float) -> Edits:
  """Edits as a request names them.

  Args:
    query: texts by name of a field of `Edits`; what is absent isn't changed.
    scale: that holds if none is asked for.

  Returns:
    The edits.

  Raises:
    ValueError: names the field that can't be, and what it may be.
  """
  edits = Edits(scale=scale)
  for name, text in query.items():
    if name not in Edits._fields:
      raise ValueError(f'no edit {name[:50]!r}; there are {Edits._fields}')
    try:
      edits = edits._replace(**{name: float(text)})
    except ValueError:
      raise ValueError(f'{name} must be a number') from None
  if not -180 <= edits.rotation <= 180:
    raise ValueError('rotation must be from -180 to 180')
  for name in ('brightness', 'contrast'):
    if not 0.25 <= getattr(edits, name) <= 4:
      raise ValueError(f'{name} must be from 0.25 to 4')
  for name in ('mirror', 'flip'):
    if getattr(edits, name) not in (0, 1):
      raise ValueError(f'{name} must be 0 or 1')
  if edits.scale not in (*SCALES, scale):
    raise ValueError(f'scale must be one of {SCALES}')
  return edits


def apply(edits: Edits, image: Image.Image) -> Image.Image:
  """Edits an image.

  Args:
    edits: what is done.
    image: in mode RGB.

  Returns:
    The edited image. Turned by 45 to 135 degrees it is as wide as it was high.
    Cells stay as large as they were: what turns out of the frame is cut off,
    and what no pixel turns to is of the image's mean colour.
  """
  quarters = round(edits.rotation / 90)
  if quarters:
    image = image.rotate(90 * quarters, expand=True)
  if rest := edits.rotation - 90 * quarters:
    mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    image = image.rotate(rest, Image.Resampling.BILINEAR, fillcolor=mean)
  if edits.mirror:
    image = ImageOps.mirror(image)
  if edits.flip:
    image = ImageOps.flip(image)
  if edits.brightness != 1:
    image = ImageEnhance.Brightness(image).enhance(edits.brightness)
  if edits.contrast != 1:
    image = ImageEnhance.Contrast(image).enhance(edits.contrast)
  return image
