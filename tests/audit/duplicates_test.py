"""Planted twins of every kind stand out; different smears never do."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from leukemia_jax.audit import duplicates
from leukemia_jax.data import checked, synthetic, synthetic_cells


def draw(count: int, side: int = 112) -> np.ndarray:
  key, spec = jax.random.key(0), synthetic_cells.SmearSpec()
  images = []
  for i in range(count):
    image, _ = synthetic.render_image(key, i, i % 4, i // 4, spec=spec)
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    images.append(np.asarray(small))
  return np.stack(images)


@pytest.fixture(scope='module')
def smears() -> np.ndarray:
  return draw(40)


def find(images: np.ndarray) -> duplicates.Duplicates:
  hashes = [checked.hash_pixels(image) for image in images]
  return duplicates.find_duplicates(images, hashes, seed=0)


def compressed(image: Image.Image, quality: int) -> np.ndarray:
  stream = io.BytesIO()
  image.save(stream, 'JPEG', quality=quality)
  return np.asarray(Image.open(stream))


def twins(image: np.ndarray) -> dict[str, np.ndarray]:
  """The same field once more, as laboratories and augmentations have it."""
  picture = Image.fromarray(image)
  moved = np.roll(image, (6, -5), (0, 1))
  bright = picture.point(lambda value: min(255, round(1.1 * value)))
  return {
    'compressed': compressed(picture, 50),
    'turned': compressed(picture.rotate(17, Image.Resampling.BILINEAR), 75),
    'mirrored and turned': compressed(
      picture.transpose(Image.Transpose.TRANSVERSE).rotate(-9), 90
    ),
    'brighter': np.asarray(bright),
    'shifted': moved,
  }


def test_smears_have_no_twins(smears):
  pairs = find(smears)
  assert not pairs.exact and not pairs.oriented and not pairs.near


@pytest.mark.parametrize(
  'kind',
  [
    'mirrored and turned',
    'shifted',
    *(
      pytest.param(kind, marks=pytest.mark.full)
      for kind in ('compressed', 'turned', 'brighter')
    ),
  ],
)
def test_a_near_twin_is_told(smears, kind):
  pairs = find(np.concatenate([smears, twins(smears[7])[kind][None]]))
  assert [pair[:2] for pair in pairs.near] == [(7, 40)]
  assert pairs.near[0].similarity > pairs.threshold
  assert not pairs.exact and not pairs.oriented


def test_equal_and_turned_images_are_told_apart(smears):
  more = np.stack([smears[3], np.rot90(smears[5]), smears[5, :, ::-1]])
  pairs = find(np.concatenate([smears, more]))
  assert pairs.exact == [(3, 40, 1.0)]
  assert [pair[:2] for pair in pairs.oriented] == [(5, 41), (5, 42)]
  assert not pairs.near


def test_a_set_of_twins_is_all_named(smears):
  """Many random pairs of a small set are twins: none is held for usual."""
  images = np.concatenate(
    [smears[:8], *(np.stack(list(twins(s).values())) for s in smears[:8])]
  )
  pairs = find(images)
  source = np.concatenate([np.arange(8), np.repeat(np.arange(8), 5)])
  for pair in pairs.near:
    assert source[pair.first] == source[pair.second]
  named = {i for pair in pairs.near for i in pair[:2]}
  assert named == set(range(len(images)))


def test_one_field_and_its_copies_are_no_usual_pairs():
  """Where all are twins no random pair says what strangers look like."""
  (smear,) = draw(1)
  copies = [compressed(Image.fromarray(smear), q) for q in (40, 60, 80)]
  for count in (1, 2, 3):
    pairs = find(np.stack([smear, *copies[:count]]))
    assert len(pairs.near) == count * (count + 1) // 2
    assert pairs.threshold == duplicates._LEAST_CORRELATION


def test_many_equal_images_are_each_with_the_first():
  images = np.full((300, 64, 64, 3), 200, np.uint8)
  pairs = find(images)
  assert [pair[:2] for pair in pairs.exact] == [(0, i) for i in range(1, 300)]
  # Images of one colour have no detail to compare.
  images[:, 0, 0] = np.arange(300)[:, None] // 2
  pairs = find(images)
  assert len(pairs.exact) == 150 and not pairs.near
  assert np.isfinite(pairs.threshold)
