"""Listing folders and archives: layouts that are found, tricks that fail."""

import itertools
import os
import pathlib
import shutil
import struct
import sys
import tracemalloc
import types
import zipfile

import conftest
import pytest

from leukemia_jax.data import listing, source
from leukemia_jax.errors import InputError


def zipped(folder: pathlib.Path, path: pathlib.Path, prefix: str = ''):
  with zipfile.ZipFile(path, 'w') as archive:
    for file in sorted(folder.rglob('*')):
      if file.is_file():
        archive.write(file, prefix + file.relative_to(folder).as_posix())
  return path


def opened(path) -> source.Source:
  return source.open_source(str(path), conftest.reading())


def entry(path: pathlib.Path, name: str, data: bytes = b'x', mode: int = 0):
  with zipfile.ZipFile(path, 'w') as archive:
    info = zipfile.ZipInfo('a/1.png')
    archive.writestr(info, b'x')
    info = zipfile.ZipInfo('b/1.png')
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    archive.writestr(info, data)
  return path


@pytest.fixture
def study(tmp_path) -> pathlib.Path:
  """Original and Segmented trees; one image has no mask, one mask no image."""
  root = tmp_path / 'study'
  conftest.save_images(root / 'Original', {'Benign': 3, 'Pro': 2}, size=8)
  conftest.save_images(root / 'Segmented', {'Benign': 2, 'Pro': 3}, size=8)
  return root


@pytest.mark.parametrize('wrapping', ['', 'leukemia/', 'a/b/'])
def test_original_and_segmented(study, tmp_path, wrapping):
  found = opened(zipped(study, tmp_path / 'x.zip', wrapping))
  assert found.class_names == ('Benign', 'Pro')
  assert [item.label for item in found.items] == [0, 0, 0, 1, 1]
  assert [len(item.masks) for item in found.items] == [1, 1, 0, 1, 1]
  assert sorted(found.notes.unpaired) == [
    f'{wrapping}Original/Benign/cell-2.png',
    f'{wrapping}Segmented/Pro/cell-2.png',
  ]
  first = found.items[0]
  assert (
    first.image.read() == (study / 'Original/Benign/cell-0.png').read_bytes()
  )
  assert first.masks[0].path.endswith('Segmented/Benign/cell-0.png')


def test_folder_and_zip_hold_the_same(study, tmp_path):
  folder, archive = opened(study), opened(zipped(study, tmp_path / 'x.zip'))
  for one, other in zip(folder.items, archive.items, strict=True):
    assert one.image.path == other.image.path
    assert one.image.read() == other.image.read()


def test_plain_classes_with_any_names(tmp_path):
  names = {'été 1': 1, '白血病': 2, 'blast (M1)': 3, 'x': 1, 'y': 1}
  conftest.save_images(tmp_path / 'my set', names, size=8)
  (tmp_path / 'my set/.DS_Store').write_bytes(b'junk')
  (tmp_path / 'my set/x/Thumbs.db').write_bytes(b'junk')
  (tmp_path / 'my set/readme.txt').write_text('no class')
  found = opened(tmp_path / 'my set')
  assert found.class_names == tuple(sorted(names))
  assert len(found.items) == 8
  assert not found.notes.unpaired


def test_natural_order(tmp_path):
  conftest.save_images(tmp_path, {'a': 12, 'b': 1}, size=8)
  paths = [item.image.path for item in opened(tmp_path).items]
  assert paths[:12] == [f'a/cell-{i}.png' for i in range(12)]


def test_key_changes_with_any_file(tmp_path):
  conftest.save_images(tmp_path, {'a': 2, 'b': 2}, size=8)
  before = opened(tmp_path).key()
  assert opened(tmp_path).key() == before
  (tmp_path / 'a/cell-0.png').write_bytes(b'changed')
  assert opened(tmp_path).key() != before


def test_key_tells_files_of_equal_size_and_time_apart(tmp_path):
  for name in ('one', 'two'):
    for label in 'ab':
      (tmp_path / name / label).mkdir(parents=True)
      path = tmp_path / name / label / '1.png'
      path.write_bytes(name.encode())
      os.utime(path, (1, 1))
  one, two = (opened(tmp_path / name).key() for name in ('one', 'two'))
  assert one != two
  # Also in the place of what was there.
  shutil.rmtree(tmp_path / 'one')
  shutil.copytree(tmp_path / 'two', tmp_path / 'one')
  assert opened(tmp_path / 'one').key() not in (one, two)


@pytest.mark.parametrize('is_zip', [False, True])
def test_images_in_what_may_be_a_systems_folder_are_said(tmp_path, is_zip):
  sizes = {'a': 2, 'b': 2, 'Trash': 3, '.cache': 1, '@eaDir': 1}
  conftest.save_images(tmp_path / 'set', sizes, size=8)
  path = tmp_path / 'set'
  if is_zip:
    path = zipped(path, tmp_path / 'x.zip')
  notes = opened(path).notes
  (warning,) = notes.warnings
  assert warning.startswith('3 images in Trash are left out')


def test_a_table_that_says_other_classes_than_folders_is_refused(tmp_path):
  conftest.save_images(tmp_path / 'set', {'a': 2, 'b': 2}, size=8)

  def read(types, columns=()):
    lines = [
      f'{label}/cell-{i}.png,{patient},{types[label][i]}'
      for patient, (label, i) in enumerate(itertools.product('ab', range(2)))
    ]
    table = tmp_path / 'set/t.csv'
    table.write_text('\n'.join(['image,patient,type', *lines]))
    options = conftest.reading(table='t.csv')._replace(columns=columns)
    return source.open_source(str(tmp_path / 'set'), options)

  stains = {'a': ('giemsa', 'wright'), 'b': ('giemsa', 'wright')}
  with pytest.raises(InputError, match="from the folders, a, b, by .*'type'"):
    read(stains)
  assert read(stains, ('label=',)).class_names == ('a', 'b')
  chosen = read(stains, ('label=type',))
  assert chosen.class_names == ('giemsa', 'wright')
  # Without another column the table is of no use.
  table = tmp_path / 'set/t.csv'
  lines = [
    f'{c}/cell-{i}.png,{i}' for c, i in itertools.product('ab', range(2))
  ]
  table.write_text('\n'.join(['image,type', *lines]))
  with pytest.raises(InputError, match="a, b, by config.data.table=''"):
    source.open_source(str(tmp_path / 'set'), conftest.reading(table='t.csv'))
  # Another name of the same classes, not of each image.
  assert read({'a': ('A', ''), 'b': 'BB'}).class_names == ('A', 'B')
  assert read({'a': 'AA', 'b': 'BB'}).class_names == ('A', 'B')


def test_a_table_that_says_nothing_is_refused(tmp_path):
  conftest.save_images(tmp_path / 'set', {'a': 2, 'b': 2}, size=8)
  (tmp_path / 'set/t.csv').write_text('image,who\na/cell-0.png,7\n')
  with pytest.raises(InputError, match=r"no column is .*'image', 'who'"):
    source.open_source(str(tmp_path / 'set'), conftest.reading(table='t.csv'))


def test_a_workbook_is_named(tmp_path):
  conftest.save_images(tmp_path, {'a': 2, 'b': 2}, size=8)
  (tmp_path / 'labels.xlsx').write_bytes(b'PK')
  (warning,) = opened(tmp_path).notes.warnings
  assert warning.startswith('labels.xlsx is a workbook, which is not read')


def test_missing_path():
  with pytest.raises(InputError, match=r'source=nowhere\.zip: there is no'):
    opened('nowhere.zip')


def test_no_image(tmp_path):
  with pytest.raises(InputError, match='there are no images. Expected are'):
    opened(tmp_path)
  (tmp_path / 'data.mat').write_bytes(b'x')
  (tmp_path / 'readme').write_bytes(b'x')
  with pytest.raises(InputError, match='1 of .mat, 1 of no suffix'):
    opened(tmp_path)


def test_no_zip(tmp_path):
  path = tmp_path / 'x.zip'
  path.write_text('this is no zip')
  with pytest.raises(InputError, match='not a zip archive'):
    opened(path)


def test_truncated_zip(study, tmp_path):
  path = zipped(study, tmp_path / 'x.zip')
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(InputError, match='not a zip archive, or is truncated'):
    opened(path)


@pytest.mark.parametrize(
  'name',
  ['../b/1.png', 'b/../../1.png', '/etc/1.png', 'C:/b/1.png', '..\\b\\1'],
)
def test_paths_out_of_the_archive(tmp_path, name):
  with pytest.raises(InputError, match='points outside the archive'):
    opened(entry(tmp_path / 'x.zip', name))


def test_link_in_a_zip(tmp_path):
  path = entry(tmp_path / 'x.zip', 'b/1.png', b'/etc/passwd', 0o120777)
  with pytest.raises(InputError, match='is a link'):
    opened(path)


def test_zip_over_the_limit(study, tmp_path):
  path = zipped(study, tmp_path / 'x.zip')
  with pytest.raises(InputError, match=r'config\.data\.max_bytes=100'):
    source.open_source(str(path), conftest.reading(max_bytes=100))


def test_a_zip_whose_names_begin_with_a_dot(study, tmp_path):
  plain = opened(zipped(study, tmp_path / 'x.zip'))
  dotted = opened(zipped(study, tmp_path / 'y.zip', './'))
  for one, other in zip(plain.items, dotted.items, strict=True):
    assert (one.image.path, one.label) == (other.image.path, other.label)


def test_a_dot_before_a_path_leads_nowhere_else(tmp_path):
  for name in ('.//tmp/1.png', './C:/1.png', './../1.png'):
    with pytest.raises(InputError, match='points outside'):
      opened(entry(tmp_path / 'x.zip', name))


def test_an_entry_that_unpacks_to_too_much(study, tmp_path, monkeypatch):
  monkeypatch.setattr(listing, '_LARGE', 10**6)
  path = tmp_path / 'x.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a/1.png', bytes(2 * 10**6))
  with pytest.raises(InputError, match="'a/1.png' would unpack to 2000000"):
    opened(path)


def test_a_zip_that_lies_about_sizes_cannot_unpack_more(tmp_path):
  path = tmp_path / 'x.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name in ('a/1.png', 'b/1.png'):
      archive.writestr(name, bytes(10**7))
  # Declare 10 bytes instead of 10^7, in both headers of each entry.
  data = path.read_bytes().replace(
    struct.pack('<I', 10**7), struct.pack('<I', 10)
  )
  path.write_bytes(data)
  for item in opened(path).items:
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile):
      item.image.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


def test_link_out_of_a_folder(tmp_path):
  conftest.save_images(tmp_path / 'set', {'a': 1, 'b': 1}, size=8)
  secret = tmp_path / 'secret.png'
  secret.write_bytes(b'x')
  os.symlink(secret, tmp_path / 'set/a/link.png')
  with pytest.raises(InputError, match='1 files are links that lead out of'):
    opened(tmp_path / 'set')


def test_links_are_followed_if_they_are_allowed(tmp_path):
  conftest.save_images(tmp_path / 'store', {'a': 2, 'b': 1}, size=8)
  (tmp_path / 'set/b').mkdir(parents=True)
  os.symlink(tmp_path / 'store/a', tmp_path / 'set/a')
  os.symlink(tmp_path / 'store/b/cell-0.png', tmp_path / 'set/b/x.png')
  allowed = conftest.reading()._replace(follow_links=True)
  found = source.open_source(str(tmp_path / 'set'), allowed)
  paths = [item.image.path for item in found.items]
  assert paths == ['a/cell-0.png', 'a/cell-1.png', 'b/x.png']
  os.symlink(tmp_path / 'set', tmp_path / 'set/b/again')
  with pytest.raises(InputError, match='link to a folder that it lies in'):
    source.open_source(str(tmp_path / 'set'), allowed)


def test_linked_folder_pipe_and_dangling_link(tmp_path):
  conftest.save_images(tmp_path / 'set', {'a': 1, 'b': 1}, size=8)
  os.symlink(tmp_path / 'set/a', tmp_path / 'set/c')
  with pytest.raises(InputError, match='link to a folder'):
    opened(tmp_path / 'set')
  (tmp_path / 'set/c').unlink()
  os.mkfifo(tmp_path / 'set/a/pipe.png')
  with pytest.raises(InputError, match='no plain file'):
    opened(tmp_path / 'set')
  (tmp_path / 'set/a/pipe.png').unlink()
  os.symlink(tmp_path / 'set/none.png', tmp_path / 'set/a/none.png')
  with pytest.raises(InputError, match='no plain file'):
    opened(tmp_path / 'set')


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_an_empty_class_is_named(tmp_path, kind):
  conftest.save_images(tmp_path / 'set', {'a': 1, 'b': 1}, size=8)
  (tmp_path / 'set/empty').mkdir()
  path = tmp_path / 'set'
  if kind == 'zip':
    path = zipped(path, tmp_path / 'x.zip')
    with zipfile.ZipFile(path, 'a') as archive:
      archive.writestr('empty/', b'')
  with pytest.raises(InputError, match="'empty' holds no image"):
    opened(path)


@pytest.mark.parametrize('name', [' a', 'a ', 'a\tb', 'a\nb', '\x1b[31mred'])
def test_class_names_that_would_not_come_back(tmp_path, name):
  conftest.save_images(tmp_path, {name: 1, 'b': 1}, size=8)
  with pytest.raises(InputError, match='control characters; rename'):
    opened(tmp_path)


def test_names_that_are_there_twice_or_endless(tmp_path):
  with pytest.raises(InputError, match='1 names twice, as a/1.png'):
    opened(entry(tmp_path / 'twice.zip', 'a\\1.png'))
  with pytest.raises(InputError, match='5004 signs'):
    opened(entry(tmp_path / 'long.zip', '1' * 5000 + '.png'))


def test_tables_that_nobody_asked_for_refuse_no_set(tmp_path):
  conftest.save_images(tmp_path / 'set', {'A': 2, 'B': 2}, size=8)
  wide = ','.join(['1.25'] * 40_000)
  (tmp_path / 'set/features.csv').write_text(f'{wide}\n{wide}\n')
  assert opened(tmp_path / 'set').class_names == ('A', 'B')
  (tmp_path / 'set/features.csv').write_text('damaged,later\n' * 9)
  packed = zipped(tmp_path / 'set', tmp_path / 'set.zip')
  # Its entry is stored as it is: what it holds no longer has its checksum.
  packed.write_bytes(packed.read_bytes().replace(b'damaged', b'DAMAGED'))
  got = opened(packed)
  assert got.class_names == ('A', 'B')
  assert 'features.csv cannot be read' in got.notes.warnings[0]
  with pytest.raises(InputError, match=r'features.csv cannot be read'):
    source.open_source(str(packed), conftest.reading(table='features.csv'))


def test_brackets_in_a_tables_name_are_no_pattern(tmp_path):
  conftest.save_images(tmp_path, {'all': 2}, size=8)
  table = 'file,label\ncell-0.png,A\ncell-1.png,B\n'
  (tmp_path / 'labels[1].csv').write_text(table)
  options = conftest.reading(table='labels[1].csv')
  got = source.open_source(str(tmp_path), options)
  assert got.class_names == ('A', 'B')


def test_a_name_that_is_not_utf_8(tmp_path):
  conftest.save_images(tmp_path, {'a': 1, 'b': 1}, size=8)
  (pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b'/a/\xe9.png'))).touch()
  with pytest.raises(InputError, match='not UTF-8'):
    opened(tmp_path)


def test_an_unusual_packing_method(tmp_path):
  path = tmp_path / 'x.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_BZIP2) as archive:
    archive.writestr('a/1.png', b'x')
  with pytest.raises(InputError, match='unusual method'):
    opened(path)


def test_kaggle_is_asked_for_the_data_set(study, monkeypatch):
  asked = []

  def download(name):
    asked.append(name)
    return str(study)

  fake = types.SimpleNamespace(dataset_download=download)
  monkeypatch.setitem(sys.modules, 'kagglehub', fake)
  found = source.open_source('kaggle', conftest.reading())
  assert asked == ['mehradaria/leukemia']
  assert found.class_names == ('Benign', 'Pro')

  def refuse(name):
    raise ConnectionError('no network')

  fake.dataset_download = refuse
  with pytest.raises(InputError, match='no network; download it by hand'):
    source.open_source('kaggle', conftest.reading())


def test_images_and_masks_without_classes(tmp_path):
  conftest.save_images(tmp_path / 'set', {'images': 3, 'masks': 2}, size=8)
  found = opened(tmp_path / 'set')
  assert found.class_names == (source.UNLABELLED,)
  assert [len(item.masks) for item in found.items] == [1, 1, 0]
  assert found.notes.unpaired == ['images/cell-2.png']


def test_images_and_masks_in_classes(tmp_path):
  for tree in ('Images', 'Masks'):
    conftest.save_images(tmp_path / 'set' / tree, {'a': 2, 'b': 1}, size=8)
  found = opened(tmp_path / 'set')
  assert found.class_names == ('a', 'b')
  assert all(item.masks for item in found.items)


def test_a_class_may_be_called_images(tmp_path):
  conftest.save_images(tmp_path / 'set', {'images': 3, 'other': 2}, size=8)
  assert opened(tmp_path / 'set').class_names == ('images', 'other')


def test_images_beside_the_class_folders_are_not_passed_over(tmp_path):
  conftest.save_images(tmp_path / 'set', {'a': 3, 'b': 1}, size=8)
  for i in (1, 2):
    (tmp_path / f'set/a/cell-{i}.png').rename(tmp_path / f'set/cell-{i}.png')
  with pytest.raises(InputError, match='2 images lie beside the class folders'):
    opened(tmp_path / 'set')
