"""What is listed of an input: order, shards, links, archives."""

import os
import pathlib
import zipfile

import pytest

from leukemia_jax.data.decode import BadImageError
from leukemia_jax.errors import InputError
from leukemia_jax.inference import inputs

OPTIONS = inputs.Options(max_bytes=10**6, follow_links=False)
PATHS = ('b/2.png', 'a/x.JPG', 'a/10.tif', 'c.jpeg', 'b/sub/1.bmp', 'd.dcm')
ORDERED = ['a/10.tif', 'a/x.JPG', 'b/2.png', 'b/sub/1.bmp', 'c.jpeg', 'd.dcm']


def fill(folder: pathlib.Path) -> pathlib.Path:
  for i, name in enumerate(PATHS):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([i]))
  (folder / 'notes.txt').write_text('no image')
  (folder / '.hidden.png').write_bytes(b'')
  (folder / '__MACOSX').mkdir()
  (folder / '__MACOSX/a.png').write_bytes(b'')
  return folder


def paths(source, options=OPTIONS, shard=(0, 1)):
  return [image.path for image in inputs.images(source, options, shard)]


def test_folders_are_listed_by_name(tmp_path):
  listed = list(inputs.images(fill(tmp_path / 'set'), OPTIONS))
  assert [image.path for image in listed] == ORDERED
  assert [PATHS[image.read()[0]] for image in listed] == ORDERED


def test_an_archive_is_listed_like_a_folder(tmp_path):
  folder, path = fill(tmp_path / 'set'), tmp_path / 'set.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    for file in sorted(folder.rglob('*'), reverse=True):
      archive.write(file, file.relative_to(folder))
  listed = list(inputs.images(path, OPTIONS))
  assert [image.path for image in listed] == ORDERED
  assert [PATHS[image.read()[0]] for image in listed] == ORDERED


def test_a_file_is_read_whatever_its_name(tmp_path):
  (tmp_path / 'image.dat').write_bytes(b'1')
  (image,) = inputs.images(tmp_path / 'image.dat', OPTIONS)
  assert (image.path, image.read()) == ('image.dat', b'1')


def test_shards_share_all_images(tmp_path):
  source = fill(tmp_path)
  shards = [paths(source, shard=(i, 4)) for i in range(4)]
  assert sorted(sum(shards, [])) == ORDERED
  assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_links_that_lead_out_are_not_read(tmp_path):
  source = fill(tmp_path / 'set')
  secret = tmp_path / 'secret.png'
  secret.write_bytes(b'secret')
  (source / 'out.png').symlink_to(secret)
  (source / 'in.png').symlink_to(source / 'c.jpeg')
  (source / 'nowhere.png').symlink_to(source / 'gone')
  (source / 'loop').symlink_to(source)
  (tmp_path / 'more').mkdir()
  (tmp_path / 'more/far.png').write_bytes(b'far')
  (source / 'linked').symlink_to(tmp_path / 'more')
  listed = {image.path: image for image in inputs.images(source, OPTIONS)}
  assert set(listed) == {*ORDERED, 'in.png', 'out.png', 'nowhere.png'}
  assert listed['in.png'].read() == b'\x03'
  for name, why in (
    ('out.png', 'a link that leads out of the folder'),
    ('nowhere.png', 'a link that leads nowhere'),
  ):
    with pytest.raises(BadImageError, match=why):
      listed[name].read()
  trusting = OPTIONS._replace(follow_links=True)
  listed = {image.path: image for image in inputs.images(source, trusting)}
  assert 'loop/c.jpeg' not in listed
  assert listed['out.png'].read() == b'secret'
  assert listed['linked/far.png'].read() == b'far'


def test_large_files_pipes_and_odd_names(tmp_path):
  (tmp_path / 'large.png').write_bytes(bytes(2 * 10**6))
  os.mkfifo(tmp_path / 'pipe.png')
  (pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b'/\xff.png'))).touch()
  listed = list(inputs.images(tmp_path, OPTIONS))
  assert [image.path for image in listed] == [
    'large.png',
    'pipe.png',
    '\\udcff.png',
  ]
  for image, why in zip(
    listed[:2], ('2000000 bytes are over', 'no plain file'), strict=True
  ):
    with pytest.raises(BadImageError, match=why):
      image.read()
  assert listed[2].read() == b''


def test_what_is_not_there_is_said(tmp_path):
  with pytest.raises(InputError, match='--input=.*no such file'):
    inputs.check(str(tmp_path / 'gone'))
  (tmp_path / 'bad.zip').write_bytes(b'PK no archive')
  with pytest.raises(InputError, match=r'bad\.zip'):
    paths(tmp_path / 'bad.zip')
