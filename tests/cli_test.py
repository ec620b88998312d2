"""Flags: help, what is refused and how, how little is imported for it."""

import subprocess
import sys

import conftest
import pytest
from command import SMALL, refused, run
from conftest import ROOT


@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help(flag):
  done = run(flag)
  assert done.returncode == 0 and not done.stderr
  for word in (
    '--workdir',
    '--checkpoint',
    '--config.KEY=VALUE',
    'prepare',
    'evaluate',
    'study',
  ):
    assert word in done.stdout


def test_version():
  done = run('--version')
  assert done.returncode == 0 and done.stdout.startswith('leukemia_jax ')


@pytest.mark.parametrize(
  'flags',
  [
    ['--help'],
    ['--workdir=w', '--config.data.source=no/such/path'],
    ['--workdir=w', '--config.train.lr=1'],
    ['--workdir=w', '--config.model.weights=no/such/file.h5'],
    ['--workdir=w', '--mode=evaluate', '--checkpoint=no/such/run'],
  ],
)
def test_an_answer_loads_nothing_heavy(flags):
  code = (
    'import sys, leukemia_jax.cli\n'
    f'sys.argv = ["main.py", *{flags!r}]\n'
    'try: leukemia_jax.cli.main()\n'
    'except SystemExit: pass\n'
    'heavy = ("jax", "tensorflow_datasets", "matplotlib", "sklearn")\n'
    'print([name for name in heavy if name in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.splitlines()[-1] == '[]', done.stderr


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--config.data.sourc=x'], 'did you mean config.data.source'),
    (['--config.lerning_rate=1'], 'config.train.learning_rate'),
    (['--config.train.lr=1'], 'did you mean config.train.learning_rate'),
    (['--config.data=x'], 'config.data.benign_class'),
    (['--noconfig.model.remt'], 'config.model.remat'),
    (['--config.train.epochs=ten'], 'config.train.epochs=ten'),
    (['--config.train.epochs=1.5'], 'config.train.epochs=1.5'),
    (['--config.train.learning_rate=fast'], 'learning_rate=fast'),
    (['--config.model.blocks=3'], 'three numbers'),
    (['--config.augment.flip_vertical=maybe'], 'flip_vertical=maybe'),
    (['--config.seed'], 'config.seed'),
    (['--config=configs/none.py'], 'there is no such .py file'),
    (['--config'], '--config needs a value'),
    (['--config=configs/unet.py:large'], "there are 'small' and 'study'"),
    (['--mode=trian'], 'prepare|audit|train|evaluate'),
    (['--wrkdir=x'], 'wrkdir'),
    (['--mode=evaluate'], '--checkpoint'),
    (['--checkpoint=x'], '--mode=evaluate'),
    (['surplus'], 'unexpected surplus'),
    (['--config.data.source=no/such/set.zip'], 'data.source=no/such/set.zip'),
  ],
)
def test_wrong_flags(tmp_path, flags, words):
  error = refused(run(f'--workdir={tmp_path}/w', *flags))
  assert words in error
  assert not (tmp_path / 'w').exists()


def test_a_wrong_value_leaves_no_folder(tmp_path):
  error = refused(run(f'--workdir={tmp_path}/w', '--config.model.name=resnet'))
  assert "config.model.name='resnet' must be one of" in error
  assert not (tmp_path / 'w').exists()


def test_missing_workdir():
  assert '--workdir is missing' in refused(run())


def test_overrides_may_stand_before_the_config(tmp_path):
  """The order of flags is nobody's business; an installed config is found."""
  where = f'--workdir={tmp_path}/w'
  for config in (['--config=configs/unet.py'], ['--config', 'unet.py:small']):
    error = refused(run('--config.model.depth=0', where, *config))
    assert 'config.model.depth=0 1 or more for unet' in error


def test_the_users_config_runs_once(tmp_path):
  (tmp_path / 'mine.py').write_text(
    'print("here")\nfrom leukemia_jax.configs import default\n'
    'get_config = default.get_config\n'
  )
  done = run(
    f'--workdir={tmp_path}/w',
    '--config.train.epochs=0',
    f'--config={tmp_path}/mine.py',
  )
  assert 'config.train.epochs=0 must be' in refused(done)
  assert done.stdout.count('here') == 1


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('def get_config(): return None', 'get_config'),
    ('def get_config(): raise SystemExit(0)', 'SystemExit'),
    ('x = (', 'SyntaxError'),
    ('import ml_collections as m\nget_config = m.ConfigDict', 'is missing'),
  ],
)
def test_config_files_that_do_not_work(tmp_path, text, words):
  (tmp_path / 'mine.py').write_text(text)
  flags = [f'--workdir={tmp_path}/w', f'--config={tmp_path}/mine.py']
  assert words in refused(run(*flags))


def test_a_workdir_that_cannot_be_written(tmp_path, cache):
  (tmp_path / 'file').write_text('not a folder')
  error = refused(run(f'--workdir={tmp_path}/file/w', cache, *SMALL))
  assert 'cannot be written to' in error


def test_a_workdir_among_the_images(tmp_path, cache):
  conftest.save_images(tmp_path / 'set', {'a': 4, 'b': 4}, size=75)
  flags = ['--mode=prepare', cache, f'--config.data.source={tmp_path}/set']
  error = refused(run(f'--workdir={tmp_path}/set/a/w', *flags))
  assert 'lies in config.data.source' in error
  inside = f'--config.data.cache_dir={tmp_path}/set/cache'
  error = refused(run(f'--workdir={tmp_path}/w', *flags, inside))
  assert 'cache_dir' in error and 'lies in config.data.source' in error
