"""The served page in a browser, as a person uses it."""

import contextlib
import csv
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from chromium import WIDTHS, check_layout, requests, set_scheme, set_width
from conftest import ROOT
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import leukemia_jax

pytestmark = pytest.mark.full
_MANY = 20


@contextlib.contextmanager
def served(*flags: str):
  """A server on a free port; gives its address."""
  process = subprocess.Popen(
    [sys.executable, str(ROOT / 'main.py'), '--mode=serve', '--port=0', *flags],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    said = ''
    for line in process.stdout:
      said += line
      if match := re.search(r'http://127\.0\.0\.1:\d+', line):
        yield match[0]
        break
    else:
      pytest.fail(said)
  finally:
    process.kill()
    process.wait()


@pytest.fixture(scope='module')
def address(trained, segmenter):
  """A page for a classifier and a segmenter."""
  with served(f'--checkpoint={trained}', f'--checkpoint={segmenter}') as url:
    yield url


@pytest.fixture
def bad_files(tmp_path) -> list[pathlib.Path]:
  """A text, and a picture that is small until it is unpacked."""
  text, bomb = tmp_path / 'text.png', tmp_path / 'bomb.png'
  text.write_text('<script>alert(1)</script>')
  Image.new('1', (8000, 8000)).save(bomb)
  return [text, bomb]


def wait_until(browser, words: str) -> None:
  """Waits until the page says so."""
  for _ in range(600):
    said = browser.find_element(By.ID, 'status').text
    if said == words:
      return
    time.sleep(0.1)
  pytest.fail(f'{said!r}, not {words!r}')


def upload(browser, paths) -> None:
  field = browser.find_element(By.ID, 'files')
  field.send_keys('\n'.join(map(str, paths)))


def download(browser, tmp_path, button: str, name: str, text=True) -> str:
  """What a button saves, if it is a text."""
  browser.execute_cdp_cmd(
    'Browser.setDownloadBehavior',
    {'behavior': 'allow', 'downloadPath': str(tmp_path)},
  )
  browser.find_element(By.ID, button).click()
  for _ in range(100):
    if (tmp_path / name).exists():
      return (tmp_path / name).read_text() if text else ''
    time.sleep(0.1)
  pytest.fail(f'{button} saved {list(tmp_path.iterdir())}')


def test_images_are_answered(
  browser, address, trained, segmenter, smear_files, bad_files, tmp_path
):
  browser.get(address)
  browser.get_log('browser')
  requests(browser)
  good = sorted(smear_files.iterdir())
  upload(browser, [*good, *bad_files])
  wait_until(browser, '4 of 6 predicted, 2 refused.')
  reasons = [e.text for e in browser.find_elements(By.CLASS_NAME, 'reason')]
  assert sum(map(bool, reasons)) == 2
  assert any('not an image' in reason for reason in reasons)
  assert any('over config.data.max_pixels' in reason for reason in reasons)
  # Names are texts, whatever they hold.
  titles = [e.text for e in browser.find_elements(By.TAG_NAME, 'h3')]
  assert '"d", <i>.bmp' in titles
  # What is said is what Python says of the same files.
  saved = download(browser, tmp_path, 'download-csv', 'predictions.csv')
  rows = {row['path']: row for row in csv.DictReader(saved.splitlines())}
  assert len(rows) == 6
  model = leukemia_jax.load(trained, segmenter)
  cells = model.cells(good)
  for i, own in enumerate(model.predict(good).to_dict('records')):
    row = rows[good[i].name]
    assert row['reason'] == ''
    assert row['predicted_class'] == own['predicted_class']
    assert row['flags'] == own['flags']
    assert int(row['cells']) == (cells['image'] == i).sum()
    for name in model.class_names:
      share = f'p_{name}'
      assert float(row[share]) == pytest.approx(own[share], abs=1e-5)
  saved = download(browser, tmp_path, 'download-cells', 'cells.csv')
  assert len(saved.splitlines()) == 1 + len(cells)
  asked = requests(browser)
  assert asked and all(
    url.startswith((f'{address}/', 'data:', f'blob:{address}/'))
    for url in asked
  )
  # Refusals are told by their status; nothing else went astray.
  logs = browser.get_log('browser')
  assert all('422' in entry['message'] for entry in logs), logs


def test_masks_are_those_of_the_images(
  browser, address, segmenter, smear_files, tmp_path
):
  browser.get(address)
  upload(browser, [smear_files / 'a.png'])
  wait_until(browser, '1 of 1 predicted.')
  download(browser, tmp_path, 'download-masks', 'a-mask.png', text=False)
  expected = leukemia_jax.load(segmenter).instances([smear_files / 'a.png'])
  with Image.open(tmp_path / 'a-mask.png') as mask:
    np.testing.assert_array_equal(np.asarray(mask) > 0, expected[0] > 0)


def test_the_cover_follows_its_slider(browser, address, smear_files):
  browser.get(address)
  upload(browser, [smear_files / 'a.png'])
  wait_until(browser, '1 of 1 predicted.')
  slider = browser.find_element(By.ID, 'opacity')
  cover = browser.find_element(By.CLASS_NAME, 'layer')
  before = float(cover.value_of_css_property('opacity'))
  slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
  after = float(cover.value_of_css_property('opacity'))
  assert after == pytest.approx(before - 0.1)


def test_edits_are_made_before(browser, address, smear_files):
  browser.get(address)
  upload(browser, [smear_files / 'a.png'])
  wait_until(browser, '1 of 1 predicted.')
  caption = browser.find_element(By.TAG_NAME, 'figcaption')
  assert caption.text == '224 x 224 px'
  browser.find_element(By.CSS_SELECTOR, '#edits summary').click()
  rotation = browser.find_element(By.ID, 'rotation')
  for _ in range(9):
    rotation.send_keys(Keys.ARROW_RIGHT)
  browser.find_element(By.ID, 'again').click()
  for _ in range(100):
    captions = browser.find_elements(By.TAG_NAME, 'figcaption')
    # It is turned within its frame.
    if captions and captions[0].text == '224 x 224 px; rotation 45':
      break
    time.sleep(0.1)
  else:
    pytest.fail(captions[0].text)


def test_a_report_stands_alone(browser, address, smear_files, tmp_path):
  browser.get(address)
  browser.find_elements(By.CLASS_NAME, 'example')[2].click()
  wait_until(browser, '1 of 1 predicted.')
  text = download(browser, tmp_path, 'download-report', 'report.html')
  assert 'not a medical device' in text and 'smear-2.png' in text
  assert '<script' not in text and '<button' not in text
  assert '.statement {' in text
  requests(browser)
  browser.get((tmp_path / 'report.html').as_uri())
  asked = {url for url in requests(browser) if not url.startswith('data:')}
  assert asked == {(tmp_path / 'report.html').as_uri()}
  check_layout(browser)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_and_is_accessible(browser, address, smear_files, scheme):
  set_scheme(browser, scheme)
  for width in WIDTHS:
    set_width(browser, width)
    browser.get(address)
    check_layout(browser)
    upload(browser, sorted(smear_files.iterdir())[:2])
    wait_until(browser, '2 of 2 predicted.')
    browser.find_element(By.CSS_SELECTOR, '#edits summary').click()
    check_layout(browser)


def test_many_images_at_once(browser, address, smear_files, tmp_path):
  with Image.open(smear_files / 'a.png') as image:
    for i in range(_MANY):
      image.rotate(i).save(tmp_path / f'{i}.png')
  browser.get(address)
  upload(browser, sorted(tmp_path.iterdir()))
  wait_until(browser, f'{_MANY} of {_MANY} predicted.')
  browser.find_element(By.ID, 'clear').click()
  assert browser.find_element(By.ID, 'status').text == 'No image yet.'
  assert not browser.find_elements(By.TAG_NAME, 'article')
