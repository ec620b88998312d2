"""The study on the command line: rows shared, killed, refused."""

import csv
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from command import refused, run
from conftest import ROOT

SMALL = [
  # Features of a backbone fill three files.
  '--config.synthetic.scale=0.08',
  '--config.data.image_size=75',
  '--config.study.inception_resnet_v2.width=0.05',
  '--config.study.inception_resnet_v2.blocks=(1,1,1)',
  '--config.study.nasnet_mobile.width=0.1',
  '--config.study.nasnet_mobile.blocks=(1,1,1)',
  "--config.study.models=('inception_resnet_v2','nasnet_mobile')",
  '--config.study.learning_rates=(0.01,)',
  '--config.train.epochs=3',
]


def command(workdir, *flags, row='') -> list[str]:
  config = f'--config=configs/study.py{row}'
  return [f'--workdir={workdir}', '--mode=study', config, *SMALL, *flags]


def start(*flags) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, str(ROOT / 'main.py'), *map(str, flags)],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def lines(workdir: pathlib.Path) -> list[dict[str, str]]:
  text = (workdir / 'results.csv').read_text()
  rows = list(csv.DictReader(io.StringIO(text)))
  for row in rows:
    del row['seconds']
  return rows


@pytest.fixture(scope='session')
def whole(once, cache) -> pathlib.Path:
  """A study that nothing disturbed."""

  def study(folder: pathlib.Path) -> None:
    done = run(*command(folder, cache))
    assert done.returncode == 0, done.stderr
    assert '12 rows are finished' in done.stdout
    assert 'best by validation: ' in done.stdout

  return once('study', study)


@pytest.mark.full
def test_a_killed_study_ends_as_one_never_killed(whole, tmp_path):
  workdir, cache = tmp_path / 'w', f'--config.data.cache_dir={tmp_path}/cache'
  stamps: dict[pathlib.Path, int] = {}

  def finished() -> dict[pathlib.Path, int]:
    found = [
      *workdir.glob('rows/*.json'),
      *tmp_path.glob('cache/features/[!.]*'),
    ]
    return {path: path.stat().st_mtime_ns for path in found}

  # With the first features, then with rows of both backbones.
  for rows in (0, 7):
    killed = start(*command(workdir, cache))
    until = time.monotonic() + 500
    while len(list(workdir.glob('rows/*.json'))) < rows or not finished():
      assert time.monotonic() < until and killed.poll() is None
      time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    # What was finished before was not done again.
    assert stamps.items() <= finished().items()
    stamps = finished()
    assert not (workdir / 'rows/011.json').exists()
  done = run(*command(workdir, cache))
  assert done.returncode == 0, done.stderr
  assert stamps.items() <= finished().items()
  assert lines(workdir) == lines(whole)


@pytest.mark.full
def test_rows_of_several_processes_make_one_table(whole, tmp_path):
  workdir, cache = tmp_path / 'w', f'--config.data.cache_dir={tmp_path}/cache'
  # Two want the same row, and all share features that none has yet.
  several = [
    start(*command(workdir, cache, row=f':{row}')) for row in (0, 7, 7)
  ]
  for process in several:
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
  assert lines(workdir) == [
    row for row in lines(whole) if row['row'] in ('0', '7')
  ]


@pytest.mark.parametrize(
  ('row', 'words'),
  [(':12', 'rows 0 to 11'), (':first', "'first' is no number of a row")],
)
def test_rows_that_are_not_there(cache, tmp_path, row, words):
  error = refused(run(*command(tmp_path / 'w', cache, row=row)))
  assert words in error
