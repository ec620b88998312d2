"""The page's server: who may ask, how much, and what is never opened."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from leukemia_jax.data import checked, decode
from leukemia_jax.inference.prediction import Models
from leukemia_jax.serving import app

# Answers show an image as it was read, and nothing else.
MODELS = Models([], None, decode.Options(max_pixels=10_000), 1.0)
PIXELS = np.indices((40, 60)).sum(0)[..., None] * np.array([1, 2, 2])
PNG = checked.to_png(PIXELS.astype(np.uint8))


def client(hosts=('127.0.0.1',), password='', **options) -> TestClient:
  made = app.make(MODELS, ['a run'], [PNG], hosts=hosts, password=password)
  return TestClient(made, base_url='http://127.0.0.1:8080', **options)


@pytest.fixture(scope='module')
def page():
  with client() as own:
    yield own


def test_an_image_is_answered(page):
  said = page.post('/answer', content=PNG)
  assert said.status_code == 200
  assert (said.json()['width'], said.json()['height']) == (60, 40)
  kind, _, data = said.json()['picture'].partition(',')
  assert kind == 'data:image/jpeg;base64'
  with Image.open(io.BytesIO(base64.b64decode(data))) as image:
    assert np.abs(np.asarray(image) - PIXELS.astype(float)).mean() < 2
  turned = page.post('/answer?rotation=90', content=PNG).json()
  assert (turned['width'], turned['height']) == (40, 60)


def test_the_page_loads_nothing_from_elsewhere(page):
  for path in ('/', '/page.css', '/page.js', '/examples/0.png'):
    answer = page.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers['content-security-policy']
    assert answer.headers['cache-control'] == 'no-store'
    assert b'http' not in answer.content or path == '/examples/0.png'
  text = page.get('/').text
  assert 'a run' in text and 'not a medical device' in text
  assert 'They stay on this machine' in text
  others = client(hosts=['*'], password='of others').get(
    '/', auth=('anyone', 'of others')
  )
  assert 'They are sent to the machine that serves this page' in others.text
  assert page.get('/examples/0.png').content == PNG


@pytest.mark.parametrize(
  'path',
  [
    '/examples/1.png',
    '/examples/-1.png',
    '/examples/..%2Fpage.css',
    '/..%2f..%2fapp.py',
    '/app.py',
    '/page/page.js',
    '//etc/passwd',
    '/%00',
  ],
)
def test_nothing_else_is_there(page, path):
  assert page.get(path).status_code == 404


@pytest.mark.parametrize(
  ('content', 'words'),
  [
    (b'', 'the file is empty'),
    (b'hello', 'not an image'),
    (PNG[:-30], 'damaged'),
    (
      checked.to_png(np.zeros((101, 100), np.uint8)),
      'over config.data.max_pix',
    ),
  ],
)
def test_what_is_no_image_is_refused(page, content, words):
  said = page.post('/answer', content=content)
  assert said.status_code == 422 and words in said.json()['error']


def test_what_to_look_at_is_said(page):
  assert page.post('/answer', content=PNG).json()['warnings'] == []
  first, second = (Image.new('I;16', (60, 40), v) for v in (4000, 9))
  stack = io.BytesIO()
  first.save(stack, 'TIFF', save_all=True, append_images=[second])
  said = page.post('/answer', content=stack.getvalue()).json()
  pages, dark = said['warnings']
  assert pages.startswith('this file: several pages')
  assert 'config.data.white_level=4095' in dark


def test_the_page_names_models_and_calibration(page):
  assert 'answered by a run. They' in page.get('/').text
  made = app.make(MODELS, ['x', 'y'], [], hosts=['*'], calibration='hospital')
  text = TestClient(made).get('/').text
  assert 'answered by x, y, with the calibration of hospital. They' in text


def test_edits_that_cannot_be_are_refused(page):
  said = page.post('/answer?scale=0.123', content=PNG)
  assert said.status_code == 400 and 'scale must be one of' in said.text


def test_too_much_is_refused(page, monkeypatch):
  monkeypatch.setattr(app, 'MOST_BYTES', len(PNG) - 1)
  assert page.post('/answer', content=PNG).status_code == 413
  # Of a length that nobody says beforehand.
  said = page.post('/answer', content=iter([PNG[:50], PNG[50:]]))
  assert said.status_code == 413
  monkeypatch.setattr(app, '_WAITING', 0)
  assert page.post('/answer', content=PNG).status_code == 503


def test_a_failure_is_told_in_json(monkeypatch):
  def fail(*_):
    raise MemoryError

  with client(raise_server_exceptions=False) as own:
    monkeypatch.setattr(app.answers, 'answer', fail)
    said = own.post('/answer', content=PNG)
  assert said.status_code == 500
  assert said.json() == {'error': 'the server failed: MemoryError'}
  assert said.headers['x-content-type-options'] == 'nosniff'


def test_a_page_from_elsewhere_is_refused(page):
  for origin, status in (
    ('http://127.0.0.1:8080', 200),
    ('http://127.0.0.1:8081', 403),
    ('https://127.0.0.1:8080', 403),
    ('http://evil.example', 403),
    ('null', 403),
  ):
    said = page.post('/answer', content=PNG, headers={'origin': origin})
    assert said.status_code == status, origin
  # Behind a proxy that speaks https a browser still says it.
  for site, status in (
    ('same-origin', 200),
    ('cross-site', 403),
    ('none', 403),
  ):
    headers = {'origin': 'https://smears.example', 'sec-fetch-site': site}
    said = page.post('/answer', content=PNG, headers=headers)
    assert said.status_code == status, site
  # Its name may lead here.
  assert page.get('/', headers={'host': 'evil.example'}).status_code == 400


def test_a_password_is_asked_for():
  with client(['*'], 'a pass:word, ä') as own:
    assert own.get('/').status_code == 401
    assert own.post('/answer', content=PNG).status_code == 401
    for password, status in (
      ('a pass:word, ä', 200),
      ('a pass:word', 401),
      ('', 401),
    ):
      encoded = base64.b64encode(f'me:{password}'.encode()).decode()
      said = own.get('/', headers={'authorization': f'Basic {encoded}'})
      assert said.status_code == status
    for header in ('Basic', 'Basic !!', f'Bearer {encoded}', ''):
      said = own.get('/', headers={'authorization': header})
      assert said.status_code == 401, header
