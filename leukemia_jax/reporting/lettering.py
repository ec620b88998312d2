"""Texts in figures as they are: no formulas, fonts that have the letters."""

import functools
import unicodedata
from collections.abc import Iterable

import matplotlib.figure
import matplotlib.text
from matplotlib import font_manager, ft2font

_DEFAULT = 'DejaVu Sans'
# Matplotlib's, which has a box for every letter.
_BOXES = 'Last Resort'


@functools.cache
def _letters(path: str) -> frozenset[int]:
  return frozenset(ft2font.FT2Font(path).get_charmap())


@functools.cache
def _fonts_for(letters: frozenset[str]) -> tuple[str, ...]:
  """Fonts of this system for letters, and one line if some have none."""
  missing = {ord(letter) for letter in letters}
  missing -= _letters(font_manager.findfont(_DEFAULT))
  families = [_DEFAULT]
  # The font with the most of them first; names make the choice repeatable.
  fonts = sorted(
    (font.name, font.fname)
    for font in font_manager.fontManager.ttflist
    if not font.name.startswith(_BOXES)
  )
  while missing:
    counts = [(len(missing & _readable(path)), name) for name, path in fonts]
    best = max(counts, key=lambda count: count[0], default=(0, ''))
    if not best[0]:
      break
    families.append(best[1])
    for name, path in fonts:
      if name == best[1]:
        missing -= _readable(path)
  if missing:
    sample = ' '.join(map(chr, sorted(missing)[:8]))
    print(
      f'no font of this system has the letters {sample}: boxes stand for '
      'them in figures. Install one that has, such as Noto Sans'
    )
  return tuple(families)


def _readable(path: str) -> frozenset[int]:
  try:
    return _letters(path)
  except (OSError, RuntimeError):
    return frozenset()


def set_texts(figure: matplotlib.figure.Figure) -> None:
  """Makes a figure show all its texts as they are.

  Args:
    figure: with all its texts; names in it may hold any sign.
  """
  # Tick labels that matplotlib makes itself, with formulas, are not there yet.
  texts = [
    text
    for text in figure.findobj(matplotlib.text.Text)
    if isinstance(text, matplotlib.text.Text) and text.get_text()
  ]
  letters = _letters_in(text.get_text() for text in texts)
  families = list(_fonts_for(letters))
  for text in texts:
    text.set_parse_math(False)
    text.set_fontfamily(families)


def _letters_in(texts: Iterable[str]) -> frozenset[str]:
  """What needs a glyph: neither blanks nor control characters."""
  return frozenset(
    letter
    for text in texts
    for letter in text
    if not letter.isspace() and unicodedata.category(letter)[0] != 'C'
  )
