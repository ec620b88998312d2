"""One reading of folders and names, right or refused, in any listing order."""

import unicodedata
from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from leukemia_jax.data import layouts, names
from leukemia_jax.errors import InputError

CLASSES = (
  ('Benign', 'Early', 'Pre', 'Pro'),
  ('ALL', 'HEM'),
  ('0', '1', '2'),
  ('type 1', 'type 2', 'type 3'),
  ('早期', 'سليم', 'Bénigne'),
  ('BAS', 'EOS', 'segmented neutrophil', 'band'),
  ('images of cells', 'other'),
  ('M1', 'M2', 'L1'),
)
PARTS = (
  ('train', 'val', 'test'),
  ('Training', 'Validation', 'Testing'),
  ('train', 'test'),
  ('fold_0', 'fold_1', 'fold_2'),
  ('TrainSet', 'TestA', 'TestB'),
)
PATIENTS = ('patient_{:02d}', 'P{}', 'Case {}', 'subject-{:03d}', 'slide {}')
TREES = (
  ('images', 'masks'),
  ('imgs', 'gt'),
  ('Original', 'Segmented'),
  ('image', 'labels'),
)
SYSTEM = ('.ipynb_checkpoints', '__MACOSX', '@eaDir', '$RECYCLE.BIN')


class Tree(NamedTuple):
  """A drawn set: its files, and what each image is."""

  paths: list[str]
  labels: dict[str, str]
  patients: dict[str, str]
  parts: dict[str, str]
  masks: dict[str, str]


@st.composite
def trees(draw) -> Tree:
  """Folders of parts, classes and patients in some order, masks, wrappings."""
  classes = draw(st.sampled_from(CLASSES))
  parts = draw(st.sampled_from([(), *PARTS]))
  pattern = draw(st.sampled_from(['', *PATIENTS]))
  above = draw(st.booleans())
  trees_of_masks = draw(st.sampled_from([(), *TREES]))
  inner = draw(st.booleans())
  suffix = draw(st.sampled_from(['', '_mask', '-seg']))
  wrapping = draw(st.sampled_from(['', 'my set/', 'data/leukemia/']))
  each = draw(st.integers(2, 3))
  tree = Tree([], {}, {}, {}, {})
  number = 0
  for part in parts or ('',):
    for label in classes:
      for patient in range(2 if pattern else 1):
        # Patients are of one class, and of one part.
        own = pattern.format(1 + number // each) if pattern else ''
        levels = [own, label] if above else [label, own]
        for _ in range(each):
          stem = f'im-{number}'
          number += 1
          folders = [part, *levels]

          def path(kind: str, name: str, folders=folders) -> str:
            at = len(folders) if inner else 0
            place = [*folders[:at], kind, *folders[at:]]
            return wrapping + '/'.join([f for f in place if f] + [name])

          image = path(
            trees_of_masks[0] if trees_of_masks else '', f'{stem}.png'
          )
          tree.paths.append(image)
          tree.labels[image] = label
          tree.patients[image] = own
          tree.parts[image] = names.part(part) or part
          if trees_of_masks:
            mask = path(trees_of_masks[1], f'{stem}{suffix}.png')
          elif suffix:
            mask = path('', f'{stem}{suffix}.png')
          else:
            continue
          tree.paths.append(mask)
          tree.masks[image] = mask
        del patient
  return tree


@hypothesis.given(trees(), st.randoms())
@hypothesis.settings(max_examples=150, deadline=None)
def test_a_tree_is_read_right_or_refused(tree, order):
  shuffled = list(tree.paths)
  order.shuffle(shuffled)
  try:
    reading = layouts.read(tree.paths)
  except InputError as error:
    assert 'config.data.' in str(error)
    with pytest.raises(InputError) as again:
      layouts.read(shuffled)
    assert str(again.value) == str(error)
    return
  assert layouts.read(shuffled) == reading
  read = {entry.path: entry for entry in reading.entries}
  assert read.keys() == tree.labels.keys()
  for path, entry in read.items():
    assert entry.label == tree.labels[path]
    assert entry.part == tree.parts[path]
    assert entry.patient in ('', tree.patients[path])
    assert entry.masks == ((tree.masks[path],) if path in tree.masks else ())


def test_most_trees_are_read():
  are_read = []

  @hypothesis.given(trees())
  @hypothesis.settings(max_examples=150, deadline=None)
  def look(tree):
    try:
      layouts.read(tree.paths)
    except InputError:
      are_read.append(False)
    else:
      are_read.append(True)

  look()
  assert sum(are_read) / len(are_read) > 0.9


@hypothesis.given(trees())
@hypothesis.settings(max_examples=60, deadline=None)
def test_patients_that_are_named_so_are_found(tree):
  hypothesis.assume(len(set(tree.patients.values())) > 1)
  try:
    reading = layouts.read(tree.paths)
  except InputError:
    return
  for entry in reading.entries:
    assert entry.patient == tree.patients[entry.path]


@hypothesis.given(
  st.lists(
    st.lists(
      st.sampled_from(
        [
          *(name for group in CLASSES for name in group),
          *(name for group in PARTS for name in group),
          *(name for pair in TREES for name in pair),
          *(pattern.format(7) for pattern in PATIENTS),
        ]
      ),
      min_size=0,
      max_size=4,
    ),
    min_size=1,
    max_size=12,
  ),
  st.randoms(),
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_any_heap_of_folders(heap, order):
  """No class is a part's, a mask's or a patient's folder, whatever is there."""
  paths = [
    '/'.join([*folders, f'{stem}{i}.png'])
    for i, folders in enumerate(heap)
    for stem in 'ab'
  ]
  shuffled = list(paths)
  order.shuffle(shuffled)

  def outcome(paths):
    try:
      return layouts.read(paths)
    except InputError as error:
      return str(error)

  reading = outcome(paths)
  assert outcome(shuffled) == reading
  if isinstance(reading, str):
    return
  for name in reading.class_names:
    assert not names.is_part_word(name)
    assert not names.are_patients([name])
    assert not names.is_system(name)
  every = {entry.path for entry in reading.entries}
  every |= {mask for entry in reading.entries for mask in entry.masks}
  every |= {path for paths in reading.left_out.values() for path in paths}
  assert every | set(reading.unpaired) == set(paths)


@pytest.mark.parametrize('name', SYSTEM)
def test_what_systems_leave_is_known(name):
  assert names.is_system(f'Benign/{name}/x.png')


@pytest.mark.parametrize(
  'folders',
  [
    # Both levels hold the same folders below one another.
    [('north', 'ALL'), ('north', 'HEM'), ('south', 'ALL'), ('south', 'HEM')],
    [('Benign', 'bright'), ('Malignant', 'dark'), ('Malignant', 'pale')],
  ],
)
def test_two_readings_are_refused_with_both(folders):
  paths = ['/'.join([*f, f'{i}.png']) for f in folders for i in range(3)]
  with pytest.raises(InputError, match='can be read in two ways') as caught:
    layouts.read(paths)
  # What the error advises leads to a reading.
  patterns = str(caught.value).split("config.data.label='")[1:]
  for level, pattern in enumerate(p.partition("'")[0] for p in patterns):
    reading = layouts.read(paths, layouts.Options(label=pattern))
    assert set(reading.class_names) == {f[level] for f in folders}


def classes_of(paths, **options):
  reading = layouts.read(paths, layouts.Options(**options))
  return {entry.path: entry.label for entry in reading.entries}


def test_spellings_of_a_class_are_no_patients():
  paths = [f'{c}/{i}.png' for c in ('L1', 'l1', 'L2', 'L3') for i in range(3)]
  reading = layouts.read(paths)
  assert reading.class_names == ('L1', 'L2', 'L3')
  assert not reading.how['patients']


def test_a_class_of_its_patients_name_is_no_nested_archive():
  paths = [f'{p}/{c}/{i}.png' for p in '1234' for c in '01' for i in range(3)]
  with pytest.raises(InputError, match='two ways: 1, 2, 3, 4') as error:
    layouts.read(paths)
  # What is advised finds the class, not the patient.
  pattern = str(error.value).rpartition("='")[2].strip("'")
  assert classes_of(paths, label=pattern) == {p: p.split('/')[1] for p in paths}
  for folders in (
    ('1/1', '2/0', '3/1', '4/0'),
    ('1/1', '2/2', '3/1'),
    ('1/1', '1/2', '2/2', '3/3'),
    ('1/1', '2/3', '3/1', '4/4'),
  ):
    with pytest.raises(InputError, match='two ways: 1, 2'):
      layouts.read([f'{folder}/{i}.png' for folder in folders for i in 'abc'])


@pytest.mark.parametrize(
  'folders',
  [
    ('ALL/ALL', 'HEM'),
    ('ALL/ALL', 'HEM/HEM'),
    ('set/set/ALL', 'set/set/HEM'),
    ('1/1', '2'),
    ('1/1', '2/2', '3/3'),
    ('set/set/1', 'set/set/2'),
    # A class of its wrapping's name.
    ('ALL/ALL', 'ALL/HEM'),
    ('1/1', '1/2', '1/3'),
  ],
)
def test_archives_that_unpack_into_their_own_name(folders):
  paths = [f'{folder}/{i}.png' for folder in folders for i in range(3)]
  assert classes_of(paths) == {p: p.split('/')[-2] for p in paths}


def test_one_folder_of_masks_beside_folders_of_classes():
  paths = [f'{c}/{c}{i}.png' for c in ('ALL', 'HEM') for i in range(5)]
  masks = [f'masks/{c}{i}_mask.png' for c in ('ALL', 'HEM') for i in range(5)]
  reading = layouts.read([*paths, *masks])
  assert reading.class_names == ('ALL', 'HEM') and not reading.unpaired
  for entry in reading.entries:
    assert entry.masks == (f'masks/{names.stem(entry.path)}_mask.png',)
  # Of names that several folders have, whose a mask is isn't known.
  same = [f'{c}/{i}.png' for c in ('ALL', 'HEM') for i in range(5)]
  reading = layouts.read([*same, *(f'masks/{i}.png' for i in range(5))])
  assert reading.class_names == ('ALL', 'HEM')
  assert len(reading.unpaired) == 15 and not any(
    e.masks for e in reading.entries
  )


def test_masks_of_one_folder_beside_a_tree_of_classes():
  paths = [f'images/{c}/{c}{i}.png' for c in ('ALL', 'HEM') for i in range(3)]
  masks = [f'masks/{c}{i}.png' for c in ('ALL', 'HEM') for i in range(3)]
  reading = layouts.read([*paths, *masks])
  assert all(e.masks[0].endswith(e.path[-8:]) for e in reading.entries)
  assert len(reading.entries) == 6 and not reading.unpaired


def test_a_mask_of_a_missing_image_in_one_folder_of_masks():
  stems = ['ALL/a', 'ALL/a_2', 'HEM/b', 'HEM/b_2']
  masks = ['a', 'a_2', 'a_3', 'b', 'b_2']
  reading = layouts.read(
    [*(f'{s}.png' for s in stems), *(f'masks/{m}.png' for m in masks)]
  )
  assert reading.unpaired == ('masks/a_3.png',)
  for entry in reading.entries:
    assert entry.masks == (f'masks/{entry.path.rpartition("/")[2]}',)


@pytest.mark.parametrize('patient', ['', 'auto'])
def test_classes_of_trees_with_or_without_patients(patient):
  paths = [
    f'{tree}_{c}/{i}.png'
    for tree in ('images', 'masks')
    for c in ('ALL', 'HEM')
    for i in range(3)
  ]
  reading = layouts.read(paths, layouts.Options(patient=patient))
  assert len(reading.class_names) == 2 and all(e.masks for e in reading.entries)


def test_a_folder_below_a_tree_of_another_name_is_numbered():
  paths = [
    f'{tree}_{c}/{p}/{i}.png'
    for tree in ('images', 'masks')
    for c in ('ALL', 'HEM')
    for p in ('anna', 'ben')
    for i in range(3)
  ]
  reading = layouts.read(paths, layouts.Options(label='(ALL|HEM)/'))
  assert any(
    'config.data.patient=folder:2 (anna' in w for w in reading.warnings
  )


def test_folders_of_masks_are_of_the_images_beside_them():
  parts = {'train': range(8), 'test': range(4, 12)}
  paths = [
    f'{part}/{folder}/{c}{i}.png'
    for part, numbers in parts.items()
    for c in ('ALL', 'HEM')
    for i in numbers
    for folder in (c, 'masks')
  ]
  # A mask of an image that is not there, and images beside all of it.
  reading = layouts.read(
    [*paths, 'test/masks/ALL0.png', 'train/overview.png'],
    layouts.Options(label='(ALL|HEM)/'),
  )
  assert reading.unpaired == ('test/masks/ALL0.png',)
  for entry in reading.entries:
    part, folder, name = entry.path.split('/')
    assert entry.masks == (f'{part}/masks/{name}',) and entry.label == folder


def test_codes_with_masks_may_be_patients():
  paths = [
    f'{p}/{tree}/{i}.png'
    for p in ('12a', '13b', '14c')
    for tree in ('images', 'masks')
    for i in range(3)
  ]
  reading = layouts.read(paths)
  assert reading.class_names == ('12a', '13b', '14c')
  (warning,) = reading.warnings
  assert 'if they are patients, give config.data.patient=folder:1' in warning
  reading = layouts.read(paths, layouts.Options(patient='folder:1'))
  assert not reading.class_names and not reading.warnings
  assert {e.patient for e in reading.entries} == {'12a', '13b', '14c'}


def test_images_above_the_level_of_classes():
  paths = ['10x/10x/1.png', '10x/S2/2.png', '40x/3.png']
  assert layouts.read(paths).class_names == ('10x', 'S2')


def test_one_order_however_names_are_composed():
  composed = [f'{c}/z{v}.png' for c in 'ab' for v in ('u', 'z', 'ü')]
  taken_apart = [unicodedata.normalize('NFD', path) for path in composed]
  assert [e.path for e in layouts.read(composed).entries] == [
    names.normalise(e.path) for e in layouts.read(taken_apart).entries
  ]


def test_patient_names_that_all_classes_have_are_said():
  paths = [
    f'{c}/patient_{p}/{i}.png' for c in 'xy' for p in range(4) for i in range(3)
  ]
  (warning,) = layouts.read(paths).warnings
  assert 'if numbers begin anew in each class' in warning
  # Where patients hold classes nothing begins anew.
  inside = [
    f'patient_{p}/{c}/{i}.png'
    for c in ('blast', 'normal')
    for p in range(4)
    for i in range(3)
  ]
  assert not layouts.read(inside).warnings
  # Some patients of both are nothing to wonder at.
  assert not layouts.read([*paths, 'x/patient_9/0.png']).warnings


def test_a_part_beside_classes_is_refused_and_can_be_chosen():
  paths = [f'{f}/{i}.png' for f in ('test', 'control', 'x') for i in range(3)]
  with pytest.raises(InputError, match='test as a part of a split'):
    layouts.read(paths)
  reading = layouts.read(paths, layouts.Options(label='^([^/]+)/'))
  assert reading.class_names == ('control', 'test', 'x')
  assert {entry.part for entry in reading.entries} == {''}


def test_tests_that_are_joined_are_said():
  def read(*parts):
    return layouts.read(
      [f'{p}/{c}/{i}.png' for p in parts for c in 'xy' for i in range(3)]
    )

  reading = read('Training', 'Testing', 'External Validation')
  assert {entry.part for entry in reading.entries} == {'train', 'test'}
  (warning,) = reading.warnings
  assert 'External Validation, Testing are joined as one test' in warning
  assert not read('Training', 'Testing').warnings
  again = read('1/train', '1/test', '2/train', '2/Test').warnings
  assert not any('joined' in warning for warning in again)


def test_numbered_folders_above_classes_are_none():
  paths = [
    f'batch{b}/{c}/{i}.png' for b in (1, 2) for c in 'xy' for i in range(3)
  ]
  reading = layouts.read(paths)
  assert reading.class_names == ('x', 'y')
  assert 'config.data.patient=folder:1' in reading.warnings[0]
  chosen = layouts.read(paths, layouts.Options(patient='folder:1'))
  assert {entry.patient for entry in chosen.entries} == {'batch1', 'batch2'}


def test_folders_below_images_of_their_class_are_said():
  paths = [f'{c}/{i}.png' for c in ('Early', 'Pro') for i in range(4)]
  assert not layouts.read(paths).warnings
  reading = layouts.read([*paths, 'Pro/bad quality/9.png'])
  assert [e.label for e in reading.entries].count('Pro') == 5
  (warning,) = reading.warnings
  assert 'Pro/bad quality' in warning and 'config.data.patient' in warning
  patients = [*paths, 'Pro/patient_1/9.png', 'Pro/patient_2/9.png']
  (warning,) = layouts.read(patients).warnings
  assert 'have no patient' in warning


def test_names_that_differ_by_case_are_one_class():
  paths = [f'train/Benign/{i}.png' for i in range(4)]
  paths += [f'test/benign/{i}.png' for i in range(2)]
  paths += [f'{part}/Pro/{i}.png' for part in ('train', 'test') for i in '12']
  reading = layouts.read(paths)
  assert reading.class_names == ('Benign', 'Pro')
  assert 'Benign, benign are read as one class' in reading.warnings[0]


def test_a_patient_pattern_that_is_suggested_fits():
  paths = [
    f'{c}/img_{i:03d}_patient_{i // 2:02d}.png' for c in 'xy' for i in range(6)
  ]
  reading = layouts.read(paths)
  pattern = reading.warnings[0].partition("'")[2].rpartition("'")[0]
  found = layouts.read(paths, layouts.Options(patient=pattern))
  assert {e.patient for e in found.entries} == {'00', '01', '02'}
