"""Chromium without a network, and what is asked of every page in it.

Needs Debian's chromium and chromium-driver (CHROMIUM names another browser),
and axe-core: npm ci --prefix tests/browser.
"""

import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

from conftest import ROOT

AXE = ROOT / 'tests/browser/node_modules/axe-core/axe.min.js'
WIDTHS = (1280, 390)


def start(folder: pathlib.Path) -> Iterator[Any]:
  """A browser whose profile and downloads lie in a folder."""
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
    f'user-data-dir={folder / "profile"}',
  ):
    options.add_argument(f'--{flag}')
  options.set_capability(
    'goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'}
  )
  service = webdriver.ChromeService(shutil.which('chromedriver'))
  driver = webdriver.Chrome(options, service)
  driver.execute_cdp_cmd(
    'Browser.setDownloadBehavior',
    {'behavior': 'allow', 'downloadPath': str(folder / 'downloads')},
  )
  yield driver
  driver.quit()


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


def check_layout(browser) -> None:
  """Holds what is on the page to its rules, at its present width."""
  until = time.monotonic() + 10
  while time.monotonic() < until and not browser.execute_script(
    'return [...document.images].every(i => !i.offsetParent || i.naturalWidth)'
  ):
    time.sleep(0.05)
  for size in browser.execute_script(
    'return [...document.images].filter(i => i.offsetParent).map(i => '
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


def set_scheme(browser, scheme: str) -> None:
  """Shows pages in 'light' or 'dark' colours."""
  browser.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]},
  )
