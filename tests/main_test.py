"""The command line as a user meets it: results, refusals, other data."""

import json
import pathlib
import shutil
import subprocess
import sys

import conftest
import numpy as np
import pytest
from conftest import ROOT

from leukemia_jax import experiment
from leukemia_jax.errors import InputError

SMALL = [
  '--config.synthetic.scale=0.03',
  '--config.data.image_size=75',
  '--config.model.width=0.05',
  '--config.train.epochs=2',
]


def run(*flags, before=()) -> subprocess.CompletedProcess:
  return subprocess.run(
    [*before, sys.executable, str(ROOT / 'main.py'), *map(str, flags)],
    capture_output=True,
    text=True,
    timeout=500,
  )


def refused(done: subprocess.CompletedProcess) -> str:
  """The error of a command that must have failed in good manners."""
  assert done.returncode == 1, done.stdout + done.stderr
  assert 'Traceback' not in done.stderr
  assert done.stderr.count('error: ') == 1
  return done.stderr


@pytest.fixture(scope='module')
def trained(tmp_path_factory, cache) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp('runs') / 'train'
  done = run(f'--workdir={workdir}', cache, *SMALL)
  assert done.returncode == 0, done.stderr
  return workdir


def result(workdir: pathlib.Path) -> dict:
  return json.loads((workdir / 'result.json').read_text())


def test_help_is_quick_to_import():
  code = (
    'import sys; sys.argv = ["main.py", "--help"]; sys.path.insert(0, ".");'
    'import main, absl.app\n'
    'try: absl.app.run(main.main, flags_parser=main._parse)\n'
    'except SystemExit: print("jax" in sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.strip().endswith('False')
  text = run('--help').stdout
  for word in ('--workdir', '--config', '--mode', 'prepare', 'evaluate'):
    assert word in text


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--config.data.sourc=x'], 'did you mean config.data.source'),
    (['--config.lerning_rate=1'], 'config.train.learning_rate'),
    (['--config.data=x'], 'config.data.benign_class'),
    (['--config.train.epochs=ten'], 'must be of type int'),
    (['--config.train.epochs=1.5'], 'must be of type int'),
    (['--config.train.learning_rate=fast'], 'must be of type float'),
    (['--config.model.blocks=3'], 'must be of type tuple'),
    (['--config.augment.flip_vertical=maybe'], 'must be of type bool'),
    (['--config.seed'], 'needs a value'),
    (['--config=configs/none.py'], 'there is no such .py file'),
    (['--mode=trian'], 'prepare|train|evaluate'),
    (['--wrkdir=x'], 'wrkdir'),
    (['--mode=evaluate'], '--checkpoint'),
    (['--checkpoint=x'], '--mode=evaluate'),
    (['surplus'], 'unexpected surplus'),
  ],
)
def test_wrong_flags(tmp_path, flags, words):
  error = refused(run(f'--workdir={tmp_path}/w', *flags))
  assert words in error
  assert not (tmp_path / 'w').exists()


def test_missing_workdir():
  assert '--workdir is missing' in refused(run())


def test_wrong_value_and_missing_path(tmp_path):
  where = f'--workdir={tmp_path}/w'
  error = refused(run(where, '--config.model.name=resnet'))
  assert "config.model.name='resnet' must be one of" in error
  error = refused(run(where, '--config.data.source=no/such/set.zip'))
  assert 'config.data.source=no/such/set.zip' in error


def test_result_says_everything(trained):
  got = result(trained)
  assert got['task'] == 'classification'
  assert got['data']['classes'] == ['Benign', 'Early', 'Pre', 'Pro']
  assert len(got['data']['fingerprint']) == len(got['parameters_sha256']) == 64
  for part in ('train', 'validation', 'test'):
    scores = got[part]
    counts = np.array(scores['confusion_matrix'])
    assert counts.sum() == scores['images']
    assert scores['accuracy'] == pytest.approx(np.trace(counts) / counts.sum())
    for name in ('loss', 'precision', 'recall', 'f1', 'worst_class_recall'):
      assert np.isfinite(scores[name])
    assert set(scores['by_class']) == set(got['data']['classes'])
  images = sum(got[p]['images'] for p in ('train', 'validation', 'test'))
  # Every original once, though rare ones were trained on several times.
  assert images == got['data']['images']
  assert sum(got['data']['counts']['train'].values()) > got['train']['images']
  assert got['epochs'] == 2
  assert {'seconds', 'images_per_second', 'compile_seconds'} <= set(got['cost'])
  assert got['cost']['peak_memory_bytes'] > 10**8
  assert 'jax' in got['versions']
  split = json.loads((trained / 'split.json').read_text())
  assert split['fingerprint'] == got['data']['fingerprint']
  lines = (trained / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['epoch'] for line in lines] == [1, 2]
  assert list((trained / 'tensorboard').iterdir())


def test_report_shows_it(trained):
  text = (trained / 'report.md').read_text()
  got = result(trained)
  assert f'{got["test"]["accuracy"]:.4f}' in text
  assert 'not a medical device' in text
  for image in ('curves.png', 'confusion.png'):
    assert image in text
    assert (trained / image).read_bytes()[:4] == b'\x89PNG'


def test_same_command_again_and_another_config(trained, cache):
  before = (trained / 'result.json').read_bytes()
  done = run(f'--workdir={trained}', cache, *SMALL)
  assert done.returncode == 0
  assert 'finished' in done.stdout
  error = refused(run(f'--workdir={trained}', cache, *SMALL, '--config.seed=5'))
  assert 'seed: 0 there, 5 now' in error
  assert 'epochs' not in error
  assert (trained / 'result.json').read_bytes() == before


def test_evaluation_on_its_own_data_gives_its_own_numbers(
  trained, cache, tmp_path
):
  done = run(
    f'--workdir={tmp_path}/out',
    '--mode=evaluate',
    f'--checkpoint={trained}',
  )
  assert done.returncode == 0, done.stderr
  ours, theirs = result(tmp_path / 'out'), result(trained)
  for part in ('train', 'validation', 'test'):
    assert ours[part] == theirs[part]
  assert ours['parameters_sha256'] == theirs['parameters_sha256']


def test_evaluation_on_other_data(trained, cache, tmp_path):
  # Two of the four classes; labels must be mapped by name.
  conftest.save_images(tmp_path / 'set', {'Pre': 5, 'Benign': 4}, size=90)
  flags = ['--mode=evaluate', f'--checkpoint={trained}', cache]
  source = f'--config.data.source={tmp_path}/set'
  done = run(f'--workdir={tmp_path}/out', *flags, source)
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'out')
  assert 'train' not in got
  counts = np.array(got['test']['confusion_matrix'])
  assert counts.sum(1).tolist() == [4, 0, 5, 0]
  conftest.save_images(tmp_path / 'other', {'Pre': 2, 'AML': 2}, size=90)
  source = f'--config.data.source={tmp_path}/other'
  error = refused(run(f'--workdir={tmp_path}/out2', *flags, source))
  assert 'the classes AML' in error
  inside = f'--workdir={trained}/checkpoints/best'
  for where in (f'--workdir={trained}', inside):
    assert 'lies in --checkpoint' in refused(run(where, *flags, source))


def test_evaluate_needs_a_trained_run(tmp_path, cache):
  flags = ['--mode=evaluate', f'--checkpoint={tmp_path}/none', cache]
  error = refused(run(f'--workdir={tmp_path}/out', *flags))
  assert 'no workdir of a finished run' in error


def test_prepare_counts_and_draws(tmp_path, cache):
  done = run(f'--workdir={tmp_path}/w', '--mode=prepare', cache, *SMALL)
  assert done.returncode == 0, done.stderr
  assert '| Benign | 15 |' in done.stdout
  for name in ('classes.png', 'augmented.png'):
    assert (tmp_path / 'w' / name).stat().st_size > 10_000


@pytest.mark.full
def test_the_studys_order_and_a_start_from_other_weights(
  trained, cache, tmp_path
):
  done = run(
    f'--workdir={tmp_path}/w',
    cache,
    *SMALL,
    '--config.data.order=balance_then_split',
    '--config.data.option=2',
    '--config.train.freeze_backbone',
    f'--config.model.weights={trained}',
  )
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'w')
  total = sum(got[p]['images'] for p in ('train', 'validation', 'test'))
  assert total == sum(sum(c.values()) for c in got['data']['counts'].values())
  assert total > got['data']['images']
  # Another split than that of the weights: said, and counted.
  assert 'have learnt from' in done.stdout
  assert sum(got['data']['held_out_seen_by_weights'].values()) > 0
  # Wrong shape of weights.
  error = refused(
    run(
      f'--workdir={tmp_path}/v',
      cache,
      *SMALL,
      '--config.model.width=0.06',
      f'--config.model.weights={trained}',
    )
  )
  assert 'model of another shape' in error


def test_weights_that_are_none(cache, tmp_path):
  text = tmp_path / 'w.h5'
  text.write_text('just a text')
  error = refused(
    run(
      f'--workdir={tmp_path}/w',
      cache,
      *SMALL,
      f'--config.model.weights={text}',
      '--config.model.preprocess=unit',
    )
  )
  assert f'{text} is no HDF5 file' in error
  # The right file may follow in the same workdir.
  assert not (tmp_path / 'w/config.json').exists()


def test_an_evaluation_too_small_for_the_model(trained, cache, tmp_path):
  flags = ['--mode=evaluate', f'--checkpoint={trained}', cache]
  where = f'--workdir={tmp_path}/e'
  error = refused(run(where, *flags, '--config.data.scale=0.5'))
  assert 'config.data.image_size=75 * config.data.scale=0.5 must be 75' in error


def test_a_workdir_that_cannot_be_written(tmp_path, cache):
  (tmp_path / 'file').write_text('not a folder')
  error = refused(run(f'--workdir={tmp_path}/file/w', cache, *SMALL))
  assert 'cannot be written to' in error


@pytest.mark.full
def test_a_full_disk(trained, tmp_path):
  """No file may grow over 100 kB: the records are the first that would."""
  flags = [f'--workdir={tmp_path}/w', *SMALL]
  cache = f'--config.data.cache_dir={tmp_path}/cache'
  limited = ['bash', '-c', 'ulimit -f 100; exec "$@"', 'bash']
  error = refused(run(*flags, cache, before=limited))
  assert f'cannot write records to config.data.cache_dir={tmp_path}' in error
  # With room again the same command goes through, to the same end.
  done = run(*flags, cache)
  assert done.returncode == 0, done.stderr
  ours, theirs = result(tmp_path / 'w'), result(trained)
  assert ours['parameters_sha256'] == theirs['parameters_sha256']


def test_names_with_spaces_and_other_scripts(tmp_path, cache):
  conftest.save_images(
    tmp_path / 'meine Bilder/été', {'白血病 1': 4, 'gesund': 4}, size=75
  )
  done = run(
    f'--workdir={tmp_path}/Lauf 1',
    '--mode=prepare',
    cache,
    *SMALL,
    f'--config.data.source={tmp_path}/meine Bilder',
  )
  assert done.returncode == 0, done.stderr
  assert '| 白血病 1 | 4 |' in done.stdout
  assert (tmp_path / 'Lauf 1/classes.png').exists()


def check_kills(folder: pathlib.Path, kills: int, *flags: str) -> None:
  """Kills a short run again and again; it must end as one never killed."""
  done = subprocess.run(
    [
      sys.executable,
      str(ROOT / 'tests/kill_and_resume.py'),
      f'--kills={kills}',
      f'--folder={folder}',
      *flags,
      '--config.train.epochs=3',
      '--config.train.checkpoint_steps=2',
    ],
    capture_output=True,
    text=True,
    timeout=1800,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert f'after {kills} kills: the same result' in done.stdout


@pytest.mark.parametrize('kills', [1, pytest.param(10, marks=pytest.mark.full)])
def test_kills_change_nothing(tmp_path, cache, kills):
  check_kills(tmp_path, kills, cache, *SMALL)


@pytest.mark.full
def test_two_runs_give_the_same_result(trained, cache, tmp_path):
  done = run(f'--workdir={tmp_path}/w', cache, *SMALL)
  assert done.returncode == 0, done.stderr
  one, two = result(trained), result(tmp_path / 'w')
  del one['cost'], two['cost']
  assert one == two


def test_nothing_temporary_is_left_and_others_may_read(trained):
  assert not [p for p in trained.rglob('*') if p.name.startswith('.')]
  plain = trained.parent / 'plain'
  plain.write_text('x')
  for name in ('result.json', 'report.md', 'split.json'):
    assert (trained / name).stat().st_mode == plain.stat().st_mode


@pytest.mark.full
def test_a_mistyped_source_does_not_claim_the_workdir(tmp_path, cache):
  conftest.save_images(tmp_path / 'set', {'a': 3, 'b': 3}, size=75)
  flags = [f'--workdir={tmp_path}/w', cache, *SMALL]
  refused(run(*flags, f'--config.data.source={tmp_path}/sett'))
  # Three images a class, one of them for training, are enough to go through.
  done = run(*flags, f'--config.data.source={tmp_path}/set')
  assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_evaluation_leaves_out_what_was_trained_on(trained, cache, tmp_path):
  """A grown copy of the training set: only what is new, or was test, counts."""
  conftest.save_images(tmp_path / 'one', {'a': 20, 'b': 20}, size=75)
  done = run(
    f'--workdir={tmp_path}/w',
    cache,
    *SMALL,
    f'--config.data.source={tmp_path}/one',
  )
  assert done.returncode == 0, done.stderr
  split = json.loads((tmp_path / 'w/split.json').read_text())['parts']
  learnt = {i for part in ('train', 'validation') for i, _ in split[part]}
  flags = ['--mode=evaluate', f'--checkpoint={tmp_path}/w', cache]
  shutil.copytree(tmp_path / 'one', tmp_path / 'two')
  conftest.save_images(tmp_path / 'new', {'a': 3, 'b': 2}, size=75, seed=9)
  for path in (tmp_path / 'new').rglob('*.png'):
    shutil.copy(path, tmp_path / 'two' / path.parent.name / f'new-{path.name}')
  source = f'--config.data.source={tmp_path}/two'
  done = run(f'--workdir={tmp_path}/out', *flags, source)
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'out')
  assert got['data']['left_out_as_trained_on'] == len(learnt)
  assert got['test']['images'] == 45 - len(learnt)
  # Its own source, changed: refused rather than scored as if it were test.
  shutil.copy(tmp_path / 'new/a/cell-0.png', tmp_path / 'one/a/more.png')
  error = refused(run(f'--workdir={tmp_path}/out2', *flags))
  assert 'has changed since' in error


def test_evaluation_takes_no_key_of_the_model(trained, cache, tmp_path):
  flags = [f'--workdir={tmp_path}/o', '--mode=evaluate', cache]
  flags.append(f'--checkpoint={trained}')
  error = refused(run(*flags, '--config.model.width=0.3'))
  assert "config.model.width is the trained model's own" in error
  error = refused(run(f'--config={ROOT}/configs/default.py', *flags))
  assert 'leave --config away' in error


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('config.json', 'null'),
    ('result.json', '{"data": {"classes": []}}'),
    ('split.json', '{"fingerprint": "", "pixels": [], "parts": {}}'),
  ],
)
def test_damaged_files_of_a_run(trained, tmp_path, name, content):
  shutil.copytree(trained, tmp_path / 'w')
  (tmp_path / 'w' / name).write_text(content)
  with pytest.raises(InputError, match=name):
    experiment.load_trained(tmp_path / 'w')
    experiment.saved_split(tmp_path / 'w')


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('def get_config(): return None', 'must return a ConfigDict'),
    ('def get_config(): raise SystemExit(0)', 'SystemExit'),
    ('x = (', 'SyntaxError'),
    ('import ml_collections as m\nget_config = m.ConfigDict', 'is missing'),
  ],
)
def test_config_files_that_do_not_work(tmp_path, text, words):
  (tmp_path / 'mine.py').write_text(text)
  flags = [f'--workdir={tmp_path}/w', f'--config={tmp_path}/mine.py']
  assert words in refused(run(*flags))


def test_prepare_leaves_another_runs_workdir_alone(trained, cache):
  flags = ['--mode=prepare', cache, *SMALL, '--config.seed=4']
  assert 'seed: 0 there, 4 now' in refused(run(f'--workdir={trained}', *flags))


def test_a_workdir_among_the_images(tmp_path, cache):
  conftest.save_images(tmp_path / 'set', {'a': 4, 'b': 4}, size=75)
  flags = ['--mode=prepare', cache, f'--config.data.source={tmp_path}/set']
  error = refused(run(f'--workdir={tmp_path}/set/a/w', *flags))
  assert 'lies in config.data.source' in error
