"""Files that grow: what a kill leaves is cut off, what was said stays."""

import json

import pytest

from leukemia_jax.errors import InputError
from leukemia_jax.workdir import outputs
from leukemia_jax.workdir.outputs import Progress

HEADERS = {'a.csv': ['x', 'y'], 'b.csv': ['z']}


def opened(folder):
  return outputs.opened(folder, 'progress.json', HEADERS)


def test_what_was_not_committed_goes(tmp_path):
  with opened(tmp_path) as files:
    assert files.progress == Progress()
    files.append('a.csv', [[1, 'one, two'], [2, 'ä']])
    files.commit(Progress(2, 'second'))
    files.append('a.csv', [[3, 'lost']])
    files.append('b.csv', [['lost']])
  with opened(tmp_path) as files:
    assert files.progress == Progress(2, 'second')
    files.append('a.csv', [[3, 'again']])
    files.commit(Progress(3, 'third', 1))
  lines = (tmp_path / 'a.csv').read_text().splitlines()
  assert lines == ['x,y', '1,"one, two"', '2,ä', '3,again']
  assert (tmp_path / 'b.csv').read_text() == 'z\n'
  with opened(tmp_path) as files:
    assert files.progress == Progress(3, 'third', 1)


def test_what_nobody_committed_begins_anew(tmp_path):
  with opened(tmp_path) as files:
    files.append('a.csv', [[1, 2]])
  with opened(tmp_path) as files:
    assert files.progress == Progress()
  assert (tmp_path / 'a.csv').read_text() == 'x,y\n'


@pytest.mark.parametrize(
  'damage', ['missing', 'cut', 'journal', 'list', 'other files', 'negative']
)
def test_damage_is_said(tmp_path, damage):
  with opened(tmp_path) as files:
    files.append('a.csv', [[1, 2]])
    files.commit(Progress(1, 'first'))
  path = tmp_path / 'a.csv'
  if damage == 'missing':
    path.unlink()
  elif damage == 'cut':
    path.write_bytes(path.read_bytes()[:-2])
  elif damage in ('journal', 'list'):
    content = '{"format": 5}' if damage == 'journal' else '[]'
    (tmp_path / 'progress.json').write_text(content)
  else:
    journal = tmp_path / 'progress.json'
    content = json.loads(journal.read_text())
    content['sizes'] = {} if damage == 'other files' else {'a.csv': -1}
    content['sizes'] |= {'b.csv': 3}
    journal.write_text(json.dumps(content))
  with pytest.raises(InputError, match=r'a\.csv|progress\.json'):
    with opened(tmp_path):
      pass
