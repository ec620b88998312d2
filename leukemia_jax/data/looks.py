"""What of image files a user should look at, summed up while they go by."""

import collections
from collections.abc import Iterator
from typing import Protocol

# Images that use less of their range were probably recorded at fewer bits.
_SMALL_RANGE = 0.3


class _File(Protocol):
  """What is known of a file; see `decode.Decoded`."""

  @property
  def is_multipage(self) -> bool: ...

  @property
  def bits(self) -> int: ...

  @property
  def peak(self) -> int: ...


class Looks:
  """Files that may not look as they should: of each kind one, and how many."""

  def __init__(self, white_level: int) -> None:
    """Begins with no files, read with `config.data.white_level`."""
    self._white_level = white_level
    self._firsts: dict[str, str] = {}
    self._counts: collections.Counter[str] = collections.Counter()
    self._bits = 0
    self._peak = 0

  def add(self, name: str, file: _File, *, is_turned: bool = False) -> None:
    """Takes a file into account.

    Args:
      name: of the file.
      file: what is known of it.
      is_turned: whether EXIF turns the image, and not its mask.
    """
    for kind, is_one in (
      ('turned', is_turned),
      ('multipage', file.is_multipage),
      ('deep', file.bits > 8),
    ):
      if is_one:
        self._firsts.setdefault(kind, name)
        self._counts[kind] += 1
    self._bits = max(self._bits, file.bits)
    self._peak = max(self._peak, file.peak)

  def warnings(self) -> Iterator[str]:
    """What to look at; each names the key that helps."""
    if self._counts['turned']:
      yield (
        f'{self._named("turned")}: turned by EXIF, which the masks are not; if '
        'they were drawn without the turn, give config.data.turn_by_exif=False'
      )
    if self._counts['multipage']:
      yield (
        f'{self._named("multipage")}: several pages or frames, of which the '
        'first is read; to use others, save them as files of their own'
      )
    top = 2**self._bits - 1
    if not self._white_level and 0 < self._peak < _SMALL_RANGE * top:
      level = 2 ** int(self._peak).bit_length() - 1
      yield (
        f'{self._named("deep")}: {self._bits} bits, of which values up to '
        f'{self._peak} of {top} alone are used; images look dark: give the '
        f'value of white, such as config.data.white_level={level}'
      )

  def _named(self, kind: str) -> str:
    """The first file of a kind, and how many more there are."""
    more = self._counts[kind] - 1
    return self._firsts[kind] + (f' and {more} more' if more else '')
