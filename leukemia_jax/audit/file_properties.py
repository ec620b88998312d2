"""What image files say without their pixels: size, format, compression."""

import io
from typing import NamedTuple

import numpy as np
import tifffile
from PIL import Image

from leukemia_jax.data import decode, tiff
from leukemia_jax.transforms import jpeg

# Of libjpeg's table at quality 50 (ITU-T T.81, annex K).
_LUMA_TABLE_SUM = int(jpeg.LUMA_TABLE.sum())


class FileTraits(NamedTuple):
  """Of one image file.

  Attributes:
    format: such as 'JPEG'.
    width: px.
    height: px.
    bytes: its size.
    quality: of a JPEG, 1..100, estimated from its tables; 0 for others.
    tables: values of a JPEG's quantisation tables, summed up, luma and chroma.
    has_exif: whether it holds EXIF.
    has_profile: whether it holds a colour profile.
  """

  format: str
  width: int
  height: int
  bytes: int
  quality: int
  tables: tuple[int, int]
  has_exif: bool
  has_profile: bool


def read_traits(data: bytes) -> FileTraits:
  """Reads a file's header.

  Args:
    data: the file, which was decoded before.

  Returns:
    What it says.
  """
  if tiff.is_tiff(data):
    return _tiff_traits(data)
  with Image.open(io.BytesIO(data), formats=decode.FORMATS) as image:
    tables = getattr(image, 'quantization', None) or {}
    sums = [sum(table) for table in tables.values()]
    luma, chroma = (*sums, 0, 0)[:2]
    return FileTraits(
      format=image.format or '',
      width=image.width,
      height=image.height,
      bytes=len(data),
      quality=_quality(luma),
      tables=(luma, chroma),
      has_exif='exif' in image.info,
      has_profile='icc_profile' in image.info,
    )


def _tiff_traits(data: bytes) -> FileTraits:
  with tifffile.TiffFile(io.BytesIO(data)) as file:
    page = file.pages.first
    return FileTraits(
      format='TIFF',
      width=page.imagewidth,
      height=page.imagelength,
      bytes=len(data),
      quality=0,
      tables=(0, 0),
      has_exif='ExifTag' in page.tags,
      has_profile='InterColorProfile' in page.tags,
    )


def _quality(luma_sum: int) -> int:
  """The quality that libjpeg makes such a luma table of; 0 without one."""
  if not luma_sum:
    return 0
  percent = 100 * luma_sum / _LUMA_TABLE_SUM
  quality = 5000 / percent if percent > 100 else (200 - percent) / 2
  return int(np.clip(round(quality), 1, 100))


def as_features(traits: list[FileTraits]) -> np.ndarray:
  """The traits as numbers.

  Args:
    traits: of n files.

  Returns:
    float64, shape (n, 9).
  """
  formats = sorted({own.format for own in traits})
  return np.array(
    [
      (
        own.bytes,
        own.bytes / max(1, own.width * own.height),
        own.width,
        own.height,
        *own.tables,
        formats.index(own.format),
        own.has_exif,
        own.has_profile,
      )
      for own in traits
    ],
    float,
  )
