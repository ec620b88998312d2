"""Image files of any kind to uint8 RGB, refusing what is not safe to open."""

import io
import re
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from leukemia_jax.data import tiff
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal

# Formats with a plain bitmap inside; no PostScript, PDF or vector readers.
FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP', 'PPM', 'JPEG2000')


class BadImageError(ValueError):
  """A file that can't be used as an image; the message says why."""


def _what_else(data: bytes) -> str:
  """Says what a file is that is no image."""
  first = data[:200].lstrip().lower()
  if first.startswith(b'version https://git-lfs'):
    return 'not an image but a pointer of Git LFS: fetch it with git lfs pull'
  if first.startswith((b'<!doctype', b'<html')):
    return 'not an image but a web page: the download failed'
  return f'not an image ({", ".join(FORMATS)}, TIFF)'


class Options(NamedTuple):
  """How files are decoded; see `config.data`.

  Attributes:
    max_pixels: limit on width x height, checked before any pixel is decoded.
    turn_by_exif: whether an EXIF orientation is applied.
    white_level: value of images deeper than 8 bits that becomes 255; 0 for the
      largest that they can have.
  """

  max_pixels: int = 2**62
  turn_by_exif: bool = True
  white_level: int = 0


DEFAULT = Options()
_NOTHING = Removal()
# Bytes of a PGM in which its four first words are looked for.
_HEADER = 2**16


class Decoded(NamedTuple):
  """A decoded file.

  Attributes:
    image: a loaded Pillow image in mode RGB.
    orientation: by EXIF; 1 is upright.
    bits: of a sample.
    peak: largest value, of samples deeper than 8 bits; else 0.
    is_multipage: whether it has more frames or pages than were taken.
  """

  image: Image.Image
  orientation: int
  bits: int
  peak: int
  is_multipage: bool


def _deep_grey(
  image: Image.Image, data: bytes, white_level: int, is_mask: bool
) -> tuple[Image.Image, int, int]:
  """Grey of more than 8 bits in 8, its bits, and its largest value."""
  values, largest = np.asarray(image).astype(np.float64), 65535
  is_deep = image.mode != 'I' or values.max() > 255
  if image.format == 'PPM':
    # Pillow scales values by the largest that the header allows.
    header = re.sub(rb'#[^\r\n]*', b'', data[:_HEADER]).split(maxsplit=4)
    if len(header) > 3 and header[3].isdigit():
      largest = int(header[3])
    values, is_deep = np.round(values * (largest / 65535)), True
  peak = int(values.max())
  # Some versions of Pillow open 16-bit files in 32-bit mode, which also holds
  # plain 8-bit values.
  if not is_mask and is_deep:
    values = np.round(values * (255.0 / (white_level or largest)))
  grey = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
  return grey, largest.bit_length(), peak


def _to_rgb(image: Image.Image, is_mask: bool) -> Image.Image:
  transparent = ('P', 'LA', 'PA', 'La', 'RGBA', 'RGBa')
  if image.mode in transparent or 'transparency' in image.info:
    image = image.convert('RGBA')
    background = Image.new('RGBA', image.size, 'black' if is_mask else 'white')
    image = Image.alpha_composite(background, image)
  return image.convert('RGB')


def _decode_tiff(data: bytes, options: Options, is_mask: bool) -> Decoded:
  try:
    read = tiff.decode(
      data,
      max_pixels=options.max_pixels,
      white_level=options.white_level,
      is_mask=is_mask,
    )
  except tiff.UnreadableError as error:
    raise BadImageError(str(error)) from None
  modes = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}
  samples = 1 if read.pixels.ndim == 2 else read.pixels.shape[2]
  image = Image.fromarray(np.ascontiguousarray(read.pixels), modes[samples])
  return Decoded(image, read.orientation, read.bits, read.peak, read.pages > 1)


def _is_deep_colour(data: bytes) -> bool:
  """Whether a file is a PNG of 16 bits, by its header, and no plain grey."""
  return data[:4] == b'\x89PNG' and data[24] == 16 and data[25] in (2, 4, 6)


def _deep_colour(data: bytes, white: int, orientation: int) -> Decoded:
  """A PNG of 16 bits a colour by the value of white; Pillow halves its bits."""
  try:
    import imagecodecs
  except ImportError:
    raise BadImageError(
      'masks of 16-bit colour, and images with config.data.white_level, need: '
      "pip install 'leukemia_jax[tiff]'"
    ) from None
  values = imagecodecs.png_decode(data)
  samples = values.shape[-1]
  colours = samples - (samples in (2, 4))
  whites = np.full(samples, float(white))
  whites[colours:] = 65535  # of alpha
  scaled = np.round(values * (255.0 / whites)).clip(0, 255).astype(np.uint8)
  image = Image.fromarray(scaled, {2: 'LA', 3: 'RGB', 4: 'RGBA'}[samples])
  peak = int(values[..., :colours].max())
  return Decoded(image, orientation, 16, peak, False)


def _decode_by_pillow(data: bytes, options: Options, is_mask: bool) -> Decoded:
  with Image.open(io.BytesIO(data), formats=FORMATS) as image:
    width, height = image.size
    if width * height > options.max_pixels:
      raise BadImageError(
        f'{width} x {height} px is over config.data.max_pixels='
        f'{options.max_pixels}'
      )
    if image.mode == 'F':
      raise BadImageError('floating-point grey: save it as 8 or 16 bits')
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation not in range(1, 9):
      orientation = 1  # as Pillow takes what EXIF doesn't know
    is_multipage = getattr(image, 'is_animated', False)
    if (options.white_level or is_mask) and _is_deep_colour(data):
      white = 255 if is_mask else options.white_level
      return _deep_colour(data, white, orientation)
    image.load()
    if _is_deep_colour(data):
      # Pillow keeps the higher 8 bits.
      peak = 257 * int(np.asarray(image.convert('RGB')).max())
      return Decoded(image, orientation, 16, peak, is_multipage)
    if not image.mode.startswith('I'):
      return Decoded(image, orientation, 8, 0, is_multipage)
    grey, bits, peak = _deep_grey(image, data, options.white_level, is_mask)
    return Decoded(grey, orientation, bits, peak, is_multipage)


def decode(
  data: bytes, options: Options = DEFAULT, *, is_mask: bool = False
) -> Decoded:
  """Decodes a file to an 8-bit RGB image of its own size.

  Grey is repeated over the channels; palettes are resolved; what is
  transparent shows white, as a smear's background does; CMYK is converted by
  Pillow's formula; deeper grey and TIFFs are scaled to 8 bits by the white
  level, other 16-bit colour by Pillow; floating-point grey is refused; an EXIF
  orientation is applied; of several frames the first is taken, but three grey
  pages of a TIFF are R, G and B.

  In a mask what is transparent is black, as the background of a cut-out is, and
  deeper grey is cut off at 255: its values may be labels from 1 on. The white
  level is that of photographs alone.

  Args:
    data: the file's bytes: JPEG, PNG, BMP, TIFF, GIF, WebP, PPM or JPEG 2000.
    options: limits and orientation.
    is_mask: whether the file is a mask and no photograph.

  Returns:
    The image, and what is known of it.

  Raises:
    BadImageError: not an image, truncated, or over the limit.
  """
  if not data:
    raise BadImageError('the file is empty')
  try:
    read = _decode_tiff if tiff.is_tiff(data) else _decode_by_pillow
    decoded = read(data, options, is_mask)
    image = decoded.image
    if options.turn_by_exif and decoded.orientation != 1:
      # A TIFF's comes from its tag, which the array doesn't carry.
      image.getexif()[ExifTags.Base.Orientation] = decoded.orientation
      image = ImageOps.exif_transpose(image)
    return decoded._replace(image=_to_rgb(image, is_mask))
  except UnidentifiedImageError:
    raise BadImageError(_what_else(data)) from None
  except Image.DecompressionBombError as error:
    raise BadImageError(
      f'{error}; whatever config.data.max_pixels, Pillow opens no more: cut it '
      'into fields'
    ) from None
  except (BadImageError, MemoryError):
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


def to_scale(
  image: Image.Image,
  size: int,
  scale: float,
  *,
  removal: Removal = _NOTHING,
) -> np.ndarray:
  """`to_size` for an image whose cells have another size than a model's.

  Args:
    image: a Pillow image in mode RGB.
    size: side of the images that the model was trained on, px.
    scale: factor on that, such as 0.5 where cells are twice as large.
    removal: what the model's images lack. Where that is their corners, it is
      taken out of a smaller image before this is mirrored: later its corners
      lie within. All of it, for backgrounds are measured before.

  Returns:
    uint8, shape (side, side, 3), of the scaled size; or, where that is smaller
    than `size`, of `size`, with the image in the middle and mirrored around.
  """
  inner = max(1, round(size * scale))
  pixels = to_size(image, inner)
  room = max(0, size - inner)
  if room and removal.hide_corners:
    pixels = np.asarray(colour.remove_all(pixels[None], None, removal))[0]
  around = (room // 2, room - room // 2)
  return np.pad(pixels, (around, around, (0, 0)), 'symmetric')


def read(data: bytes, size: int, options: Options = DEFAULT) -> np.ndarray:
  """Decodes a file and scales it: what training and prediction share.

  Args:
    data: the file's bytes.
    size: side of the result, px.
    options: see `decode`.

  Returns:
    uint8, shape (size, size, 3).

  Raises:
    BadImageError: see `decode`.
  """
  return to_size(decode(data, options).image, size)
