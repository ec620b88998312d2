"""Pages in a browser: whole, quiet, as wide as a phone, and accessible.

Needs Debian's chromium and chromium-driver (CHROMIUM names another browser),
and axe-core: npm ci --prefix tests/browser.
"""

import json
import os
import pathlib
import shutil

import pytest
from command import run
from conftest import ROOT

pytestmark = pytest.mark.full
AXE = ROOT / 'tests/browser/node_modules/axe-core/axe.min.js'
PAGES = {
  'run': 'report.html',
  'segmentation': 'report.html',
  'study': 'report.html',
  'audit': 'audit.html',
  'comparison': 'compare.html',
}
WIDTHS = (1280, 390)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  """Chromium without a network."""
  from selenium import webdriver

  path = os.environ.get('CHROMIUM') or shutil.which('chromium')
  assert path and shutil.which('chromedriver'), (
    'install chromium and chromium-driver (Debian), or name another browser '
    'by CHROMIUM'
  )
  options = webdriver.ChromeOptions()
  options.binary_location = path
  for flag in (
    'headless=new',
    'no-sandbox',
    'disable-gpu',
    'disable-quic',
    'no-first-run',
    'disable-background-networking',
    'disable-component-update',
    'disable-sync',
    'hide-scrollbars',
    f'user-data-dir={tmp_path_factory.mktemp("browser")}',
  ):
    options.add_argument(f'--{flag}')
  options.set_capability(
    'goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'}
  )
  service = webdriver.ChromeService(shutil.which('chromedriver'))
  driver = webdriver.Chrome(options, service)
  yield driver
  driver.quit()


@pytest.fixture(params=PAGES)
def page(request, once, cache) -> pathlib.Path:
  """One page of each kind."""
  fixture = {
    'run': 'trained',
    'segmentation': 'segmenter',
    'study': 'finished_study',
  }.get(request.param)
  if fixture:
    return request.getfixturevalue(fixture) / PAGES[request.param]
  flags = {
    'audit': (
      *('--mode=audit', cache, '--config.synthetic.scale=0.03'),
      '--config.data.image_size=75',
    ),
    'comparison': (
      '--mode=compare',
      '--runs={0},{0}'.format(request.getfixturevalue('trained')),
    ),
  }[request.param]

  def make(folder: pathlib.Path) -> None:
    done = run(f'--workdir={folder}', *flags)
    assert done.returncode == 0, done.stderr

  return once(f'{request.param} page', make) / PAGES[request.param]


def set_width(browser, width: int) -> None:
  """Lays the page out as on a screen of that width."""
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {'width': width, 'height': 844, 'deviceScaleFactor': 1, 'mobile': False},
  )


def requests(browser) -> list[str]:
  """What the page asked for since the last question."""
  messages = [
    json.loads(entry['message'])['message']
    for entry in browser.get_log('performance')
  ]
  return [
    message['params']['request']['url']
    for message in messages
    if message['method'] == 'Network.requestWillBeSent'
  ]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_page(browser, page, scheme):
  assert AXE.exists(), 'run: npm ci --prefix tests/browser'
  assert page.stat().st_size < 5e6
  browser.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]},
  )
  browser.get('about:blank')
  browser.get_log('browser')
  requests(browser)
  for width in WIDTHS:
    set_width(browser, width)
    browser.get(page.as_uri())
    assert browser.get_log('browser') == []
    asked = {url for url in requests(browser) if not url.startswith('data:')}
    assert asked <= {page.as_uri()}
    assert browser.title and browser.execute_script(
      'return document.documentElement.lang'
    )
    for size in browser.execute_script(
      'return [...document.images].map(i => '
      '[i.alt, i.naturalWidth, i.width, i.height])'
    ):
      assert size[0] and min(size[1:]) > 50, size
    # Only what stands in a box of its own may be wider than the screen.
    wide = browser.execute_script(
      'const width = document.documentElement.clientWidth;'
      'return [document.documentElement.scrollWidth > width, '
      "[...document.querySelectorAll('main *')].filter(e => "
      "!e.closest('.scroll, pre') && "
      'e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML)]'
    )
    assert wide == [False, []]
    browser.execute_script(AXE.read_text())
    violations = browser.execute_async_script(
      'axe.run().then(r => arguments[0](r.violations.map('
      'v => [v.impact, v.id, v.nodes.map(n => n.html)])))'
    )
    assert [v for v in violations if v[0] in ('serious', 'critical')] == []


def test_tables_scroll_by_keyboard(browser, trained):
  set_width(browser, 390)
  browser.get((trained / 'report.html').as_uri())
  boxes = browser.execute_script(
    "return [...document.querySelectorAll('.scroll')].map(e => "
    '[e.scrollWidth > e.clientWidth, e.tabIndex, e.getAttribute("role")])'
  )
  assert any(is_wide for is_wide, _, _ in boxes)
  assert all(tab == 0 and role == 'region' for _, tab, role in boxes)
