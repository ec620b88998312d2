"""Downloads against a server on this machine."""

import functools
import hashlib
import http.server
import threading

import pytest

from leukemia_jax.errors import InputError
from leukemia_jax.pretrained import download
from leukemia_jax.pretrained.download import WeightsFile

CONTENT = bytes(range(256)) * 300
RIGHT = 'sha256:' + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(tmp_path):
  """A web server, its address, and the requests that it saw."""
  folder = tmp_path / 'site'
  folder.mkdir()
  (folder / 'w.h5').write_bytes(CONTENT)
  seen = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      seen.append(args)

  handler = functools.partial(Handler, directory=folder)
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/w.h5', seen
    server.shutdown()


def test_fetched_once(site, tmp_path):
  url, seen = site
  file = WeightsFile(url, RIGHT, len(CONTENT))
  for _ in range(2):
    path = download.fetch(file, tmp_path / 'cache')
    assert path.read_bytes() == CONTENT
  assert len(seen) == 1
  assert list((tmp_path / 'cache').iterdir()) == [path]


@pytest.mark.parametrize(
  ('digest', 'size', 'words'),
  [
    ('md5:' + '0' * 32, len(CONTENT), 'hash'),
    (RIGHT, 1000, 'longer than 1,000 bytes'),
  ],
)
def test_what_is_not_the_file_is_not_kept(site, tmp_path, digest, size, words):
  url, _ = site
  with pytest.raises(InputError, match=f'{words}(.|\n)*config.model.weights'):
    download.fetch(WeightsFile(url, digest, size), tmp_path / 'cache')
  assert list((tmp_path / 'cache').iterdir()) == []


def test_a_damaged_copy_is_fetched_again(site, tmp_path):
  url, _ = site
  (tmp_path / 'w.h5').write_bytes(CONTENT[:100])
  path = download.fetch(WeightsFile(url, RIGHT, len(CONTENT)), tmp_path)
  assert path.read_bytes() == CONTENT


def test_offline_and_not_found(site, tmp_path):
  url, _ = site
  for wrong in ('http://127.0.0.1:9/w.h5', url.replace('w.h5', 'none.h5')):
    with pytest.raises(InputError, match='could not be fetched'):
      download.fetch(WeightsFile(wrong, RIGHT, 9), tmp_path / 'cache')
  assert not any((tmp_path / 'cache').rglob('*'))


def test_the_table_names_every_backbone():
  from leukemia_jax import models

  assert set(download.IMAGENET) == set(models.BACKBONES)
  assert download.IMAGENET['inception_resnet_v2'].size == 219_055_592
