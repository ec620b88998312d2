"""TIFF files to 8-bit grey, RGB or RGBA arrays, by tifffile.

Whole numbers of 1 to 16 bits are read in every planar configuration,
photometric interpretation of grey, palette, RGB and CMYK, byte order, and with
the compressions below; everything else is refused by name.
"""

import io
import zlib
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_DEFLATE = (COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE)
# Without the package imagecodecs, tifffile reads these and Pillow, where a file
# is plain, the next.
_PLAIN = (COMPRESSION.NONE, *_DEFLATE)
_CODED = (
  COMPRESSION.LZW,
  COMPRESSION.PACKBITS,
  COMPRESSION.CCITTRLE,
  COMPRESSION.CCITT_T4,
  COMPRESSION.CCITT_T6,
)
_JPEG = COMPRESSION.JPEG
_MOST_PAGES = 10_000


class UnreadableError(ValueError):
  """A TIFF that isn't read; the message says why."""


class Tiff(NamedTuple):
  """A file that was decoded.

  Attributes:
    pixels: uint8, shape (height, width) or (height, width, 2..4): grey with
      alpha, RGB, RGB with alpha.
    orientation: of its tag, 1 for upright.
    bits: of a sample.
    peak: largest value, of samples deeper than 8 bits; else 0.
    pages: number of pages; 1 where three grey ones were joined.
  """

  pixels: np.ndarray
  orientation: int
  bits: int
  peak: int
  pages: int


def is_tiff(data: bytes) -> bool:
  """Whether a file begins as a TIFF does."""
  return data[:4] in _MAGIC


def decode(
  data: bytes, *, max_pixels: int, white_level: int, is_mask: bool
) -> Tiff:
  """Decodes a TIFF.

  Grey where 0 is white is inverted; palettes are resolved; CMYK is converted
  as Pillow does; three grey pages of one size are R, G and B, of other pages
  the first is read.

  Args:
    data: the file's bytes.
    max_pixels: limit on width x height, checked before any pixel is decoded.
    white_level: value of samples deeper than 8 bits that becomes 255; 0 for the
      largest that they can have.
    is_mask: whether values are labels, cut off at 255 instead of scaled.

  Returns:
    The pixels, and what is known of them.

  Raises:
    UnreadableError: names what isn't read, or what is damaged.
  """
  try:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
      pages = _full_pages(file)
      first = pages[0]
      _check(first, len(data), max_pixels)
      joined = [first]
      if _are_channels(pages) and not _is_stack(file):
        joined = pages
        for page in pages[1:]:
          _check(page, len(data), max_pixels)
      planes = [_read(page, data) for page in joined]
      values = planes[0] if len(planes) == 1 else np.stack(planes, -1)
      bits = int(first.bitspersample)
      peak = int(_colours(values, first).max()) if bits > 8 else 0
      pixels = _to_8_bits(values, first, bits, white_level, is_mask)
      tag = first.tags.get(274)
      orientation = int(tag.value) if tag else 1
      count = 1 if len(joined) > 1 else len(pages)
      return Tiff(pixels, orientation, bits, peak, count)
  except UnreadableError:
    raise
  except Exception as error:
    # tifffile and its codecs raise many kinds on damaged files.
    if 'imagecodecs' in str(error):
      raise UnreadableError(
        "this kind of TIFF needs: pip install 'leukemia_jax[tiff]'"
      ) from None
    raise UnreadableError(f'damaged: {error}') from None


def _full_pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
  """The pages that are no thumbnails."""
  pages: list[tifffile.TiffPage] = []
  thumbnails: list[tifffile.TiffPage] = []
  for i, page in enumerate(file.pages):
    if i == _MOST_PAGES:
      raise UnreadableError(f'more than {_MOST_PAGES} pages')
    full = page.aspage()
    (thumbnails if full.is_reduced else pages).append(full)
  pages = pages or thumbnails
  if not pages:
    raise UnreadableError('damaged: it has no page')
  return pages


def _check(page: tifffile.TiffPage, size: int, max_pixels: int) -> None:
  """Refuses what isn't read, before any pixel is decoded."""
  width, height = page.imagewidth, page.imagelength
  tile = max(page.tilewidth * page.tilelength, width * page.rowsperstrip)
  if width * height > max_pixels or tile > 2 * max(max_pixels, width * height):
    raise UnreadableError(
      f'{width} x {height} px is over config.data.max_pixels={max_pixels}'
    )
  if page.imagedepth > 1:
    raise UnreadableError('a volume; save one plane of it')
  if page.sampleformat == 3:
    raise UnreadableError(
      'floating-point grey has no agreed range; save it as 8 or 16 bits'
    )
  bits = page.bitspersample
  if page.sampleformat != 1 or not isinstance(bits, int) or bits > 16:
    raise UnreadableError(
      f'TIFF of {bits} bits a sample, format {page.sampleformat}; save it as '
      'unsigned 8 or 16 bits'
    )
  if bits == 1 and page.samplesperpixel > 1 and page.planarconfig == 1:
    # Writers differ in how they pad such pixels; tifffile reads otherwise than
    # it writes.
    raise UnreadableError('TIFF of 1 bit a colour; save it with 8 bits')
  compression = page.compression
  if compression not in (*_PLAIN, *_CODED, _JPEG):
    raise UnreadableError(
      f'TIFF with the compression {_name(compression)}; save it with LZW, '
      'deflate or none'
    )
  photometric, samples = page.photometric, page.samplesperpixel
  expected: dict[int, tuple[int, ...]] = {
    PHOTOMETRIC.MINISWHITE: (1, 2),
    PHOTOMETRIC.MINISBLACK: (1, 2),
    PHOTOMETRIC.PALETTE: (1,),
    PHOTOMETRIC.RGB: (3, 4),
    PHOTOMETRIC.SEPARATED: (4,),
    PHOTOMETRIC.YCBCR: (3,) if compression == _JPEG else (),
  }
  if photometric not in expected:
    raise UnreadableError(
      f'TIFF in the colours {_name(photometric)}; save it as grey or RGB'
    )
  if samples not in expected[photometric] or (
    len(page.extrasamples) > 0 and int(page.extrasamples[0]) not in (1, 2)
  ):
    raise UnreadableError(
      f'TIFF of {samples} channels ({_name(photometric)}); save one of them '
      'as grey, or three as RGB'
    )
  offsets = zip(page.dataoffsets, page.databytecounts, strict=True)
  if any(not count or offset + count > size for offset, count in offsets):
    raise UnreadableError('damaged: it is truncated')


def _name(code: int) -> str:
  return getattr(code, 'name', str(code))


def _are_channels(pages: list[tifffile.TiffPage]) -> bool:
  """Whether three grey pages are the channels of one image."""
  return len(pages) == 3 and all(
    page.samplesperpixel == 1
    and page.photometric == PHOTOMETRIC.MINISBLACK
    and (page.shape, page.dtype) == (pages[0].shape, pages[0].dtype)
    for page in pages
  )


def _is_stack(file: tifffile.TiffFile) -> bool:
  """Whether a file says that its pages are planes or times."""
  return any(axis in 'ZT' for axis in file.series[0].axes)


def _read(page: tifffile.TiffPage, data: bytes) -> np.ndarray:
  """A page's samples: (height, width) or (height, width, samples)."""
  is_plain = page.bitspersample in (1, 8) and (
    page.samplesperpixel == 1 or page.planarconfig == 1
  )
  if page.compression == _JPEG or (
    page.compression in _CODED and is_plain and not _has_codecs()
  ):
    return _read_by_pillow(page, data, is_plain)
  if page.compression in _DEFLATE:
    _check_deflate(page, data)
  values = page.asarray()
  if page.planarconfig == 2 and page.samplesperpixel > 1:
    values = np.moveaxis(values, 0, -1)
  return (
    values.reshape(page.imagelength, page.imagewidth, -1).squeeze(-1)
    if (page.samplesperpixel == 1)
    else values
  )


def _has_codecs() -> bool:
  try:
    import imagecodecs  # noqa: F401
  except ImportError:
    return False
  return True


def _read_by_pillow(
  page: tifffile.TiffPage, data: bytes, is_plain: bool
) -> np.ndarray:
  """A plain page's samples by libtiff, which bounds what JPEG may unpack to."""
  if not is_plain or page.bitspersample not in (1, 8):
    raise UnreadableError(
      f'TIFF of {page.bitspersample} bits in separate planes or with JPEG; '
      'save it with deflate or without compression'
    )
  with Image.open(io.BytesIO(data), formats=('TIFF',)) as image:
    image.seek(page.index)
    values = np.asarray(image)
  if page.photometric == PHOTOMETRIC.MINISWHITE:
    # Pillow inverts it, as the caller does.
    values = ~values
  return values


def _check_deflate(page: tifffile.TiffPage, data: bytes) -> None:
  """Refuses segments that unpack to more than their part of the image."""
  height, width = (
    (page.tilelength, page.tilewidth)
    if page.is_tiled
    else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
  )
  samples = page.samplesperpixel if page.planarconfig == 1 else 1
  most = height * ((width * samples * page.bitspersample + 7) // 8)
  for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
    stream = zlib.decompressobj()
    stream.decompress(data[offset : offset + count], most + 1)
    if stream.unconsumed_tail:
      raise UnreadableError('damaged: it unpacks to more than it declares')


def _without_alpha_in_colours(pixels: np.ndarray) -> np.ndarray:
  """Pixels whose colours were multiplied by their alpha, as plain ones."""
  alpha = np.maximum(pixels[..., -1:], 1).astype(float)
  colours = np.round(pixels[..., :-1] * (255 / alpha)).clip(0, 255)
  return np.concatenate([colours.astype(np.uint8), pixels[..., -1:]], -1)


def _colours(values: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
  """A page's samples without alpha."""
  has_alpha = page.samplesperpixel in (2, 4)
  if has_alpha and page.photometric != PHOTOMETRIC.SEPARATED:
    return values[..., :-1]
  return values


def _to_8_bits(
  values: np.ndarray,
  page: tifffile.TiffPage,
  bits: int,
  white_level: int,
  is_mask: bool,
) -> np.ndarray:
  """Samples as uint8 grey, RGB or RGBA."""
  top = 2**bits - 1
  if page.photometric == PHOTOMETRIC.PALETTE:
    colours = np.asarray(page.colormap)[:, : top + 1]
    # Shape (3, colours), 16 bits; some writers fill the lower 8 alone.
    if colours.max() > 255:
      colours = colours >> 8
    return colours.T[values.astype(np.intp)].astype(np.uint8)
  if page.photometric == PHOTOMETRIC.MINISWHITE:
    grey = values if values.ndim == 2 else values[..., :1]
    inverted = ~grey if bits == 1 else top - grey
    values = (
      inverted
      if values.ndim == 2
      else np.concatenate([inverted, values[..., 1:]], -1)
    )
  white = white_level if bits > 8 and white_level else top
  if bits == 1:
    scaled = values.astype(np.uint8) * np.uint8(255)
  elif bits == 8:
    scaled = values
  elif is_mask and bits > 8:
    scaled = np.minimum(values, 255).astype(np.uint8)
  else:
    # White is of colours, never of alpha.
    level = np.full(values.shape[2:], float(top))
    _colours(level, page)[...] = white
    scaled = np.round(values * (255.0 / level)).clip(0, 255).astype(np.uint8)
  if len(page.extrasamples) > 0 and int(page.extrasamples[0]) == 1:
    scaled = _without_alpha_in_colours(scaled)
  if page.photometric == PHOTOMETRIC.SEPARATED:
    return np.asarray(Image.fromarray(scaled, 'CMYK').convert('RGB'))
  return scaled
