"""Files that nobody should trust: damaged, lying, too large, or two in one."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

FORMATS = {
  'png': 'PNG',
  'jpg': 'JPEG',
  'bmp': 'BMP',
  'gif': 'GIF',
  'webp': 'WEBP',
  'ppm': 'PPM',
  'jp2': 'JPEG2000',
  'tif': 'TIFF',
}
# Names that a careless program takes for a path, a flag, an order to a
# terminal, or part of a page.
NAMES = (
  '..evil',
  '-rf',
  '%2e%2e%2fevil',
  '..\\..\\evil',
  'C:evil',
  'CON',
  'a\nb',
  'a\x1b[31mred',
  '<script>alert(1)<br>',
  '=1+1',
  '"; drop table',
  '$(touch evil)',
  'ü' * 60,
)


def drawn(seed: int) -> Image.Image:
  """A picture that packs neither very well nor very badly."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
  return Image.fromarray(coarse).resize((88, 72), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
  stream = io.BytesIO()
  image.save(stream, kind, **options)
  return stream.getvalue()


def flipped(data: bytes, seed: int, bits: int) -> bytes:
  """Some bits of a file turned round, its signature left alone."""
  rng = np.random.default_rng(seed)
  turned = bytearray(data)
  for place in rng.integers(16, len(data), bits):
    turned[place] ^= 1 << rng.integers(8)
  return bytes(turned)


def png(width: int, height: int, content: bytes) -> bytes:
  """A PNG of any header, of any content."""

  def chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', check)

  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', header),
      chunk(b'IDAT', content),
      chunk(b'IEND', b''),
    ]
  )


def liars() -> Iterator[tuple[str, bytes]]:
  """Bombs, polyglots, wrong suffixes, and what is no image at all."""
  image = drawn(0)
  zeros = zlib.compress(bytes(50_000_000), 9)
  yield 'bomb.png', png(40_000, 40_000, zeros)
  yield 'wide.png', png(2**31 - 1, 1, zlib.compress(b'\0'))
  yield 'none.png', png(0, 0, zlib.compress(b''))
  yield 'longer.png', png(20, 20, zeros)
  yield (
    'huge.bmp',
    encoded(image, 'BMP')[:18] + b'\xff\xff\xff\x7f' * 2 + bytes(99),
  )
  yield 'huge.ppm', b'P6 999999999 999999999 255\n' + bytes(99)
  yield 'huge.gif', b'GIF89a\xff\xff\xff\xff\x80\0\0' + bytes(99)
  archive = io.BytesIO()
  with zipfile.ZipFile(archive, 'w') as packed:
    packed.writestr('../../evil.png', encoded(image, 'PNG'))
  yield 'zip.jpg', encoded(image, 'JPEG') + archive.getvalue()
  yield 'page.gif', b'GIF89a/*' + b'<script>alert(1)</script>' * 9
  yield 'page.png', encoded(image, 'PNG') + b'<script>alert(1)</script>'
  yield 'page.jpg', b'<!doctype html><script>alert(1)</script>'
  yield 'vector.png', b'<svg xmlns="http://www.w3.org/2000/svg"/>'
  yield 'postscript.jpg', b'%!PS-Adobe-3.0 EPSF-3.0\n(evil) (w) file\n'
  yield 'document.png', b'%PDF-1.7\n' + bytes(99)
  yield 'pickle.png', b'\x80\x04\x95' + bytes(99)
  yield 'program.png', b'\x7fELF' + bytes(99)
  yield 'nothing.png', b''
  yield 'zeros.jpg', bytes(5000)
  kinds = [*list(FORMATS.values())[1:], 'PNG']
  for suffix, kind in zip(FORMATS, kinds, strict=True):
    yield f'other.{suffix}', encoded(image, kind)
  frames = [drawn(i) for i in range(3)]
  for suffix in ('gif', 'webp', 'png', 'tif'):
    yield (
      f'moving.{suffix}',
      encoded(image, FORMATS[suffix], save_all=True, append_images=frames),
    )


def files() -> Iterator[tuple[str, bytes]]:
  """200 files or more, by name."""
  for i, (suffix, kind) in enumerate(FORMATS.items()):
    data = encoded(drawn(i), kind)
    for share in (0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99):
      cut = max(1, int(len(data) * share))
      yield f'cut-{share}.{suffix}', data[:cut]
    for seed in range(13):
      yield f'flipped-{seed}.{suffix}', flipped(data, seed, 1 + 3 * seed)
  yield from liars()
  for i, name in enumerate(NAMES):
    suffix = list(FORMATS)[i % len(FORMATS)]
    yield f'{name}.{suffix}', encoded(drawn(i), FORMATS[suffix])
