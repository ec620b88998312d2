"""What laboratories have on disk is read right, or refused with a way out."""

import json
import os
import pathlib
import unicodedata
from typing import Any

import drawn_inputs
import numpy as np
import public_sets
import pytest
from leukemia_jax.configs import default, unet
from PIL import Image

from leukemia_jax.commands import prepare
from leukemia_jax.errors import InputError
from leukemia_jax.workdir.prepared import Prepared

SIZE = 48


@pytest.fixture
def drawn(once):
  """Makes a kind of input once; gives its folder."""

  def make(kind: str) -> pathlib.Path:
    return once(f'input-{kind}', drawn_inputs.KINDS[kind])

  return make


def read(
  source: pathlib.Path, cache: str, config: Any = default, **changes: Any
) -> prepare.Reading:
  """How a source is read, with some keys of `config.data`."""
  values = config.get_config()
  values.data.source = str(source)
  values.data.cache_dir = cache.partition('=')[2]
  values.data.image_size = SIZE
  values.data.update(changes)
  return prepare.read(values)


def prepared(*args: Any, **changes: Any) -> Prepared:
  return read(*args, **changes).prepared


def refused(*args: Any, **changes: Any) -> str:
  with pytest.raises(InputError) as caught:
    read(*args, **changes)
  return str(caught.value)


def test_every_kind_has_a_test():
  text = pathlib.Path(__file__).read_text()
  for kind in drawn_inputs.KINDS:
    assert f"'{kind}'" in text, kind


def test_presplit(drawn, cache):
  reading = read(drawn('presplit'), cache)
  known = reading.prepared
  assert known.classes == {'Benign': 22, 'Malignant': 22}
  assert known.parts == {'train': 24, 'validation': 10, 'test': 10}
  ids = np.array(reading.catalogue.ids)
  for part, folder in (('train', 'train'), ('validation', 'val')):
    pairs = getattr(reading.split, part)
    assert {i.split('/')[0] for i in ids[pairs[:, 0]]} == {folder}
  assert len(reading.split.test) == 10
  anew = read(drawn('presplit'), cache, split='random')
  assert {i.split('/')[0] for i in ids[anew.split.test[:, 0]]} > {'train'}


def test_a_part_without_labels(drawn, cache):
  folder = drawn('presplit_unlabelled_test')
  text = refused(folder, cache)
  assert 'the 8 images of the test part have no class' in text
  assert 'config.data.table' in text and 'config.data.split=random' in text
  known = prepared(folder, cache, split='random')
  assert known.classes == {'Benign': 12, 'Malignant': 12}
  assert known.left_out == 8
  assert any('8 images have no class' in text for text in known.warnings)


def test_a_split_that_lacks_a_part(drawn, cache, tmp_path):
  drawn_inputs.classes(tmp_path / 'train', count=6)
  drawn_inputs.classes(tmp_path / 'val', count=4, first=50)
  text = refused(tmp_path, cache)
  assert 'train 12, validation 8 and lacks test' in text
  assert 'config.data.split=random' in text and 'config.data.label=' in text
  assert prepared(tmp_path, cache, split='random').images == 20
  as_classes = prepared(tmp_path, cache, label='(?:^|/)([^/]+)/')
  assert as_classes.classes == {'train': 12, 'val': 8}


def test_masks_beside_images(drawn, cache):
  known = prepared(drawn('masks_beside_images'), cache)
  assert known.classes == {'benign': 8, 'malignant': 8, 'normal': 8}
  assert known.masks == 24


def test_patients(drawn, cache):
  reading = read(drawn('patients'), cache)
  assert reading.prepared.classes == {'ALL': 24, 'HEM': 24}
  assert reading.prepared.patients == 12
  patients = np.array(reading.catalogue.patients)
  parts = [set(patients[pairs[:, 0]]) for pairs in reading.split]
  assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
  for setting in ('folder', 'folder:2', r'patient_(\d+)'):
    known = prepared(drawn('patients'), cache, patient=setting)
    assert known.patients == 12, setting
  known = prepared(drawn('patients'), cache, patient='')
  assert known.patients is None
  assert 'no patients known' in known.reading[1]
  text = refused(drawn('patients'), cache, patient=r'patient_0(\d+)')
  assert 'is not found in 24 of 48 paths' in text


@pytest.mark.parametrize(
  ('kind', 'masks'),
  [
    ('imgs_and_masks', 12),
    ('mask_suffix', 12),
    ('one_mask_a_cell', 10),
    ('masks_0_1', 12),
    ('masks_classes', 12),
    ('masks_dark_on_white', 12),
    ('masks_jpeg', 12),
    ('plain_pairs', 12),
  ],
)
def test_pairs(drawn, cache, kind, masks):
  known = prepared(drawn(kind), cache, unet, mask_rule='grey>0')
  assert known.images == known.masks == masks
  assert known.classes == {}
  assert known.mean[0] > known.mean[1]
  # For a classifier there is nothing to learn but masks.
  text = refused(drawn(kind), cache)
  assert f'none of its {masks} images has a class' in text
  assert '--config=configs/unet.py' in text


def test_one_mask_a_cell_is_joined(drawn, cache):
  reading = read(drawn('one_mask_a_cell'), cache, unet, mask_rule='grey>0')
  data = reading.load_some(np.arange(10))
  folder = drawn('one_mask_a_cell')
  for i, mask in enumerate(np.asarray(data.masks[..., 0])):
    cells = [
      np.asarray(Image.open(path)) > 0
      for path in (folder / f'field{i:02d}/masks').glob('*.png')
    ]
    assert len(cells) == 3
    np.testing.assert_array_equal(mask, np.any(cells, axis=0))


def test_masks_of_another_size(drawn, cache):
  text = refused(drawn('masks_half_size'), cache, unet)
  assert 'this mask is 32 x 32 px, its image 64 x 64' in text


def test_two_masks_of_one_image(drawn, cache):
  folder = drawn('two_masks_one_image')
  text = refused(folder, cache, unet)
  assert 'images/f000.png has two masks' in text
  assert 'masks/f000.png and masks/f000.tif' in text
  # What the error advises leads to a run.
  known = prepared(folder, cache, unet, mask_suffix='.png')
  assert known.masks == 12 and known.left_out == 12
  assert refused(folder, cache, unet, mask_suffix='.tif').count('empty')


def test_masks_of_turned_images(drawn, cache):
  squares = drawn('masks_of_turned_squares')
  known = prepared(squares, cache, unet)
  assert 'and 11 more: turned by EXIF, which the masks are' in known.warnings[0]
  photos = drawn('masks_of_turned_photos')
  assert 'config.data.turn_by_exif=False' in refused(photos, cache, unet)
  for folder in (squares, photos):
    reading = read(folder, cache, unet, turn_by_exif=False)
    assert reading.prepared.masks == 12 and not reading.prepared.warnings
    # Cells lie where the masks say: they are darker than the rest.
    data = reading.load_some(np.arange(12))
    masks = np.asarray(data.masks[..., 0]) > 0
    green = np.asarray(data.images[..., 1])
    assert green[masks].mean() + 80 < green[~masks].mean()


def test_a_table_of_labels(drawn, cache):
  folder = drawn('csv_labels')
  for table in ('auto', 'labels.csv', '*.csv', str(folder / 'labels.csv')):
    known = prepared(folder, cache, table=table)
    assert known.classes == {'ALL': 6, 'HEM': 6}, table
  assert 'has a class' in refused(folder, cache, table='')
  assert 'there is no such file' in refused(folder, cache, table='no.csv')


def test_what_systems_leave(drawn, cache):
  plain, junk, notes = (
    prepared(drawn(kind), cache)
    for kind in ('plain', 'system_junk', 'side_files')
  )
  assert plain.images == junk.images == notes.images == 24
  assert plain.fingerprint == junk.fingerprint == notes.fingerprint
  assert (plain.left_out, notes.left_out) == (0, 3)
  assert junk.left_out_by_reason == {"a system's": 6}


def test_links(drawn, cache):
  folder = drawn('linked_files') / 'set'
  text = refused(folder, cache)
  assert '24 files are links that lead out of' in text
  known = prepared(folder, cache, follow_links=True)
  assert known.classes == {'Benign': 12, 'Malignant': 12}


def test_two_spellings_of_a_name(drawn, cache):
  folder = drawn('two_spellings')
  names = {'Bénigne', 'Maligne'}
  for kind in ('set', 'other'):
    assert set(prepared(folder / kind, cache).classes) == {
      unicodedata.normalize('NFC', name) for name in names
    }


@pytest.mark.parametrize(
  ('kind', 'classes', 'each'),
  [
    ('numbers', [str(i) for i in range(11)], 4),
    ('thirty_classes', [f'type {i:02d}' for i in range(30)], 4),
    ('other_scripts', ['早期 前B (一)', 'سليم', 'Pro-B'], 12),
    ('dark_16_bit', ['Benign', 'Malignant'], 12),
    ('channel_pages', ['Benign', 'Malignant'], 12),
  ],
)
def test_classes(drawn, cache, kind, classes, each):
  assert prepared(drawn(kind), cache).classes == dict.fromkeys(
    sorted(classes), each
  )


def test_kinds_of_images(drawn, cache):
  known = prepared(drawn('odd_but_fine'), cache)
  assert known.classes == {'Benign': 21, 'Malignant': 6}
  assert any('several pages or frames' in text for text in known.warnings)


def test_twelve_bits_in_sixteen(drawn, cache):
  folder = drawn('dark_16_bit')
  known = prepared(folder, cache)
  assert 'config.data.white_level=4095' in known.warnings[0]
  assert max(known.mean) < 16
  light = prepared(folder, cache, white_level=4095)
  assert not any('white' in text for text in light.warnings)
  grey = [
    np.asarray(Image.open(path)).mean() / 4095 * 255
    for path in folder.rglob('*.tif')
  ]
  np.testing.assert_allclose(light.mean, np.mean(grey), atol=0.5)


def test_three_pages_are_channels(drawn, cache):
  known = prepared(drawn('channel_pages'), cache)
  plain = prepared(drawn('plain'), cache)
  np.testing.assert_allclose(known.mean, plain.mean, atol=0.01)


def test_formats_of_phones(drawn, cache):
  folder = drawn('phone_formats')
  text = refused(folder, cache)
  assert '5 of 29 images' in text and 'HEIC is a format of phones' in text
  known = prepared(folder, cache, on_bad_image='skip')
  assert (known.images, known.left_out) == (24, 5)


def test_bad_images(drawn, cache):
  folder = drawn('bad_images')
  text = refused(folder, cache)
  for words in ('truncated', 'empty', 'web page', 'Git LFS', 'floating-point'):
    assert words in text
  known = prepared(folder, cache, on_bad_image='skip')
  assert (known.images, known.left_out) == (16, 5)


def test_conflicting_twins(drawn, cache):
  folder = drawn('conflicting_twins')
  text = refused(folder, cache)
  assert '6 images stand in several classes' in text
  assert 'Benign/Ben-000.png (Benign) = Malignant/again-0.png' in text
  known = prepared(folder, cache, on_bad_image='skip')
  assert known.classes == {'Benign': 6, 'Malignant': 12}
  assert known.left_out == 12 and known.duplicates == 0


def test_numbers_of_images(drawn, cache):
  assert "class 'Rare' has no image" in refused(drawn('tiny_class'), cache)
  assert prepared(drawn('imbalanced'), cache).classes == {
    'Benign': 60,
    'Rare': 4,
  }
  assert "has one class, 'Benign'" in refused(drawn('one_class'), cache)
  assert 'none of its 8 images has a class' in (
    refused(drawn('unlabelled'), cache)
  )


def test_no_permission(cache, tmp_path, drawn):
  drawn_inputs.classes(tmp_path / 'set', count=4)
  locked = tmp_path / 'set/Benign/more'
  locked.mkdir(mode=0)
  try:
    if os.access(locked, os.R_OK):
      pytest.skip('the superuser may read all')
    assert str(locked) in refused(tmp_path / 'set', cache)
  finally:
    locked.chmod(0o700)


def public(once, name: str) -> pathlib.Path:
  return once(f'public-{name}', public_sets.ALL[name])


UID = r'UID_([Hh]?\d+)_'


@pytest.mark.parametrize(
  ('name', 'keys', 'expected'),
  [
    (
      'kaggle_all',
      {},
      {
        'classes': {'Benign': 4, 'Early': 4, 'Pre': 4, 'Pro': 4},
        'masks': 16,
        'patients': None,
      },
    ),
    (
      'cnmc_train',
      {'patient': UID},
      {
        'classes': {'all': 18, 'hem': 18},
        'patients': 18,
        'parts': {'fold_0': 12, 'fold_1': 12, 'fold_2': 12},
      },
    ),
    (
      'cnmc_prelim',
      {'patient': UID, 'label_names': ('1=all', '0=hem')},
      {'classes': {'all': 6, 'hem': 6}, 'patients': 6},
    ),
    (
      'all_idb1',
      {'label': r'_([01])\.', 'label_names': ('1=ALL', '0=healthy')},
      {'classes': {'ALL': 5, 'healthy': 5}, 'left_out': 10},
    ),
    ('all_idb2', {'label': r'_([01])\.'}, {'classes': {'0': 5, '1': 5}}),
    (
      'lmu',
      {},
      {'classes': dict.fromkeys(('BAS', 'EBO', 'EOS', 'KSC', 'LYA'), 3)},
    ),
    (
      'lmu',
      {'table': 'annotations.dat', 'label_names': ('BAS=basophil',)},
      {'classes': dict.fromkeys(('EBO', 'EOS', 'KSC', 'LYA', 'basophil'), 3)},
    ),
    (
      'mll',
      {},
      {
        'classes': dict.fromkeys(('CBFB_MYH11', 'NPM1', 'control'), 9),
        'patients': 9,
      },
    ),
    (
      'aml_apl',
      {},
      {
        'classes': {'Blast': 10, 'Lymphocyte': 6, 'Promyelocyte': 10},
        'patients': 5,
        'left_out': 5,
      },
    ),
    (
      'wbcbench',
      {},
      {
        'classes': {'BL': 8, 'LY': 8, 'SNE': 8},
        'parts': {'train': 6, 'validation': 6, 'test': 6},
      },
    ),
    ('acevedo', {}, {'classes': {'basophil': 4, 'ig': 12, 'neutrophil': 8}}),
    (
      'acevedo',
      {'label': r'([A-Z]{2,3})_\d+'},
      {'classes': dict.fromkeys(('BA', 'BNE', 'MMY', 'MY', 'PMY', 'SNE'), 4)},
    ),
    (
      'raabin',
      {},
      {
        'classes': dict.fromkeys(('Basophil', 'Eosinophil', 'Neutrophil'), 13),
        'parts': {'train': 24, 'test': 15},
      },
    ),
    (
      'elsafty',
      {},
      {
        'classes': {'01-Rounded RBC': 9, '02-Ovalocyte': 9},
        'masks': 18,
        'patients': 3,
      },
    ),
    ('sn_am', {}, {'classes': {'ALL': 6, 'MM': 6}, 'masks': 0}),
    (
      'sn_am',
      {'mask_suffix': '_nucleus_mask'},
      {'classes': {'ALL': 6, 'MM': 6}, 'masks': 12, 'left_out': 24},
    ),
  ],
)
def test_public_sets(once, cache, name, keys, expected):
  known = prepared(public(once, name), cache, **keys)
  for field, value in expected.items():
    assert getattr(known, field) == value, field


def test_masks_to_choose_from(once, cache):
  folder = public(once, 'sn_am')
  known = prepared(folder, cache)
  assert 'config.data.mask_suffix' in known.warnings[0]
  text = refused(folder, cache, unet)
  assert '_background_mask, _cyto_mask, _nucleus_mask' in text
  known = prepared(folder, cache, unet, mask_suffix='_cyto_mask')
  assert known.masks == 12


@pytest.mark.parametrize(
  ('name', 'words'),
  [('bccd', 'boxes (Pascal VOC'), ('naruenatthanaset', 'files of points')],
)
def test_boxes_and_points_are_named(once, cache, name, words):
  for config in (default, unet):
    text = refused(public(once, name), cache, config)
    assert words in text and 'not read' in text


def test_the_patients_of_cnmc_are_kept_together(once, cache):
  reading = read(public(once, 'cnmc_train'), cache, patient=UID)
  patients = np.array(reading.catalogue.patients)
  # One of the healthy patients is spelt with h and with H.
  assert sum(p.startswith(('h', 'H')) for p in set(patients)) == 9
  parts = [set(patients[pairs[:, 0]]) for pairs in reading.split]
  assert not parts[0] & parts[2] and not parts[0] & parts[1]
  known = prepared(public(once, 'cnmc_train'), cache)
  assert known.patients is None
  assert 'config.data.patient' in known.warnings[0]


def test_prepare_writes_what_it_says(drawn, cache, tmp_path, capsys):
  config = default.get_config()
  config.data.source = str(drawn('conflicting_twins'))
  config.data.cache_dir = cache.partition('=')[2]
  config.data.on_bad_image = 'skip'
  prepare.run(config, tmp_path)
  printed = capsys.readouterr().out
  content = json.loads((tmp_path / 'prepare.json').read_text())
  assert content['images'] == 18 and content['patients'] is None
  assert len(content['reading']) == 3
  page = (tmp_path / 'prepare.md').read_text()
  for text in content['reading']:
    assert text in printed
  for text in content['warnings']:
    assert f'warning: {text}' in printed and 'config.data.' in text
  assert '| Benign | 6 |' in printed and '| Benign | 6 |' in page
  assert (tmp_path / 'classes.png').exists() and '(classes.png)' in page
