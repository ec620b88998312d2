"""Every kind of image file comes out as uint8 RGB, or is refused in words."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from leukemia_jax.data import decode
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal

LIMIT = 10**6


def encoded(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
  stream = io.BytesIO()
  image.save(stream, kind, **options)
  return stream.getvalue()


@pytest.fixture
def rgb(smear) -> Image.Image:
  return Image.fromarray(smear[:40, :60])


def decoded(data: bytes) -> np.ndarray:
  image = decode.decode(data, decode.Options(LIMIT)).image
  assert image.mode == 'RGB'
  return np.asarray(image)


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'PPM'])
def test_lossless_formats_come_back_whole(rgb, kind):
  np.testing.assert_array_equal(decoded(encoded(rgb, kind)), np.asarray(rgb))


def test_grey_is_repeated(rgb):
  out = decoded(encoded(rgb.convert('L')))
  for channel in range(3):
    np.testing.assert_array_equal(
      out[..., channel], np.asarray(rgb.convert('L'))
    )


def test_transparent_shows_white(rgb):
  image = rgb.convert('RGBA')
  alpha = np.full((40, 60), 255, np.uint8)
  alpha[:10] = 0
  image.putalpha(Image.fromarray(alpha))
  out = decoded(encoded(image))
  assert (out[:10] == 255).all()
  np.testing.assert_array_equal(out[10:], np.asarray(rgb)[10:])


def test_palette(rgb):
  palette = rgb.quantize(200)
  np.testing.assert_array_equal(
    decoded(encoded(palette)), np.asarray(palette.convert('RGB'))
  )


def test_cmyk(rgb):
  data = encoded(rgb.convert('CMYK'), 'TIFF')
  difference = decoded(data).astype(int) - np.asarray(rgb)
  assert np.abs(difference).max() <= 1


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bit_grey(kind):
  values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
  out = decoded(encoded(Image.fromarray(values), kind))
  np.testing.assert_array_equal(out[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize('kind', ['P5', 'P2'])
def test_grey_of_12_bits_in_a_pgm(kind):
  values = np.array([[0, 200, 1023], [2047, 4094, 4095]], '>u2')
  pixels = values.tobytes()
  if kind == 'P2':
    pixels = b' '.join(b'%d' % value for value in values.ravel())
  data = kind.encode() + b'\n# a camera\n3 2\n4095\n' + pixels
  for white, expected in (
    (0, np.round(values * (255 / 4095))),
    (4095, np.round(values * (255 / 4095))),
    (1023, np.minimum(255, np.round(values * (255 / 1023)))),
  ):
    got = decode.decode(data, decode.Options(LIMIT, white_level=white))
    np.testing.assert_array_equal(np.asarray(got.image)[..., 0], expected)
    assert (got.bits, got.peak) == (12, 4095)
  mask = decode.decode(data, decode.Options(LIMIT), is_mask=True).image
  np.testing.assert_array_equal(
    np.asarray(mask)[..., 0], np.minimum(values, 255)
  )


@pytest.mark.parametrize(
  'comment', [b'# by x\r', b'#' + 5000 * b'a' + b'\n', b'# 1 2\n' * 700]
)
def test_comments_of_a_pgm(comment):
  data = b'P5\n' + comment + b'3 2\n4095\n' + 6 * b'\x08\0'
  assert (decoded(data) == round(2048 * 255 / 4095)).all()


def test_a_dark_pgm_of_12_bits_is_none_of_8():
  dark = b'P5 3 2 4095 ' + 6 * b'\0\xc8'
  assert (decoded(dark) == round(200 * 255 / 4095)).all()


def test_a_masks_labels_and_cut_outs(rgb):
  def read(data):
    mask = decode.decode(data, decode.Options(LIMIT), is_mask=True).image
    return np.asarray(mask)

  # Labels of a 16-bit mask are no shades: 1 is not 1 / 257.
  labels = np.arange(400, dtype=np.uint16).reshape(20, 20)
  for kind in ('PNG', 'TIFF'):
    got = read(encoded(Image.fromarray(labels), kind))
    np.testing.assert_array_equal(got[..., 0], np.minimum(labels, 255))
  image = rgb.convert('RGBA')
  alpha = np.full((40, 60), 255, np.uint8)
  alpha[:10] = 0
  image.putalpha(Image.fromarray(alpha))
  got = read(encoded(image))
  assert not got[:10].any()
  np.testing.assert_array_equal(got[10:], np.asarray(rgb)[10:])


def test_floating_point_and_32_bit_grey_are_refused():
  image = Image.fromarray(np.ones((4, 4), np.float32))
  with pytest.raises(decode.BadImageError, match='floating-point'):
    decode.decode(encoded(image, 'TIFF'), decode.Options(LIMIT))
  image = Image.fromarray(np.full((4, 4), 200, np.int32))
  with pytest.raises(decode.BadImageError, match='32 bits a sample'):
    decoded(encoded(image, 'TIFF'))


def test_a_portable_float_map_is_refused():
  with pytest.raises(decode.BadImageError, match='floating-point'):
    decoded(b'Pf\n2 2\n-1.0\n' + np.full(4, 0.5, np.float32).tobytes())


@pytest.mark.parametrize('samples', [2, 4])
def test_16_bits_with_alpha(samples):
  values = np.full((4, 6, samples), 2048, np.uint16)
  values[:2, :, -1] = 0
  values[2:, :, -1] = 65535
  data = imagecodecs.png_encode(values)
  got = decode.decode(data, decode.Options(LIMIT, white_level=4095))
  assert (got.bits, got.peak) == (16, 2048)
  # What is transparent shows white, as without a white level.
  assert set(np.unique(got.image).tolist()) == {128, 255}
  assert (np.asarray(got.image)[:2] == 255).all()
  # It is of photographs alone.
  masks = [
    np.asarray(decode.decode(data, own, is_mask=True).image)
    for own in (decode.Options(LIMIT), decode.Options(LIMIT, white_level=4095))
  ]
  np.testing.assert_array_equal(*masks)
  # Its values may be labels: they are cut off, not scaled.
  labels = np.where(values == 2048, 7, values)
  data = imagecodecs.png_encode(labels.astype(np.uint16))
  got = decode.decode(data, decode.Options(LIMIT), is_mask=True)
  assert set(np.unique(got.image).tolist()) == {0, 7}


def test_an_orientation_that_is_none_is_left_alone(rgb):
  # A text, where a number belongs.
  exif = b'Exif\0\0II*\0' + struct.pack('<IHHHI4sI', 8, 1, 274, 2, 2, b'6', 0)
  got = decode.decode(encoded(rgb, 'PNG', exif=exif), decode.Options(LIMIT))
  assert got.orientation == 1
  np.testing.assert_array_equal(np.asarray(got.image), np.asarray(rgb))


def test_one_bit():
  image = Image.fromarray(np.eye(20) > 0)
  assert set(np.unique(decoded(encoded(image)))) == {0, 255}


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(rgb, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  turned = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
  }
  expected = rgb.transpose(turned[orientation]) if orientation > 1 else rgb
  out = decoded(encoded(rgb, 'PNG', exif=exif))
  np.testing.assert_array_equal(out, np.asarray(expected))


@pytest.mark.parametrize(
  ('data', 'why'),
  [
    (b'', 'empty'),
    (b'hello, this is text', 'not an image'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n', 'not an image'),
    (b'\x89PNG\r\n\x1a\n', 'not an image|damaged'),
  ],
)
def test_not_an_image(data, why):
  with pytest.raises(decode.BadImageError, match=why):
    decode.decode(data, decode.Options(LIMIT))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('share', [0.3, 0.6, 0.9])
def test_truncated(rgb, kind, share):
  data = encoded(rgb, kind)
  with pytest.raises(decode.BadImageError):
    decode.decode(data[: int(len(data) * share)], decode.Options(LIMIT))


def test_pixel_limit_is_checked_before_decoding(rgb):
  # The header alone: decoding would fail, the limit comes first.
  data = encoded(Image.new('RGB', (3000, 3000)), 'PNG')[:200]
  with pytest.raises(decode.BadImageError, match=r'3000 x 3000.*max_pixels'):
    decode.decode(data, decode.Options(LIMIT))


def test_what_pillow_takes_for_a_bomb_is_refused_whatever_the_limit():
  bomb = encoded(Image.new('1', (20000, 20000)), 'PNG')
  with pytest.raises(decode.BadImageError, match='Pillow opens no more'):
    decode.decode(bomb)


def test_to_size_keeps_the_shape_of_cells():
  image = Image.new('RGB', (120, 60), 'white')
  image.paste('black', (50, 20, 70, 40))  # a square in the middle
  out = decode.to_size(image, 30)[..., 0] < 128
  assert out.shape == (30, 30)
  assert out.any(0).sum() == out.any(1).sum() == 10
  same = np.asarray(Image.new('RGB', (30, 30), 'red'))
  out = decode.to_size(Image.fromarray(same), 30)
  np.testing.assert_array_equal(out, same)


def test_corners_are_hidden_before_an_image_is_mirrored():
  image = Image.fromarray(np.full((90, 90, 3), 7, np.uint8))
  shown, hidden = (
    decode.to_scale(image, 90, 0.5, removal=Removal(hide_corners=hides))
    for hides in (False, True)
  )
  assert (shown == 7).all() and hidden.shape == (90, 90, 3)
  # The image lies from 22 to 67.
  inside = colour.hide_corners(np.full((45, 45, 3), 7, np.uint8))
  np.testing.assert_array_equal(hidden[22:67, 22:67], inside)
  assert (hidden[[22, 21], 22] == 240).all()
  whole = decode.to_scale(image, 90, 1.0, removal=Removal(hide_corners=True))
  assert (whole == 7).all()


def test_a_smaller_image_has_the_colours_of_a_larger_one():
  # A background that is not grey, and a cell.
  pixels = np.full((90, 90, 3), (200, 185, 205), np.uint8)
  pixels[30:60, 30:60] = (110, 70, 140)
  image = Image.fromarray(pixels)
  removal = Removal(hide_corners=True, white_balance=True)

  def seen(scale):
    scaled = decode.to_scale(image, 90, scale, removal=removal)
    out = np.asarray(colour.remove_all(scaled[None], None, removal))[0]
    return out[45, 45], out[45, 23 + round(4 * scale)]

  for small, large in zip(seen(0.5), seen(1.0), strict=True):
    np.testing.assert_allclose(small.astype(int), large.astype(int), atol=2)
