"""Files that nobody should trust are refused with a reason, or read."""

import csv
import pathlib

import hostile
import pytest
from command import run
from hypothesis import given, strategies
from starlette.testclient import TestClient

from leukemia_jax import files
from leukemia_jax.data import decode
from leukemia_jax.inference.prediction import Models
from leukemia_jax.serving import app

LIMIT = 1_000_000
FILES = dict(hostile.files())
GOOD = [
  (kind, hostile.encoded(hostile.drawn(i), kind))
  for i, kind in enumerate(hostile.FORMATS.values())
]


def reason(data: bytes) -> str:
  """Why a file can't be read; '' if it can."""
  try:
    image = decode.decode(data, decode.Options(LIMIT)).image
  except decode.BadImageError as error:
    assert str(error)
    return str(error)
  assert image.mode == 'RGB'
  assert 0 < image.width * image.height <= LIMIT
  return ''


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """The files, in a folder that may hold nothing else afterwards."""
  place = tmp_path_factory.mktemp('hostile') / 'images'
  place.mkdir()
  for name, data in FILES.items():
    (place / name).write_bytes(data)
  return place


def check_nothing_else(folder: pathlib.Path, *others: str) -> None:
  """No file was written or changed outside of where a command may write."""
  assert {p.name for p in folder.iterdir()} == FILES.keys()
  for name, data in FILES.items():
    assert (folder / name).read_bytes() == data
  assert {p.name for p in folder.parent.iterdir()} <= {'images', *others}


def test_each_is_read_or_refused_with_a_reason():
  assert len(FILES) >= 200
  reasons = {name: reason(data) for name, data in FILES.items()}
  for name in dict(hostile.liars()):
    can_be_read = name.split('.')[0] in ('other', 'moving', 'zip')
    # What follows an image, or its last row, is of no account.
    can_be_read |= name in ('page.png', 'longer.png')
    assert (reasons[name] == '') == can_be_read, (name, reasons[name])
  # No name is a reason.
  for i, name in enumerate(hostile.NAMES):
    assert reasons[f'{name}.{list(hostile.FORMATS)[i % 8]}'] == ''


@given(
  strategies.sampled_from(GOOD),
  strategies.integers(0, 2**32 - 1),
  strategies.integers(1, 60),
  strategies.floats(0.01, 1),
)
def test_no_damage_does_more(good, seed, bits, share):
  _, data = good
  damaged = hostile.flipped(data, seed, bits)
  reason(damaged[: max(1, int(len(damaged) * share))])


def test_the_page_refuses_what_cannot_be_read():
  models = Models([], None, decode.Options(LIMIT), 1.0)
  server = app.make(models, ['a run'], [], hosts=['testserver'])
  with TestClient(server) as client:
    for name, data in FILES.items():
      said = client.post('/answer', content=data)
      why = reason(data)
      assert said.status_code == (422 if why else 200), name
      assert said.json().get('error', '') == why


@pytest.mark.full
def test_predictions_name_each(folder, trained):
  work = folder.parent / 'predicted'
  done = run(
    '--mode=predict',
    f'--workdir={work}',
    f'--checkpoint={trained}',
    f'--input={folder}',
    '--explain',
  )
  # By the pixel limit of the run's own config more may be read.
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  tables = {}
  for name in ('predictions.csv', 'unreadable.csv'):
    with (work / name).open(newline='', encoding='utf-8') as stream:
      tables[name] = {row['path']: row for row in csv.DictReader(stream)}
  predicted, refused = tables.values()
  assert not predicted.keys() & refused.keys()
  # Hidden files are passed over, as everywhere.
  listed = {name for name in FILES if not name.startswith('.')}
  assert predicted.keys() | refused.keys() == listed
  assert all(row['reason'] for row in refused.values())
  for name, data in FILES.items():
    if name in listed and not reason(data):
      assert name in predicted
  check_nothing_else(folder, 'predicted')
  for path in work.rglob('*'):
    assert path.resolve().is_relative_to(work.resolve())


@pytest.mark.full
def test_prepare_names_each(tmp_path):
  for i, (name, data) in enumerate(FILES.items()):
    target = tmp_path / 'set' / ('ab'[i % 2]) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
  done = run(
    '--mode=prepare',
    f'--workdir={tmp_path}/w',
    f'--config.data.source={tmp_path}/set',
    f'--config.data.cache_dir={tmp_path}/cache',
    '--config.data.on_bad_image=skip',
    f'--config.data.max_pixels={LIMIT}',
    '--config.data.split=random',
  )
  assert done.returncode == 0, done.stderr
  summary = files.read_json(tmp_path / 'w/prepare.json')
  bad = sum(bool(reason(data)) for data in FILES.values())
  assert summary['left_out_by_reason']['bad image'] == bad
  assert summary['images'] + summary['left_out'] == len(FILES)
  assert {p.name for p in tmp_path.iterdir()} == {'set', 'w', 'cache'}
