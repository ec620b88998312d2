"""One image of a source, read and checked: what a record is made of."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops

from leukemia_jax import files
from leukemia_jax.data import decode, listing, names, source
from leukemia_jax.errors import InputError

_LISTED = 20  # bad files named in an error; the rest are counted


@dataclasses.dataclass(frozen=True)
class Checked:
  """An item that was read: its bytes and what identifies it.

  Attributes:
    id: its path in the source, composed (NFC).
    label: index of its class.
    image: the image file's bytes.
    mask: an image file's bytes; empty if there is no mask that can be used.
    pixel_hash: see `hash_pixels`.
    patient: '' where not known.
    part: of the source's own split, or ''.
    bad_mask: what is wrong with its mask, if something is.
    is_turned: whether EXIF turns the image, and not its mask.
    is_multipage: whether the file has pages or frames that are not read.
    bits: of a sample of the image file.
    peak: largest value, of samples deeper than 8 bits; else 0.
  """

  id: str
  label: int
  image: bytes
  mask: bytes
  pixel_hash: str
  patient: str = ''
  part: str = ''
  bad_mask: 'Bad | None' = None
  is_turned: bool = False
  is_multipage: bool = False
  bits: int = 8
  peak: int = 0


@dataclasses.dataclass(frozen=True)
class Bad:
  """A file that can't be used, and why."""

  path: str
  why: str

  def __str__(self) -> str:
    return f'{self.path}: {self.why}'


def unusable(what: str, files: Sequence[str]) -> InputError:
  """The error that names files which can't be used.

  Args:
    what: of what set they are, and how many.
    files: a line each; the first few are shown.

  Returns:
    The error.
  """
  lines = [f'  {line}' for line in files[:_LISTED]]
  if len(files) > _LISTED:
    lines.append(f'  and {len(files) - _LISTED} more')
  return InputError(
    '\n'.join([f'{what}:', *lines])
    + '\nMend or remove them, or leave them out with '
    '--config.data.on_bad_image=skip'
  )


def bad_images(source_name: str, bad: Sequence[str], count: int) -> InputError:
  """The error for bad images among `count` in all; see `unusable`."""
  return unusable(
    f'{source_name}: {len(bad)} of {count} images cannot be used', bad
  )


def _read(
  file: listing.File, decoding: decode.Options, *, is_mask: bool
) -> tuple[bytes, decode.Decoded] | Bad:
  """A file's bytes, and all of it decoded, so that bad files show here."""
  if way_out := names.foreign_format(file.path):
    return Bad(file.path, way_out)
  try:
    data = file.read()
    return data, decode.decode(data, decoding, is_mask=is_mask)
  except decode.BadImageError as error:
    return Bad(file.path, str(error))
  except Exception as error:
    files.check_machine(error, file.path)
    # zipfile and zlib raise many kinds on a damaged entry; OSError otherwise.
    return Bad(file.path, f'cannot be read: {error!r}')


def check_item(item: source.Item, decoding: decode.Options) -> Checked | Bad:
  """Reads an item.

  Args:
    item: the item.
    decoding: limits and orientation.

  Returns:
    What it holds; with a bad mask its image is still fit to classify.
  """
  read = _read(item.image, decoding, is_mask=False)
  if isinstance(read, Bad):
    return read
  image, decoded = read
  pixels = decoded.image
  mask: bytes | Bad | None = None
  is_turned = False
  if item.masks:
    is_turned = decoding.turn_by_exif and decoded.orientation > 1
    mask, mask_is_turned = _read_mask(item, pixels.size, decoding, is_turned)
    is_turned &= not mask_is_turned
  return Checked(
    names.normalise(item.image.path),
    item.label,
    image,
    mask if isinstance(mask, bytes) else b'',
    hash_pixels(np.asarray(pixels)),
    item.patient,
    item.part,
    bad_mask=mask if isinstance(mask, Bad) else None,
    is_turned=is_turned,
    is_multipage=decoded.is_multipage,
    bits=decoded.bits,
    peak=decoded.peak,
  )


def _read_mask(
  item: source.Item,
  size: tuple[int, int],
  decoding: decode.Options,
  is_turned: bool,
) -> tuple[bytes | Bad, bool]:
  """The mask of an item, and whether EXIF turns it.

  Of several masks, one a cell, their largest values are taken.
  """
  joined, mask_is_turned = None, False
  for file in item.masks:
    drawn = _read(file, decoding, is_mask=True)
    if isinstance(drawn, Bad):
      return drawn, False
    data, decoded = drawn
    pixels = decoded.image
    mask_is_turned |= decoded.orientation > 1
    if pixels.size != size:
      sizes = ['{} x {}'.format(*s) for s in (pixels.size, size)]
      why = f'this mask is {sizes[0]} px, its image {sizes[1]}'
      if is_turned and pixels.size == size[::-1]:
        why += (
          ', since EXIF turns it and not its mask: give '
          'config.data.turn_by_exif=False'
        )
      return Bad(file.path, why), mask_is_turned
    if joined is not None:
      pixels = ImageChops.lighter(joined, pixels)
    joined = pixels
  whole = data if len(item.masks) == 1 else to_png(np.asarray(joined))
  return whole, mask_is_turned


def hash_pixels(pixels: np.ndarray) -> str:
  """A hash that equal images share, turned and mirrored ones too.

  Args:
    pixels: uint8 array, shape (height, width, 3).

  Returns:
    32 hexadecimal digits.
  """
  turned = [np.rot90(p, k) for p in (pixels, pixels[:, ::-1]) for k in range(4)]
  # Of the eight forms, that whose bytes come first; the first row decides
  # among most.
  beginnings = [(p.shape, p[0].tobytes()) for p in turned]
  first = min(beginnings)
  smallest = min(
    p.tobytes()
    for p, own in zip(turned, beginnings, strict=True)
    if own == first
  )
  digest = hashlib.sha256(repr(first[0]).encode() + smallest)
  return digest.hexdigest()[:32]


def to_png(pixels: np.ndarray) -> bytes:
  """A PNG file of an array, packed fast rather than small."""
  stream = io.BytesIO()
  Image.fromarray(pixels).save(stream, 'PNG', compress_level=1)
  return stream.getvalue()
