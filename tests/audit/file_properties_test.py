"""What files say without their pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from leukemia_jax.audit import file_properties


def saved(kind: str, **options) -> bytes:
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
  stream = io.BytesIO()
  Image.fromarray(pixels).save(stream, kind, **options)
  return stream.getvalue()


@pytest.mark.parametrize('quality', [20, 50, 75, 90, 95])
def test_quality_is_that_of_the_encoder(quality):
  traits = file_properties.read_traits(saved('JPEG', quality=quality))
  assert abs(traits.quality - quality) <= 1
  assert (traits.format, traits.width, traits.height) == ('JPEG', 30, 40)


def test_exif_profiles_and_kinds():
  exif = Image.Exif()
  exif[271] = 'Camera'
  files = [
    saved('JPEG', exif=exif),
    saved('PNG', icc_profile=b'profile'),
    saved('TIFF', icc_profile=b'profile'),
  ]
  traits = [file_properties.read_traits(data) for data in files]
  assert [own.format for own in traits] == ['JPEG', 'PNG', 'TIFF']
  assert [own.has_exif for own in traits] == [True, False, False]
  assert [own.has_profile for own in traits] == [False, True, True]
  assert {(own.width, own.height) for own in traits} == {(30, 40)}
  assert [own.bytes for own in traits] == list(map(len, files))
  features = file_properties.as_features(traits)
  assert features.shape == (3, 9) and np.isfinite(features).all()
