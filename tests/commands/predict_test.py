"""--mode=predict: right answers, all images, shards, kills, wrong input."""

import csv
import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from command import refused, run
from conftest import ROOT
from PIL import Image

from leukemia_jax.commands import predict
from leukemia_jax.data import synthetic, synthetic_cells
from leukemia_jax.errors import InputError
from leukemia_jax.metrics import calibration

COUNT = 24


def rows(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open(newline='', encoding='utf-8') as stream:
    return list(csv.DictReader(stream))


@functools.cache
def fields(count: int = COUNT) -> list[np.ndarray]:
  key, spec = jax.random.key(4), synthetic_cells.SmearSpec()
  return [
    synthetic.render_image(key, i, i % 4, i % 5, spec=spec)[0]
    for i in range(count)
  ]


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> pathlib.Path:
  """Fields in folders, of several sizes, and two that can't be read."""
  folder = tmp_path_factory.mktemp('new') / 'images'
  for i, field in enumerate(fields()):
    path = folder / f'slide {i % 3}/{i:02}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(field if i % 4 else field[:180, :150]).save(path)
  (folder / 'cut.jpg').write_bytes(b'\xff\xd8\xff\xe0 cut')
  (folder / 'scan.dcm').write_bytes(b'DICM')
  (folder / 'notes.txt').write_text('no image')
  return folder


def call(workdir, runs, source, shard=(0, 1), **overrides) -> int:
  """Runs the command in this process; gives its status."""
  keys = {'predict.scale': '1'} | {
    key.replace('__', '.'): value for key, value in overrides.items()
  }
  try:
    predict.run(keys, workdir, runs, str(source), shard)
  except SystemExit as ended:
    return ended.code
  return 0


def test_the_own_images_get_the_own_predictions(trained, tmp_path):
  """The test part, drawn again and read as files."""
  own = [r for r in rows(trained / 'predictions.csv') if r['part'] == 'test']
  spec = synthetic_cells.SmearSpec()
  for row in own:
    label, patient, number = re.fullmatch(
      r'(\w+)/patient-(\d+)-(\d+)\.png', row['path']
    ).groups()
    image, _ = synthetic.render_image(
      jax.random.key(0),
      int(number),
      synthetic.CLASSES.index(label),
      int(patient),
      spec=spec,
    )
    (tmp_path / 'set' / label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(tmp_path / 'set' / row['path'])
  source, out = tmp_path / 'set', tmp_path / 'out'
  assert call(out, [trained], source, report__include_images='no') == 0
  # Pages can go without pictures.
  assert 'data:image' not in (out / 'predictions.html').read_text()
  assert not list(out.rglob('*.jpg'))
  got = {row['path']: row for row in rows(tmp_path / 'out/predictions.csv')}
  names = [f'p_{name}' for name in synthetic.CLASSES]
  finished = json.loads((trained / 'result.json').read_text())
  known = calibration.with_temperature(
    np.array([[float(row[name]) for name in names] for row in own]),
    finished['calibration']['temperature'],
  )
  said = [[float(got[row['path']][name]) for name in names] for row in own]
  np.testing.assert_allclose(said, known, atol=1e-5)
  assert len(got) == len(own)
  # The report's rates are these flags.
  unlike = np.mean(['unlike' in row['flags'] for row in got.values()])
  uncertain = np.mean(['uncertain' in row['flags'] for row in got.values()])
  assert unlike == pytest.approx(finished['limits']['false_alarms'])
  assert uncertain == pytest.approx(finished['limits']['uncertain'])


@pytest.mark.full
def test_all_images_are_done_and_bad_ones_named(
  trained, segmenter, images, tmp_path, capsys
):
  assert call(tmp_path / 'w', [trained, segmenter], images) == 1
  # A segmenter beside one classifier makes no ensemble.
  page = (tmp_path / 'w/predictions.md').read_text()
  assert 'Both rates hold on average' in page and 'averaged' not in page
  written = capsys.readouterr()
  for name in ('cut.jpg: ', 'scan.dcm: '):
    assert name in written.err
  assert 'error: 2 of 26 images cannot be read' in written.err
  got = rows(tmp_path / 'w/predictions.csv')
  paths = [row['path'] for row in got]
  assert paths == sorted(
    p.relative_to(images).as_posix() for p in images.rglob('*.png')
  )
  bad = [row['path'] for row in rows(tmp_path / 'w/unreadable.csv')]
  assert bad == ['cut.jpg', 'scan.dcm']
  cells = rows(tmp_path / 'w/cells.csv')
  for row, counted in zip(got, rows(tmp_path / 'w/counts.csv'), strict=True):
    shares = [float(row[f'p_{name}']) for name in synthetic.CLASSES]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert row['predicted_class'] == synthetic.CLASSES[np.argmax(shares)]
    assert set(row['flags'].split(';')) <= {
      *('ok', 'uncertain', 'unlike the training images')
    }
    with Image.open(images / row['path']) as image:
      size = image.size
    pictures = {}
    for kind in ('masks', 'instances', 'overlays'):
      with Image.open(tmp_path / 'w' / kind / f'{row["path"]}.png') as picture:
        assert picture.size == size
        pictures[kind] = np.asarray(picture)
    numbers = set(np.unique(pictures['instances'])) - {0}
    own = [cell for cell in cells if cell['path'] == row['path']]
    assert {int(cell['number']) for cell in own} == numbers
    assert int(counted['cells']) == len(numbers)
    assert ((pictures['instances'] > 0) == (pictures['masks'] > 0)).all()
    share = (pictures['masks'] > 0).mean()
    assert float(counted['cell_share']) == pytest.approx(share, abs=1e-5)
  page = (tmp_path / 'w/predictions.html').read_text()
  assert page.count('data:image/jpeg') == len(got)
  assert 'not a medical device' in page


@pytest.mark.full
def test_shards_and_an_ensemble_of_one_model_say_the_same(
  trained, images, tmp_path
):
  for i in range(3):
    call(tmp_path / 'shards', [trained], images, (i, 3))
  call(tmp_path / 'whole', [trained], images)
  call(tmp_path / 'twice', [trained, trained], images)
  whole = (tmp_path / 'whole/predictions.csv').read_text()
  assert (tmp_path / 'twice/predictions.csv').read_text() == whole
  # Flags of several keep no rate.
  for folder, words in (
    ('whole', 'Both rates hold on average'),
    ('twice', "Both rates are each model's own"),
  ):
    assert words in (tmp_path / folder / 'predictions.md').read_text()
  parts = [
    rows(tmp_path / f'shards/predictions-{i}-of-3.csv') for i in range(3)
  ]
  joined = sorted(sum(parts, []), key=lambda row: row['path'])
  # Products of matrices round by an image's place in its batch.
  for own, other in zip(
    joined, rows(tmp_path / 'whole/predictions.csv'), strict=True
  ):
    texts = ('path', 'predicted_class', 'flags')
    assert [own[key] for key in texts] == [other[key] for key in texts]
    numbers = sorted(own.keys() - texts)
    assert [float(own[key]) for key in numbers] == pytest.approx(
      [float(other[key]) for key in numbers], abs=1e-5
    )
  assert all(len(part) >= 7 for part in parts)
  # Shards that are listed at different times would leave images out.
  more = tmp_path / 'more'
  shutil.copytree(images, more)
  call(tmp_path / 'later', [trained], more, (0, 2))
  shutil.copy(sorted(images.rglob('*.png'))[0], more / '0000.png')
  with pytest.raises(InputError, match='images: .* saved, .* now'):
    call(tmp_path / 'later', [trained], more, (1, 2))


@pytest.mark.full
def test_archives_and_single_files(trained, images, tmp_path, capsys):
  shutil.make_archive(str(tmp_path / 'new'), 'zip', images)
  call(tmp_path / 'zip', [trained], tmp_path / 'new.zip')
  call(tmp_path / 'folder', [trained], images)
  assert rows(tmp_path / 'zip/predictions.csv') == (
    rows(tmp_path / 'folder/predictions.csv')
  )
  assert call(tmp_path / 'file', [trained], images / 'slide 1/01.png') == 0
  (only,) = rows(tmp_path / 'file/predictions.csv')
  assert only['path'] == '01.png'
  assert 'several pages' not in capsys.readouterr().out
  pages = [Image.fromarray(own) for own in fields()[:3]]
  stack = tmp_path / 'stack.tif'
  pages[0].save(stack, save_all=True, append_images=pages[1:])
  assert call(tmp_path / 'stack', [trained], stack) == 0
  said = capsys.readouterr().out
  assert 'warning: stack.tif: several pages or frames' in said


@pytest.mark.full
def test_a_command_that_was_cut_off_goes_on(
  trained, images, tmp_path, monkeypatch
):
  monkeypatch.setattr(predict, '_COMMIT', 4)
  call(tmp_path / 'whole', [trained], images)

  class Killed(BaseException):
    pass

  write = predict._write
  for left in (7, 3):
    # Between two commits, again and again.
    with monkeypatch.context() as patched:
      patched.setattr(
        predict,
        '_write',
        lambda files, items, *rest, left=left: write(
          files, interrupted(items, left, Killed), *rest
        ),
      )
      with pytest.raises(Killed):
        call(tmp_path / 'cut', [trained], images)
  call(tmp_path / 'cut', [trained], images)
  for name in ('predictions.csv', 'unreadable.csv', 'predictions.html'):
    assert (tmp_path / 'cut' / name).read_bytes() == (
      (tmp_path / 'whole' / name).read_bytes()
    )
  journal = json.loads((tmp_path / 'cut/progress.json').read_text())
  assert journal['items'] == COUNT + 2


def interrupted(items, count, error):
  for i, item in enumerate(items):
    if i == count:
      raise error
    yield item


@pytest.mark.full
def test_a_killed_process_loses_nothing(trained, images, tmp_path):
  flags = [
    *('--mode=predict', f'--checkpoint={trained}', f'--input={images}'),
    '--config.predict.scale=1',
  ]
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  assert run(*flags, f'--workdir={whole}').returncode == 1
  command = [sys.executable, 'main.py', *flags, f'--workdir={killed}']
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  while process.poll() is None and not (killed / 'predictions.csv').exists():
    time.sleep(0.01)
  process.kill()
  process.wait()
  assert run(*flags, f'--workdir={killed}').returncode == 1
  name = 'predictions.csv'
  assert (killed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.full
def test_other_images_than_before_are_refused(trained, images, tmp_path):
  source = shutil.copytree(images, tmp_path / 'set')
  call(tmp_path / 'w', [trained], source)
  # Finished: the same command says the same again.
  assert call(tmp_path / 'w', [trained], source) == 1
  # As many, of which the last is the same.
  (source / 'slide 0/00.png').rename(source / 'slide 0/01.png')
  with pytest.raises(InputError, match='other images than when this began'):
    call(tmp_path / 'w', [trained], source)
  (source / 'slide 0/01.png').rename(source / 'slide 0/00.png')
  (source / 'slide 2/23.png').unlink()
  with pytest.raises(InputError, match='other images than when this began'):
    call(tmp_path / 'w', [trained], source)


@pytest.mark.full
def test_images_that_came_since_are_scaled_as_the_first(
  trained, images, tmp_path, monkeypatch
):
  source = shutil.copytree(images, tmp_path / 'set')
  call(tmp_path / 'w', [trained], source, predict__scale='auto')
  shutil.copy(source / 'slide 2/23.png', source / 'slide 2/99.png')
  # It is not measured again.
  monkeypatch.setattr(predict.scale, 'measure', None)
  call(tmp_path / 'w', [trained], source, predict__scale='auto')
  journal = json.loads((tmp_path / 'w/progress.json').read_text())
  assert journal['last'] == 'slide 2/99.png' and journal['scale'] == 1


@pytest.mark.full
def test_models_that_learnt_from_other_decoding_are_refused(
  trained, images, tmp_path
):
  other = shutil.copytree(trained, tmp_path / 'other')
  config = json.loads((other / 'config.json').read_text())
  config['data']['white_level'] = 4095
  (other / 'config.json').write_text(json.dumps(config))
  with pytest.raises(InputError, match=r'data\.white_level=0.*with 4095'):
    call(tmp_path / 'w', [trained, other], images)
  named = {'data__white_level': 4095}
  assert call(tmp_path / 'w', [trained, other], images, **named) == 1


@pytest.mark.full
def test_half_scale_is_measured_and_said(trained, tmp_path, capsys):
  (tmp_path / 'set').mkdir()
  (tmp_path / 'few').mkdir()
  for i in range(0, COUNT, 4):
    own = fields()[i : i + 4]
    wide = np.vstack([np.hstack(own[:2]), np.hstack(own[2:])])
    Image.fromarray(wide).save(tmp_path / f'set/{i}.png')
    if i < 12:
      Image.fromarray(wide[::-1]).save(tmp_path / f'set/{i} turned.png')
      Image.fromarray(wide).save(tmp_path / f'few/{i}.png')
  call(tmp_path / 'auto', [trained], tmp_path / 'set', predict__scale='auto')
  assert 'cells are 0.5 times as large' in capsys.readouterr().out
  call(tmp_path / 'two', [trained], tmp_path / 'set', predict__scale='2')
  call(tmp_path / 'one', [trained], tmp_path / 'set', predict__scale='1')
  auto, two, one = (
    rows(tmp_path / name / 'predictions.csv') for name in ('auto', 'two', 'one')
  )
  assert auto == two != one
  assert 'scaled by 2.00' in (tmp_path / 'auto/predictions.md').read_text()
  # What a few images show may be otherwise small.
  capsys.readouterr()
  call(tmp_path / 'w', [trained], tmp_path / 'few', predict__scale='auto')
  said = capsys.readouterr().out
  assert 'by 3 images, too few to be sure' in said
  assert 'give config.predict.scale=2' in said
  few = {row['path']: row for row in rows(tmp_path / 'w/predictions.csv')}
  assert [row for row in one if row['path'] in few] == list(few.values())


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ([], '--mode=predict and --input'),
    (['--input=x', '--shard=2/2'], '--shard=2/2 must be i/n'),
    (['--input=x', '--config=configs/unet.py'], 'leave --config away'),
    (['--input=x', '--checkpoint=no/such/run'], 'config.json is missing'),
  ],
)
def test_flags_that_are_refused(trained, tmp_path, flags, words):
  flags = [*flags, f'--checkpoint={trained}', f'--workdir={tmp_path}/w']
  assert words in refused(run('--mode=predict', *flags))
  assert not (tmp_path / 'w').exists()


def test_what_is_refused(trained, images, tmp_path):
  (tmp_path / 'empty').mkdir()

  def message(source, workdir=tmp_path / 'w', runs=(trained,), **overrides):
    with pytest.raises(InputError) as error:
      call(workdir, list(runs), source, **overrides)
    return str(error.value)

  assert '--input=no/such: there is no such' in message('no/such')
  assert 'no image lies there' in message(tmp_path / 'empty')
  assert 'lies in --input' in message(images, images / 'w')
  assert "trained model's own" in message(images, model__width=1.0)
  assert 'predict.scale' in message(images, predict__scale='0')
  assert not (tmp_path / 'w').exists() and not (images / 'w').exists()


@pytest.mark.full
def test_several_segmenters_are_refused(segmenter, images, tmp_path):
  with pytest.raises(InputError, match='--explain needs a classifier'):
    predict.run(
      {}, tmp_path / 'w', [segmenter], str(images), (0, 1), explains=True
    )
  with pytest.raises(InputError, match='several segmenters'):
    call(tmp_path / 'w', [segmenter, segmenter], images)
