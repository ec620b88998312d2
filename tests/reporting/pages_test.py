"""Pages: what a template's values become in Markdown and in HTML."""

import base64
import itertools

import markdown_it
import pytest

from leukemia_jax.reporting import pages


@pytest.mark.parametrize(
  ('value', 'expected'),
  [(None, '-'), (3, '3'), (0.12345, '0.1235'), (float('nan'), 'nan')],
)
def test_numbers(value, expected):
  assert pages.number(value) == expected


def test_units():
  assert pages.size(999) == '999 B' and pages.size(1.86e9) == '1.9 GB'
  assert pages.duration(7.25) == '7.2 s' and pages.duration(150) == '2.5 min'
  assert pages.percent(0.961538) == '96.2' and pages.percent(None) == '-'
  assert pages.short_hash('a' * 64) == 'a' * 12


@pytest.mark.parametrize(
  'text', ['a|b', '<b>x</b>', '*a* _b_ `c`', '[x](y)', '# h', 'a\\b']
)
def test_a_literal_is_shown_as_it_is(text):
  parser = markdown_it.MarkdownIt('commonmark', {'html': False})
  shown = parser.render(pages.literal(text))
  assert '<b>' not in shown and '<em>' not in shown and '<a' not in shown
  plain = shown.replace('<p>', '').replace('</p>', '').strip()
  for entity, sign in (('&lt;', '<'), ('&gt;', '>')):
    plain = plain.replace(entity, sign)
  assert plain == text


def test_a_page_is_whole_in_itself():
  rows = [['one', '1'], ['two', '2']]
  text = pages.table(['name', 'value'], rows, frozenset({1}))
  assert text.splitlines()[-1] == '| **two** | **2** |'
  image = base64.b64decode(
    'iVBORw0KGgoAAAANSUhEUgAAAAUAAAADCAIAAADUVFKvAAAADElEQVR4nGNgIA0AAAAwAAEW'
    'iZrRAAAAAElFTkSuQmCC'
  )
  html = pages._to_html(
    f'{text}\n![T](x.png)', {'x.png': image}, itertools.count(1)
  )
  assert html.count('<td>') + html.count('<td><strong>') == 6
  assert 'width="5" height="3" src="data:image/png;base64,iVBORw' in html
