"""Pages in a browser: whole, quiet, as wide as a phone, and accessible."""

import pathlib

import pytest
from chromium import WIDTHS, check_layout, requests, set_scheme, set_width
from command import run

pytestmark = pytest.mark.full
PAGES = {
  'run': 'report.html',
  'segmentation': 'report.html',
  'study': 'report.html',
  'audit': 'audit.html',
  'comparison': 'compare.html',
  'predictions': 'predictions.html',
  'benchmark': 'benchmark.html',
}


@pytest.fixture(params=PAGES)
def page(request, once, cache) -> pathlib.Path:
  """One page of each kind."""
  fixture = {
    'run': 'trained',
    'segmentation': 'segmenter',
    'study': 'finished_study',
    'benchmark': 'benchmarked',
  }.get(request.param)
  if fixture:
    return request.getfixturevalue(fixture) / PAGES[request.param]
  flags = {
    'audit': (
      *('--mode=audit', cache, '--config.synthetic.scale=0.03'),
      '--config.data.image_size=75',
    ),
    'predictions': (
      '--mode=predict',
      '--explain',
      '--checkpoint={}'.format(request.getfixturevalue('trained')),
      '--checkpoint={}'.format(request.getfixturevalue('segmenter')),
      '--input={}'.format(request.getfixturevalue('smear_files')),
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


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_page(browser, page, scheme):
  assert page.stat().st_size < 5e6
  set_scheme(browser, scheme)
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
    check_layout(browser)


def test_tables_scroll_by_keyboard(browser, trained):
  set_width(browser, 390)
  browser.get((trained / 'report.html').as_uri())
  boxes = browser.execute_script(
    "return [...document.querySelectorAll('.scroll')].map(e => "
    '[e.scrollWidth > e.clientWidth, e.tabIndex, e.getAttribute("role")])'
  )
  assert any(is_wide for is_wide, _, _ in boxes)
  assert all(tab == 0 and role == 'region' for _, tab, role in boxes)
