"""From files to arrays: the builder's checks and what `load` gives back."""

import pathlib
import shutil
import tempfile

import conftest
import jax
import numpy as np
import pytest
from PIL import Image

from leukemia_jax.data import (
  builder,
  dataset,
  decode,
  masks,
  records,
  synthetic,
  synthetic_cells,
)
from leukemia_jax.errors import InputError
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal


def spec(tmp_path: pathlib.Path, folder, **changes) -> builder.SourceSpec:
  values = {
    'source': str(folder),
    'cache_dir': str(tmp_path / 'cache'),
    'reading': conftest.reading(),
    'decoding': decode.Options(max_pixels=10**6),
    'synthetic_scale': 0.01,
    'synthetic_seed': 0,
  }
  return builder.SourceSpec(**values | changes)


def load(tmp_path, folder, size=32, skip=False, **changes):
  prepared = builder.prepare(spec(tmp_path, folder, **changes))
  dataset.refuse_flaws(prepared, str(folder), skip)
  return dataset.load(prepared, records.Reading(size))


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  path = tmp_path / 'set'
  conftest.save_images(path, {'a': 4, 'b': 3}, size=32)
  return path


def test_preparing_leaves_no_temporary_folder(tmp_path, folder, monkeypatch):
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
  load(tmp_path, folder)
  assert not list(temporary.iterdir())


def test_what_goes_in_comes_out(tmp_path, folder):
  data, catalogue = load(tmp_path, folder)
  assert catalogue.class_names == ('a', 'b')
  assert np.asarray(data.labels).tolist() == [0, 0, 0, 0, 1, 1, 1]
  for image, name in zip(np.asarray(data.images), catalogue.ids, strict=True):
    expected = np.asarray(Image.open(folder / name))
    np.testing.assert_array_equal(image, expected)
  assert data.images.dtype == np.uint8
  assert len(set(catalogue.pixel_hashes)) == 7
  assert catalogue.num_patients is None
  assert catalogue.num_masks == 0
  for image, mean in zip(data.images, catalogue.mean_colours, strict=True):
    np.testing.assert_allclose(np.asarray(image).mean((0, 1)), mean)


def test_equal_images_share_a_hash(tmp_path, folder):
  shutil.copy(folder / 'a/cell-1.png', folder / 'a/cell-9.png')
  # The same pixels in another format are the same image, mirrored or not.
  for i, turn in enumerate(Image.Transpose):
    turned = Image.open(folder / 'b/cell-0.png').transpose(turn)
    turned.save(folder / f'b/twin-{i}.bmp')
  _, catalogue = load(tmp_path, folder)
  group = dict(zip(catalogue.ids, catalogue.pixel_hashes, strict=True))
  assert group['a/cell-9.png'] == group['a/cell-1.png']
  for i in range(len(Image.Transpose)):
    assert group[f'b/twin-{i}.bmp'] == group['b/cell-0.png']
  assert len(set(catalogue.pixel_hashes)) == 7
  assert catalogue.num_duplicates == 1 + len(Image.Transpose)


def test_images_of_two_classes_are_refused_or_left_out(tmp_path, folder):
  turned = Image.open(folder / 'a/cell-1.png').transpose(
    Image.Transpose.TRANSVERSE
  )
  turned.save(folder / 'b/again.png')
  with pytest.raises(InputError) as caught:
    load(tmp_path, folder)
  text = str(caught.value)
  assert '1 images stand in several classes' in text
  assert 'a/cell-1.png (a) = b/again.png (b)' in text
  assert 'config.data.on_bad_image=skip' in text
  data, catalogue = load(tmp_path, folder, skip=True)
  assert len(catalogue.ids) == len(data.images) == 6
  assert 'a/cell-1.png' not in catalogue.ids
  assert sorted(catalogue.contradictory) == ['a/cell-1.png', 'b/again.png']


def test_prepared_once_and_again_when_a_file_changes(tmp_path, folder):
  first = builder.prepare(spec(tmp_path, folder))
  stamp = first.stat().st_mtime_ns
  assert builder.prepare(spec(tmp_path, folder)) == first
  assert first.stat().st_mtime_ns == stamp
  _, before = dataset.load(first, records.Reading(32))
  Image.new('RGB', (32, 32)).save(folder / 'a/cell-0.png')
  second = builder.prepare(spec(tmp_path, folder))
  _, after = dataset.load(second, records.Reading(32))
  assert second != first
  assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
  'removal',
  [
    Removal(),
    Removal(white_balance=True),
    Removal(hide_corners=True, white_balance=True, grey=True),
  ],
  ids=str,
)
def test_new_images_are_prepared_as_those_of_training(tmp_path, removal):
  """Byte for byte, whatever their size, and in whatever batch."""
  rng = np.random.default_rng(0)
  (tmp_path / 'set/a').mkdir(parents=True)
  (tmp_path / 'set/b').mkdir()
  for i, (width, height) in enumerate([(90, 70), (64, 64), (31, 52), (40, 40)]):
    coarse = rng.integers(100, 256, (6, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height))
    image.save(tmp_path / 'set' / 'ab'[i % 2] / f'{i}.jpg')
  prepared = builder.prepare(spec(tmp_path, tmp_path / 'set'))
  trained_on, catalogue = dataset.load(
    prepared, records.Reading(40, removal=removal)
  )
  squares = np.stack(
    [
      decode.to_scale(
        decode.decode((tmp_path / 'set' / name).read_bytes()).image, 40, 1.0
      )
      for name in catalogue.ids
    ]
  )
  for size in (1, 4):
    new = np.concatenate(
      [
        colour.remove_all(squares[i : i + size], None, removal)
        for i in range(0, 4, size)
      ]
    )
    np.testing.assert_array_equal(new, trained_on.images)


def test_removal_is_that_of_each_image(tmp_path):
  """More images than a batch, so that the last one is filled up."""
  conftest.save_images(tmp_path / 'set', {'a': 40, 'b': 30}, size=32)
  prepared = builder.prepare(spec(tmp_path, tmp_path / 'set'))
  plain, _ = dataset.load(prepared, records.Reading(32))
  removal = Removal(hide_corners=True, grey=True)
  reading = records.Reading(32, removal=removal)
  removed, _ = dataset.load(prepared, reading)
  for before, after in zip(plain.images, removed.images, strict=True):
    expected = colour.remove(before, None, removal)
    assert abs(np.asarray(expected).astype(int) - after).max() <= 1


def test_all_bad_files_are_named_at_once(tmp_path, folder):
  (folder / 'a/empty.png').write_bytes(b'')
  (folder / 'a/page.png').write_text('hello')
  whole = (folder / 'b/cell-0.png').read_bytes()
  (folder / 'b/cell-0.png').write_bytes(whole[: len(whole) // 2])
  Image.new('RGB', (1001, 1000)).save(folder / 'b/large.png')
  with pytest.raises(InputError) as caught:
    load(tmp_path, folder)
  text = str(caught.value)
  assert '4 of 10 images' in text
  for expected in (
    'a/empty.png: the file is empty',
    'a/page.png: not an image',
    'b/cell-0.png: damaged',
    'b/large.png: 1001 x 1000 px is over config.data.max_pixels=1000000',
    'config.data.on_bad_image=skip',
  ):
    assert expected in text
  _, catalogue = load(tmp_path, folder, skip=True)
  assert len(catalogue.ids) == 6
  assert len(catalogue.bad_images) == 4
  # What was refused is not read again to leave it out.
  assert len(list((tmp_path / 'cache').rglob('dataset_info.json'))) == 1


def test_nothing_but_bad_images(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / 'set' / name).mkdir(parents=True)
    (tmp_path / 'set' / name / 'x.png').write_bytes(b'no')
  with pytest.raises(InputError, match='2 of 2 images'):
    load(tmp_path, tmp_path / 'set', skip=True)


def test_masks_are_kept(tmp_path):
  root = tmp_path / 'set'
  conftest.save_images(root / 'Original', {'a': 3, 'b': 3}, size=16)
  conftest.save_images(root / 'Segmented', {'a': 3, 'b': 2}, size=16)
  _, catalogue = load(tmp_path, root)
  assert catalogue.num_masks == 5
  assert catalogue.notes.unpaired == ['Original/b/cell-2.png']


@pytest.mark.full
def test_synthetic_records_are_the_rendered_images(tmp_path):
  data, catalogue = load(tmp_path, 'synthetic', size=224)
  labels, patients = synthetic.assign_patients(0.01)
  np.testing.assert_array_equal(data.labels, labels)
  image, _ = synthetic.render_image(
    jax.random.key(0),
    7,
    labels[7],
    patients[7],
    spec=synthetic_cells.SmearSpec(),
  )
  np.testing.assert_array_equal(data.images[7], image)
  assert catalogue.num_masks == len(labels)
  assert catalogue.num_patients == len(set(patients))


def test_copies_depend_on_source_and_number_alone(tmp_path, folder):
  data, _ = load(tmp_path, folder)
  key = jax.random.key(0)

  def noise(key, image):
    return image + jax.random.randint(key, (), 0, 200).astype(np.uint8)

  rows = np.array([[0, 1], [3, 1], [3, 2], [6, 1]], np.int32)
  every = dataset.with_copies(data, rows, key, noise)
  some = dataset.with_copies(data, rows[[2, 0]], key, noise)
  np.testing.assert_array_equal(every.images[:7], data.images)
  np.testing.assert_array_equal(every.images[9], some.images[7])
  np.testing.assert_array_equal(every.images[7], some.images[8])
  assert np.asarray(every.labels[7:]).tolist() == [0, 0, 0, 1]
  assert (np.asarray(every.images[8]) != np.asarray(every.images[9])).any()
  unchanged = dataset.with_copies(data, rows[:0], key, noise)
  assert unchanged is data


def masked(size):
  return records.Reading(size, masks=masks.Reading('grey>0', False, 60))


def save_pairs(root, classes, size=32, low=0, high=255):
  """Images whose masks are their left halves, of two levels of grey."""
  conftest.save_images(root / 'Original', classes, size=size)
  for path in (root / 'Original').rglob('*.png'):
    mask = np.full((size, size), low, np.uint8)
    mask[:, : size // 2] = high
    there = root / 'Segmented' / path.relative_to(root / 'Original')
    there.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(there)


@pytest.mark.parametrize('levels', [(0, 255), (0, 1), (0, 128)])
def test_masks_are_read_by_the_rule(tmp_path, levels):
  save_pairs(tmp_path / 'set', {'a': 2, 'b': 1}, low=levels[0], high=levels[1])
  (tmp_path / 'set/Segmented/b/cell-0.png').unlink()
  prepared = builder.prepare(spec(tmp_path, tmp_path / 'set'))
  data, catalogue = dataset.load(prepared, masked(16))
  assert data.masks.shape == (3, 16, 16, 1) and data.masks.dtype == np.uint8
  expected = np.zeros((16, 16))
  expected[:, :8] = 1
  for mask in data.masks[:2, ..., 0]:
    np.testing.assert_array_equal(mask, expected)
  assert not data.masks[2].any()
  assert catalogue.coverage[:2].tolist() == [0.5, 0.5]
  assert np.isnan(catalogue.coverage[2])
  assert catalogue.num_multicolour_masks == 0
  plain, unread = dataset.load(prepared, records.Reading(16))
  assert plain.masks is None and np.isnan(unread.coverage).all()


def test_masks_of_three_colours_are_counted(tmp_path):
  save_pairs(tmp_path / 'set', {'a': 2, 'b': 1})
  path = tmp_path / 'set/Segmented/a/cell-0.png'
  mask = np.zeros((32, 32, 3), np.uint8)
  mask[:4], mask[4:8] = (255, 0, 0), (0, 255, 0)
  Image.fromarray(mask).save(path)
  prepared = builder.prepare(spec(tmp_path, tmp_path / 'set'))
  data, catalogue = dataset.load(prepared, masked(32))
  assert catalogue.num_multicolour_masks == 1
  assert (
    np.asarray(data.masks[0, ..., 0]).sum(1).tolist() == [32] * 8 + [0] * 24
  )


def test_bad_masks_are_named_and_their_images_kept(tmp_path):
  save_pairs(tmp_path / 'set', {'a': 2, 'b': 2})
  Image.new('L', (32, 30)).save(tmp_path / 'set/Segmented/a/cell-1.png')
  (tmp_path / 'set/Segmented/b/cell-0.png').write_bytes(b'no')
  prepared = builder.prepare(spec(tmp_path, tmp_path / 'set'))
  data, catalogue = dataset.load(prepared, masked(32))
  one, two = catalogue.bad_masks
  assert one == (
    'Segmented/a/cell-1.png: this mask is 32 x 30 px, its image 32 x 32'
  )
  assert two.startswith('Segmented/b/cell-0.png: not an image')
  assert len(data.labels) == 4 and catalogue.num_masks == 2
  assert np.isnan(catalogue.coverage).tolist() == [False, True, True, False]
  assert catalogue.mask_side == 32


def test_select_keeps_images_masks_and_catalogue_together(tmp_path):
  save_pairs(tmp_path / 'set', {'a': 3, 'b': 2})
  prepared = builder.prepare(spec(tmp_path, tmp_path / 'set'))
  data, catalogue = dataset.load(prepared, masked(32))
  rows = np.array([4, 0])
  some, of_some = dataset.select(data, catalogue, rows)
  for got, expected in zip(some, data, strict=True):
    np.testing.assert_array_equal(got, expected[rows])
  assert of_some.ids == (catalogue.ids[4], catalogue.ids[0])
  assert of_some.labels.tolist() == [1, 0]
  assert of_some.fingerprint == catalogue.fingerprint


def test_copies_have_their_masks(tmp_path):
  save_pairs(tmp_path / 'set', {'a': 2, 'b': 1})
  prepared = builder.prepare(spec(tmp_path, tmp_path / 'set'))
  data, _ = dataset.load(prepared, masked(32))

  def turn(key, image, mask):
    return image[:, ::-1], mask[:, ::-1]

  rows = np.array([[2, 1], [0, 1]], np.int32)
  every = dataset.with_copies(data, rows, jax.random.key(0), turn)
  np.testing.assert_array_equal(
    every.masks[3:], data.masks[rows[:, 0], :, ::-1]
  )
  np.testing.assert_array_equal(
    every.images[3:], data.images[rows[:, 0], :, ::-1]
  )
