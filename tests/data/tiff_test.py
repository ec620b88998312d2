"""TIFF: equal to tifffile's reading, or refused by name."""

import io
import itertools
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from conftest import ROOT
from PIL import Image

from leukemia_jax.data import decode, tiff

BITS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16)
LAYOUTS = (
  ('miniswhite', None, ()),
  ('minisblack', None, ()),
  ('palette', None, ()),
  ('rgb', 'contig', ()),
  ('rgb', 'separate', ()),
  ('rgb', 'contig', ('unassalpha',)),
  ('separated', 'contig', ()),
  ('separated', 'separate', ()),
)
COMPRESSIONS = (None, 'lzw', 'zlib', 'packbits', 'lzma', 'zstd')
SHAPE = (37, 41)


def samples(bits: int, layout: tuple) -> np.ndarray:
  photometric, planar, extra = layout
  count = {'rgb': 3, 'separated': 4}.get(photometric, 1) + len(extra)
  shape = SHAPE if count == 1 else (*SHAPE, count)
  values = np.random.default_rng(bits).integers(0, 2**bits, shape)
  if planar == 'separate':
    values = np.moveaxis(values, -1, 0)
  dtype = bool if bits == 1 else np.uint8 if bits <= 8 else np.uint16
  return values.astype(dtype)


def written(bits, layout, compression=None, byteorder='<', **more) -> bytes:
  """A TIFF, or '' where tifffile itself doesn't write such a one."""
  photometric, planar, extra = layout
  values = samples(bits, layout)
  if photometric == 'palette':
    if bits not in (8, 16):
      return b''
    more['colormap'] = palette(bits)
  if bits not in (1, 8, 16):
    more['bitspersample'] = bits
  stream = io.BytesIO()
  try:
    tifffile.imwrite(
      stream,
      values,
      photometric=photometric,
      planarconfig=planar,
      extrasamples=extra or None,
      compression=compression,
      byteorder=byteorder,
      metadata=None,
      **more,
    )
  except (ValueError, NotImplementedError, TypeError):
    return b''
  return stream.getvalue()


def palette(bits: int) -> np.ndarray:
  return np.random.default_rng(7).integers(0, 2**16, (3, 2**bits), np.uint16)


def expected(
  bits: int, layout: tuple, stored: np.ndarray | None = None
) -> np.ndarray:
  """The picture that samples mean, by the standard's words."""
  photometric, planar, extra = layout
  stored = samples(bits, layout) if stored is None else stored
  values = stored.astype(np.float64)
  if planar == 'separate':
    values = np.moveaxis(values, 0, -1)
  if photometric == 'palette':
    colours = palette(bits)[:, stored]
    return np.moveaxis(colours >> 8, 0, -1).astype(np.uint8)
  values /= 2**bits - 1
  if photometric == 'miniswhite':
    values = 1 - values
  eight = np.round(values * 255).astype(np.uint8)
  if photometric == 'separated':
    return np.asarray(Image.fromarray(eight, 'CMYK').convert('RGB'))
  if extra:
    image = Image.fromarray(eight, 'RGBA')
    white = Image.new('RGBA', image.size, 'white')
    return np.asarray(Image.alpha_composite(white, image).convert('RGB'))
  if eight.ndim == 2:
    return np.repeat(eight[..., None], 3, -1)
  return eight


def check_grid() -> tuple[int, set[str]]:
  """Compares the whole grid; returns how many were read, and refusals."""
  read, refusals = 0, set()
  for bits, layout, compression, byteorder in itertools.product(
    BITS, LAYOUTS, COMPRESSIONS, '<>'
  ):
    data = written(bits, layout, compression, byteorder)
    if not data:
      continue
    try:
      image = decode.decode(data).image
    except decode.BadImageError as error:
      refusals.add(str(error))
      continue
    read += 1
    # tifffile packs what has neither 8 nor 16 bits otherwise where the file is
    # big-endian: what counts is how it reads that.
    stored = tifffile.imread(io.BytesIO(data))
    if byteorder == '<':
      np.testing.assert_array_equal(stored, samples(bits, layout))
    np.testing.assert_array_equal(
      np.asarray(image),
      expected(bits, layout, stored),
      f'{bits} {layout} {compression}',
    )
  return read, refusals


def test_grid():
  read, refusals = check_grid()
  assert read > 300
  # What tifffile reads and this program doesn't is named.
  assert refusals == {
    'TIFF with the compression LZMA; save it with LZW, deflate or none',
    'TIFF with the compression ZSTD; save it with LZW, deflate or none',
    'TIFF of 1 bit a colour; save it with 8 bits',
  }


def test_grid_without_codecs():
  """What a plain installation reads is the same, and the rest is named."""
  # The files are written with codecs, and read without.
  code = (
    'import sys, pickle\n'
    'sys.modules["imagecodecs"] = None\n'
    'sys.path.insert(0, "tests/data"); sys.path.insert(0, "tests")\n'
    'import numpy as np\n'
    'from leukemia_jax.data import decode\n'
    'import tiff_test as t\n'
    'files = pickle.load(sys.stdin.buffer)\n'
    'read, refusals = 0, set()\n'
    'for bits, layout, data in files:\n'
    '  try:\n'
    '    image = decode.decode(data).image\n'
    '  except decode.BadImageError as error:\n'
    '    refusals.add(str(error))\n'
    '    continue\n'
    '  read += 1\n'
    '  np.testing.assert_array_equal(np.asarray(image),'
    ' t.expected(bits, layout))\n'
    'print(read, sorted(refusals))\n'
  )
  files = [
    (bits, layout, written(bits, layout, compression))
    for bits, layout, compression in itertools.product(
      BITS, LAYOUTS, (None, 'lzw', 'zlib', 'packbits')
    )
  ]
  files = [file for file in files if file[-1]]
  done = subprocess.run(
    [sys.executable, '-c', code],
    input=pickle.dumps(files),
    cwd=ROOT,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr.decode()
  read, _, refusals = done.stdout.decode().partition(' ')
  assert int(read) > 60
  assert 'pip install' in refusals
  assert 'damaged' not in refusals


def test_three_grey_pages_are_channels_and_others_are_counted():
  rng = np.random.default_rng(0)
  pages = rng.integers(0, 256, (3, *SHAPE), np.uint8)
  stream = io.BytesIO()
  tifffile.imwrite(stream, pages, photometric='minisblack')
  decoded = decode.decode(stream.getvalue())
  np.testing.assert_array_equal(
    np.asarray(decoded.image), np.moveaxis(pages, 0, -1)
  )
  assert not decoded.is_multipage
  stream = io.BytesIO()
  tifffile.imwrite(stream, pages[:2], photometric='minisblack')
  decoded = decode.decode(stream.getvalue())
  np.testing.assert_array_equal(np.asarray(decoded.image)[..., 0], pages[0])
  assert decoded.is_multipage


@pytest.mark.parametrize('tile', [None, (16, 32)])
@pytest.mark.parametrize('predictor', [False, True])
def test_tiles_strips_and_predictors(tile, predictor):
  layout = ('rgb', 'contig', ())
  for bits in (8, 16):
    data = written(
      bits, layout, 'zlib', '>', tile=tile, predictor=predictor or None
    )
    assert data
    image = np.asarray(decode.decode(data).image)
    np.testing.assert_array_equal(image, expected(bits, layout))


def test_jpeg_in_tiff():
  layout = ('rgb', 'contig', ())
  data = written(8, layout, 'jpeg')
  image = np.asarray(decode.decode(data).image)
  np.testing.assert_array_equal(image, tifffile.imread(io.BytesIO(data)))


def test_white_level():
  values = np.array([[0, 2048, 4095, 4096, 65535]], np.uint16)
  stream = io.BytesIO()
  tifffile.imwrite(stream, values)
  read = tiff.decode(
    stream.getvalue(), max_pixels=99, white_level=4095, is_mask=False
  )
  assert read.pixels.tolist() == [[0, 128, 255, 255, 255]]
  assert (read.bits, read.peak) == (16, 65535)
  labels = tiff.decode(
    stream.getvalue(), max_pixels=99, white_level=0, is_mask=True
  )
  assert labels.pixels.tolist() == [[0, 255, 255, 255, 255]]


def stored(values, **options) -> bytes:
  stream = io.BytesIO()
  tifffile.imwrite(stream, values, **options)
  return stream.getvalue()


def test_a_page_that_is_not_read_may_be_anything():
  stream = io.BytesIO()
  with tifffile.TiffWriter(stream) as file:
    file.write(np.full((5, 6, 3), 9, np.uint8), photometric='rgb')
    file.write(np.zeros((5, 6), np.float32))
  decoded = decode.decode(stream.getvalue())
  assert (np.asarray(decoded.image) == 9).all() and decoded.is_multipage


def test_a_mask_of_few_bits_is_no_label():
  values = np.array([[0, 15, 15, 0]], np.uint8)
  data = stored(values, photometric='minisblack', bitspersample=4)
  for is_mask in (False, True):
    read = tiff.decode(data, max_pixels=99, white_level=0, is_mask=is_mask)
    assert read.pixels.tolist() == [[0, 255, 255, 0]]


def test_white_is_of_colours_alone():
  values = np.zeros((1, 2, 4), np.uint16)
  values[..., :3], values[..., 3] = 2048, (65535, 32768)
  data = stored(values, photometric='rgb', extrasamples=['unassalpha'])
  read = tiff.decode(data, max_pixels=99, white_level=4095, is_mask=False)
  assert read.peak == 2048
  assert read.pixels[0].tolist() == [[128] * 3 + [255], [128] * 3 + [128]]


def test_colours_that_were_multiplied_by_alpha():
  values = np.array([[[100, 50, 0, 128], [0, 0, 0, 0]]], np.uint8)
  data = stored(values, photometric='rgb', extrasamples=['assocalpha'])
  read = tiff.decode(data, max_pixels=99, white_level=0, is_mask=False)
  assert read.pixels[0].tolist() == [[199, 100, 0, 128], [0, 0, 0, 0]]


def test_a_palette_of_two_colours(tmp_path):
  image = Image.new('P', (16, 3))
  image.putpalette([10, 20, 30, 200, 100, 50])
  image.putdata([0, 1] * 24)
  expected = np.asarray(image.convert('RGB'))
  # Pillow writes eight bits; two entries and a bit each by hand.
  bits = np.packbits(np.array(image, bool), axis=1)
  colours = np.zeros((3, 2), np.uint16)
  colours[:, 0], colours[:, 1] = (10, 20, 30), (200, 100, 50)
  data = by_hand(bits.tobytes(), 16, 3, (colours * 257).ravel().tolist())
  np.testing.assert_array_equal(np.asarray(decode.decode(data).image), expected)


def by_hand(strip: bytes, width: int, height: int, colours: list[int]) -> bytes:
  """A little-endian TIFF of a bit a pixel with a palette."""
  entries = [
    (256, 4, 1, width),
    (257, 4, 1, height),
    (258, 3, 1, 1),
    (259, 3, 1, 1),
    (262, 3, 1, 3),
    (273, 4, 1, 8),
    (277, 3, 1, 1),
    (278, 4, 1, height),
    (279, 4, 1, len(strip)),
    (320, 3, len(colours), 8 + len(strip)),
  ]
  palette = struct.pack(f'<{len(colours)}H', *colours)
  first = 8 + len(strip) + len(palette)
  table = struct.pack('<H', len(entries))
  table += b''.join(struct.pack('<HHII', *entry) for entry in entries)
  header = b'II*\0' + struct.pack('<I', first)
  return header + strip + palette + table + bytes(4)


@pytest.mark.parametrize('number', range(1, 9))
def test_orientation(number):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (4, 6, 3), np.uint8)
  stream = io.BytesIO()
  tag = (274, 'H', 1, number, True)
  tifffile.imwrite(stream, pixels, photometric='rgb', extratags=[tag])
  # Of a JPEG with that orientation, by Pillow.
  exif = Image.Exif()
  exif[274] = number
  png = io.BytesIO()
  Image.fromarray(pixels).save(png, 'PNG', exif=exif)
  np.testing.assert_array_equal(
    np.asarray(decode.decode(stream.getvalue()).image),
    np.asarray(decode.decode(png.getvalue()).image),
  )


@pytest.mark.parametrize(
  ('values', 'options', 'why'),
  [
    (np.zeros((4, 4), np.int16), {}, 'unsigned 8 or 16 bits'),
    (np.zeros((4, 4), np.uint32), {}, '32 bits a sample'),
    (np.zeros((4, 4), np.float32), {}, 'floating-point'),
    (np.zeros((4, 4, 5), np.uint8), {'planarconfig': 'contig'}, '5 channels'),
    (
      np.zeros((4, 4, 4), np.uint8),
      {'photometric': 'rgb', 'extrasamples': ['unspecified']},
      '4 channels',
    ),
    (np.zeros((4, 4, 3), np.uint8), {'photometric': 'cielab'}, 'CIELAB'),
    (
      np.zeros((16, 16, 16), np.uint8),
      {'volumetric': True, 'tile': (16, 16, 16)},
      'a volume',
    ),
  ],
)
def test_refused_by_name(values, options, why):
  stream = io.BytesIO()
  tifffile.imwrite(stream, values, metadata=None, **options)
  with pytest.raises(decode.BadImageError, match=why):
    decode.decode(stream.getvalue())


def test_limits():
  stream = io.BytesIO()
  tifffile.imwrite(stream, np.zeros((300, 300), np.uint8), compression='zlib')
  data = stream.getvalue()
  with pytest.raises(decode.BadImageError, match='300 x 300 px is over'):
    decode.decode(data, decode.Options(max_pixels=80_000))
  for cut in (len(data) // 2, 20, 6):
    with pytest.raises(decode.BadImageError, match='damaged'):
      decode.decode(data[:cut])
  # A strip that unpacks to a thousand times of what the image holds.
  stream = io.BytesIO()
  tifffile.imwrite(stream, np.zeros((300, 300), np.uint8), rowsperstrip=300)
  data = bytearray(stream.getvalue())
  with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
    page = file.pages[0]
    at = page.dataoffsets[0]
    tags = {code: page.tags[code].valueoffset for code in (259, 279)}
  bomb = zlib.compress(bytes(90_000_000))
  data[at : at + len(bomb)] = bomb
  data[tags[259] : tags[259] + 2] = (8).to_bytes(2, 'little')
  data[tags[279] : tags[279] + 4] = len(bomb).to_bytes(4, 'little')
  with pytest.raises(decode.BadImageError, match='more than it declares'):
    decode.decode(bytes(data))
