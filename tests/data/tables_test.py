"""Tables beside images: any program's, joined with the right images."""

import itertools
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from leukemia_jax.data import layouts, tables
from leukemia_jax.errors import InputError


def table(text: str, paths: list[str], columns=()) -> tables.Joined:
  return tables.join({'t.csv': text.encode()}, paths, columns)


@hypothesis.given(
  st.sampled_from([',', ';', '\t', ' ']),
  st.sampled_from(['{}.png', 'set/{}.png', r'C:\data\set\{}.png', '{}']),
  st.sampled_from([('image', 'label'), ('ID', 'labels'), ('File', 'Class')]),
  st.booleans(),
  st.integers(0, 2**32),
)
@hypothesis.settings(max_examples=80, deadline=None)
def test_tables(separator, form, heading, with_mark, seed):
  draw = random.Random(seed)
  paths = [f'set/im{i}.png' for i in range(12)]
  labels = {path: draw.choice(['hem', 'all']) for path in paths}
  lines = [
    separator.join([form.format(f'im{i}'), labels[path]])
    for i, path in enumerate(paths)
  ]
  draw.shuffle(lines)
  text = '\n'.join([separator.join(heading), *lines]) + '\n'
  data = text.encode('utf-8-sig' if with_mark else 'utf-8')
  joined = tables.join({'t.csv': data}, paths, ())
  assert {path: row.label for path, row in joined.by_path.items()} == labels
  assert not joined.missing


@hypothesis.given(st.integers(0, 2**32))
@hypothesis.settings(max_examples=60, deadline=None)
def test_as_much_of_a_path_as_both_sides_have(seed):
  draw = random.Random(seed)
  paths = {
    '/'.join(
      [*draw.choices('abc', k=draw.randrange(4)), f'{draw.choice("12")}.png']
    )
    for _ in range(8)
  }

  def common(one, other):
    pairs = zip(one.split('/')[-2::-1], other.split('/')[-2::-1], strict=False)
    return len(
      list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    )

  for path in paths:
    cell = '/'.join([*draw.choices('abc', k=draw.randrange(3)), path])
    alike = [p for p in paths if p.split('/')[-1] == path.split('/')[-1]]
    most = max(common(cell, p) for p in alike)
    best = [p for p in alike if common(cell, p) == most]
    text = f'file,label\n{cell},x\n'
    if len(best) > 1 and cell not in best:
      with pytest.raises(InputError, match='may be'):
        table(text, paths)
    else:
      expected = cell if cell in best else best[0]
      assert list(table(text, paths).by_path) == [expected]


@pytest.mark.parametrize(
  'above',
  [
    'sep=;\n',
    '"sep=;"\n',
    'sep=; \n',
    'sep=;;;\n# by me\n',
    '# x\nsep=;\n',
    '# made by a program\n',
    '#\n# a; b\n\n',
    '# a, b\n' * 9,
  ],
)
def test_what_stands_above_a_table(above):
  paths = ['im/1.png', 'im/2.png']
  joined = table(f'{above}file;label;patient\n1.png;x;p1\n2.png;y;p2\n', paths)
  assert not joined.missing and len(joined.by_path) == 2
  assert joined.columns == {
    'path': 'file',
    'label': 'label',
    'patient': 'patient',
  }
  # A heading may begin so, whatever the last row is like.
  text = (
    '#file,patient,label,note\n1.png,p1,x,ok\n2.png,p2,y,"a, b"\n# total: 2\n'
  )
  joined = table(text, paths)
  assert [joined.by_path[p].label for p in paths] == ['x', 'y']
  assert [joined.by_path[p].patient for p in paths] == ['p1', 'p2']
  joined = table('#file;label\n1.png;x\n2.png;y\n', paths)
  assert joined.columns == {'path': '#file', 'label': 'label'}


def test_patients_of_a_part_of_a_table():
  paths = [f'UID_{i}_x.png' for i in range(4)]
  text = (
    'file,label,patient\n0.png,x,UID_7_1\n1.png,y,\n2.png,x,\n3.png,y,UID_8_1'
  )
  joined = table(text.replace('.png', '_x.png').replace('\n', '\nUID_'), paths)
  for patient, expected in (
    ('auto', ['UID_7_1', '', '', 'UID_8_1']),
    # Of the column, not of the path.
    (r'UID_(\d+)_', ['7', '', '', '8']),
  ):
    reading = layouts.read(paths, layouts.Options(patient=patient), joined)
    found = {e.path: e.patient for e in reading.entries}
    assert [found[path] for path in paths] == expected
    assert any('2 of 4 images have no patient' in w for w in reading.warnings)


def test_whole_file_names_count_more_than_numbers():
  paths = [f'im/{i}.png' for i in range(4)]
  text = 'id,Datei,label\n0,3.png,x\n1,2.png,y\n2,1.png,x\n3,0.png,y\n'
  joined = table(text, paths)
  assert joined.columns['path'] == 'Datei'
  assert [joined.by_path[p].label for p in paths] == ['y', 'x', 'y', 'x']


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    (('train', 'test', 'exclude'), ['test', 'train']),
    (('TR', 'TS', 'hold-out'), ['test', 'test', 'train']),
    (('0', '1', '2'), ['fold_0', 'fold_1', 'fold_2']),
    (('training', 'external validation'), ['test', 'train']),
  ],
)
def test_parts_of_a_table(values, expected):
  paths = [f'im/{i}.png' for i in range(len(values))]
  lines = [f'{i}.png,x,{value}' for i, value in enumerate(values)]
  joined = table('\n'.join(['file,label,split', *lines]), paths)
  reading = layouts.read(paths, None, joined)
  assert sorted(entry.part for entry in reading.entries) == expected


def test_a_part_that_is_none_is_refused():
  paths = ['im/0.png', 'im/1.png']
  joined = table('file,label,split\n0.png,x,train\n1.png,y,discovery\n', paths)
  with pytest.raises(InputError, match="calls a part 'discovery'"):
    layouts.read(paths, None, joined)
  joined = table(
    'file,label,split\n0.png,x,train\n1.png,y,discovery\n', paths, ('part=',)
  )
  assert {e.part for e in layouts.read(paths, None, joined).entries} == {''}


def test_tables_that_cannot_be_used():
  paths = ['a/1.png', 'b/1.png', 'c/2.png']
  with pytest.raises(InputError, match="'1.png' may be a/1.png or b/1.png"):
    table('file,label\n1.png,x\n2.png,y\n', paths)
  said = "two rows of c/2.png differ, label 'x' and label 'y'"
  with pytest.raises(InputError, match=said):
    table('file,label\na/1.png,y\n2.png,x\n2.png,y\n', paths)
  with pytest.raises(InputError, match='no column names images'):
    table('who,what\nx,y\nz,w\n', paths)
  with pytest.raises(InputError, match="no column 'cls'; it has 'file', 'l'"):
    table('file,l\n2.png,y\n', paths, ('label=cls',))
  with pytest.raises(InputError, match='must be one of path=COLUMN'):
    table('file,l\n2.png,y\n', paths, ('what=cls',))
  joined = table('file,l\n2.png,y\n7.png,y\n', paths, ('label=l',))
  assert joined.missing == ('7.png',)
