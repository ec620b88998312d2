"""Image files of any kind to uint8 RGB, refusing what is not safe to open."""

import io
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Formats with a plain bitmap inside; no PostScript, PDF or vector readers.
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'GIF', 'WEBP', 'PPM', 'JPEG2000')


class BadImageError(ValueError):
  """A file that can't be used as an image; the message says why."""


def _what_else(data: bytes) -> str:
  """Says what a file is that is no image."""
  first = data[:200].lstrip().lower()
  if first.startswith(b'version https://git-lfs'):
    return 'not an image but a pointer of Git LFS: fetch it with git lfs pull'
  if first.startswith((b'<!doctype', b'<html')):
    return 'not an image but a web page: the download failed'
  return f'not an image ({", ".join(FORMATS)})'


def _to_rgb(image: Image.Image, is_mask: bool) -> Image.Image:
  if image.mode == 'F':
    raise BadImageError(
      'floating-point grey has no agreed range; save it as 8 or 16 bits'
    )
  if image.mode.startswith('I'):
    values = np.asarray(image).astype(np.float64)
    # 16 bits to 8. Some versions of Pillow open 16-bit files in 32-bit mode,
    # which also holds plain 8-bit values.
    if not is_mask and (image.mode != 'I' or values.max() > 255):
      values = np.round(values / 257.0)
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
  transparent = ('P', 'LA', 'PA', 'La', 'RGBA', 'RGBa')
  if image.mode in transparent or 'transparency' in image.info:
    image = image.convert('RGBA')
    background = Image.new('RGBA', image.size, 'black' if is_mask else 'white')
    image = Image.alpha_composite(background, image)
  return image.convert('RGB')


class Options(NamedTuple):
  """How files are decoded; see `config.data`.

  Attributes:
    max_pixels: limit on width x height, checked before any pixel is decoded.
    turn_by_exif: whether an EXIF orientation is applied.
  """

  max_pixels: int = 2**62
  turn_by_exif: bool = True


DEFAULT = Options()


def orientation(data: bytes) -> int:
  """The EXIF orientation of a file that can be decoded; 1 is upright."""
  with Image.open(io.BytesIO(data), formats=FORMATS) as image:
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def decode(
  data: bytes, options: Options = DEFAULT, *, is_mask: bool = False
) -> Image.Image:
  """Decodes a file to an upright 8-bit RGB image of its own size.

  Grey is repeated over the channels; palettes are resolved; what is
  transparent shows white, as a smear's background does; CMYK is converted by
  Pillow's formula; 16-bit grey is scaled to 8 bits (value / 257), 16-bit
  colour by Pillow; floating-point grey is refused; an EXIF orientation is
  applied; of several frames the first is taken.

  In a mask what is transparent is black, as the background of a cut-out is, and
  16-bit grey is cut off at 255: its values may be labels from 1 on.

  Args:
    data: the file's bytes: JPEG, PNG, BMP, TIFF, GIF, WebP, PPM or JPEG 2000.
    options: limits and orientation.
    is_mask: whether the file is a mask and no photograph.

  Returns:
    A loaded Pillow image in mode RGB.

  Raises:
    BadImageError: not an image, truncated, or over the limit.
  """
  if not data:
    raise BadImageError('the file is empty')
  try:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      width, height = image.size
      if width * height > options.max_pixels:
        raise BadImageError(
          f'{width} x {height} px is over config.data.max_pixels='
          f'{options.max_pixels}'
        )
      image.load()
      if options.turn_by_exif:
        ImageOps.exif_transpose(image, in_place=True)
      return _to_rgb(image, is_mask)
  except UnidentifiedImageError:
    raise BadImageError(_what_else(data)) from None
  except Image.DecompressionBombError as error:
    raise BadImageError(str(error)) from None
  except BadImageError:
    raise
  except Exception as error:
    # Pillow's readers raise many kinds on damaged files (OSError, SyntaxError,
    # struct.error, ...): each means the same here.
    raise BadImageError(f'damaged: {error}') from None


def to_size(image: Image.Image, size: int) -> np.ndarray:
  """Scales and crops an image to a square.

  The shorter side is scaled to `size` (bilinear with anti-aliasing) and the
  middle of the longer one is kept, so that cells keep their shape.

  Args:
    image: a Pillow image in mode RGB.
    size: side of the result, px.

  Returns:
    uint8 array of shape (size, size, 3).
  """
  if image.size != (size, size):
    image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
  return np.asarray(image)
