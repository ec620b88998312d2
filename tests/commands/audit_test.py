"""--mode=audit: planted faults are named, a clean set stays clean."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from command import refused, run
from leukemia_jax.configs import default
from PIL import Image

from leukemia_jax.commands import audit
from leukemia_jax.data import synthetic, synthetic_cells

CLASSES = ('Benign', 'Pro')
PATIENTS, FIELDS = 8, 6  # of each class


def draw(folder: pathlib.Path) -> None:
  """Smears of one look, so that nothing tells the classes apart."""
  key, spec = jax.random.key(0), synthetic_cells.SmearSpec()
  for i in range(len(CLASSES) * PATIENTS * FIELDS):
    patient = i // FIELDS
    image, _ = synthetic.render_image(key, i, 1, patient, spec=spec)
    path = folder / CLASSES[patient % 2] / f'patient_{patient:02d}'
    path.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path / f'{i:03d}.png')


@pytest.fixture
def smears(once, tmp_path) -> pathlib.Path:
  """A folder of smears that a test may change."""
  folder = tmp_path / 'smears'
  shutil.copytree(once('audited-smears', draw), folder)
  return folder


def audited(folder: pathlib.Path, cache: str, tmp_path, **data) -> dict:
  """Runs the audit; returns audit.json."""
  config = default.get_config()
  config.data.update(data)
  config.data.source = str(folder)
  config.data.cache_dir = cache.partition('=')[2]
  audit.run(config, tmp_path / 'audit')
  return json.loads((tmp_path / 'audit/audit.json').read_text())


def kinds(content: dict) -> set[str]:
  return {own['kind'] for own in content['findings'] if own['serious']}


def files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
  return sorted((folder / name).rglob('*.png'))


@pytest.mark.full
def test_clean_smears_are_clean(smears, cache, tmp_path):
  content = audited(smears, cache, tmp_path)
  assert content['verdict'].startswith('Clean') and not content['serious']
  for kind in ('exact', 'oriented', 'near'):
    assert content['duplicates'][kind] == {'pairs': 0, 'images': 0}
  assert content['leaks']['any'] == 0 and content['leaks']['patients'] == 0
  for score in content['probes'].values():
    assert score['p_value'] > 0.05 or score['interval'][0] <= content['chance']
  assert content['patients'] == 16 and content['group'] == 'patient'
  page = (tmp_path / 'audit/audit.html').read_text()
  assert content['verdict'] in page and 'src="data:image/svg' in page
  # Images of a set that is not synthetic are in no page.
  assert 'image/png' not in page
  assert not (tmp_path / 'audit/pairs.png').exists()


@pytest.mark.full
def test_twins_are_counted_listed_and_shown_if_allowed(smears, cache, tmp_path):
  first = files(smears, 'Benign')[0]
  shutil.copy(first, first.with_name('again.png'))
  second = files(smears, 'Pro')[5]
  turned = Image.open(second).transpose(Image.Transpose.ROTATE_90)
  turned.save(second.with_name('turned.png'))
  third = files(smears, 'Pro')[9]
  near = Image.open(third).rotate(8, Image.Resampling.BILINEAR)
  near.save(third.with_name('near.png'))
  config = default.get_config()
  config.data.source = str(smears)
  config.data.cache_dir = cache.partition('=')[2]
  config.report.include_images = 'yes'
  audit.run(config, tmp_path / 'audit')
  content = json.loads((tmp_path / 'audit/audit.json').read_text())
  counted = {
    kind: content['duplicates'][kind]['pairs']
    for kind in ('exact', 'oriented', 'near')
  }
  assert counted == {'exact': 1, 'oriented': 1, 'near': 1}
  listed = (tmp_path / 'audit/duplicates.csv').read_text()
  for name in ('again.png', 'turned.png', 'near.png'):
    assert name in listed
  assert (tmp_path / 'audit/pairs.png').stat().st_size > 10_000


@pytest.mark.full
def test_a_corner_mark_and_a_cast_are_named(smears, cache, tmp_path):
  for path in files(smears, 'Pro'):
    pixels = np.array(Image.open(path))
    pixels[-12:-8, -36:-4] = (20, 20, 20)
    tinted = np.clip(pixels * np.array((0.88, 1.0, 0.9)), 0, 255)
    Image.fromarray(tinted.astype(np.uint8)).save(path)
  content = audited(smears, cache, tmp_path)
  assert kinds(content) == {'shortcut'}
  probes = content['probes']
  for name in (
    'corner_bottom_right',
    'background_colour',
    'colour',
    'together',
  ):
    assert probes[name]['balanced_accuracy'] > 0.9
    assert probes[name]['p_value'] < 0.05
  for name in ('corner_top_left', 'corner_top_right', 'centre'):
    assert probes[name]['balanced_accuracy'] < 0.65
  # What is taken out of the images is no shortcut any more; the files' sizes
  # still are one.
  removed = {'hide_corners': True, 'white_balance': True}
  content = audited(smears, cache, tmp_path / 'removed', **removed)
  for name, score in content['probes'].items():
    assert name in ('file', 'together') or score['p_value'] > 0.05, name


@pytest.mark.full
def test_labels_that_contradict_each_other(smears, cache, tmp_path):
  benign, pro = files(smears, 'Benign'), files(smears, 'Pro')
  mirrored = Image.open(benign[3]).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  mirrored.save(pro[0].with_name('conflict.png'))
  alike = Image.open(benign[20]).rotate(-7, Image.Resampling.BILINEAR)
  alike.save(pro[0].with_name('alike.png'))
  content = audited(smears, cache, tmp_path)
  assert 'labels' in kinds(content)
  text = ' '.join(own['text'] for own in content['findings'])
  assert 'conflict.png' in text and 'alike.png' in text


@pytest.mark.full
def test_leaks_of_a_given_split(smears, cache, tmp_path):
  split = tmp_path / 'split'
  for name in CLASSES:
    for i, patient in enumerate(sorted((smears / name).iterdir())):
      part = 'test' if i < 2 else 'train'
      shutil.copytree(patient, split / part / name / patient.name)
  assert audited(split, cache, tmp_path)['leaks']['any'] == 0
  # One patient in both parts, and a compressed copy of another's field.
  patient = sorted((split / 'test/Pro').iterdir())[0]
  half = split / 'train/Pro' / patient.name
  half.mkdir()
  for path in sorted(patient.iterdir())[:3]:
    shutil.move(path, half / path.name)
  source = sorted((split / 'train/Benign').rglob('*.png'))[0]
  target = sorted((split / 'test/Benign').iterdir())[0]
  Image.open(source).save(target / 'copy.jpg', quality=60)
  content = audited(split, cache, tmp_path)
  leaks = content['leaks']
  assert leaks['patients'] == 1
  assert (leaks['copies'], leaks['twins'], leaks['near_twins']) == (0, 0, 1)
  assert kinds(content) == {'leak'}
  assert 'config.data.split=random' in content['findings'][0]['text']


@pytest.mark.full
def test_copies_of_the_study_protocol_are_counted(smears, cache, tmp_path):
  protocol = {'protocol': 'balance_then_split', 'per_class': 96}
  content = audited(smears, cache, tmp_path, **protocol)
  leaks = content['leaks']
  assert leaks['copies'] > 0.5 * leaks['test_images']
  assert 'leak' in kinds(content)


@pytest.mark.full
def test_sets_without_classes_groups_or_whole_files(smears, cache, tmp_path):
  flat = tmp_path / 'ALL_IDB1 <b>|'
  flat.mkdir()
  for path in files(smears, 'Benign')[:4]:
    shutil.copy(path, flat)
  (flat / 'bad.png').write_bytes(b'no image')
  content = audited(flat, cache, tmp_path)
  assert content['images'] == 4 and content['probes'] == {}
  assert 'bad.png' in content['findings'][0]['text']
  page = (tmp_path / 'audit/audit.html').read_text()
  assert '<h1>Audit of ALL_IDB1 &lt;b&gt;|</h1>' in page
  few = tmp_path / 'few'
  for name in CLASSES:
    (few / name).mkdir(parents=True)
    shutil.copy(files(smears, name)[0], few / name)
  content = audited(few, cache, tmp_path / 'second')
  assert content['folds'] == 0 and content['leaks'] is None
  assert content['verdict'] == (
    'Not examined enough: no duplicate; not examined: leaks, shortcuts, '
    'patients.'
  )
  texts = [own['text'] for own in content['findings']]
  assert any('too few to split' in text for text in texts)
  assert any('in two groups or more' in text for text in texts)


@pytest.mark.full
def test_strict_ends_with_status_1(smears, cache, tmp_path):
  first = files(smears, 'Benign')[0]
  shutil.copy(first, files(smears, 'Pro')[0].with_name('conflict.png'))
  flags = ['--mode=audit', cache, f'--config.data.source={smears}']
  done = run(f'--workdir={tmp_path}/w', *flags, '--strict')
  assert done.stdout.count('serious: ') == 1
  error = refused(done)
  assert 'serious findings: 1' in error and 'audit.md' in error
  error = refused(run(f'--workdir={tmp_path}/w', '--strict'))
  assert '--mode=audit' in error
  flags = ['--mode=audit', cache, '--config.synthetic.scale=0.03']
  error = refused(run(f'--workdir={tmp_path}/w', *flags))
  assert f'holds the audit of {smears.name}, not of synthetic' in error


@pytest.mark.full
def test_synthetic_smears_are_clean(cache, tmp_path):
  config = default.get_config()
  config.data.cache_dir = cache.partition('=')[2]
  config.synthetic.scale = 0.2
  audit.run(config, tmp_path)
  content = json.loads((tmp_path / 'audit.json').read_text())
  assert content['images'] == 652
  assert content['verdict'].startswith('Clean'), content['findings']
  assert all(score['p_value'] > 0.05 for score in content['probes'].values())
  for kind in ('exact', 'oriented', 'near'):
    assert content['duplicates'][kind]['pairs'] == 0
