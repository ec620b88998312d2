"""--mode=evaluate: the model's own set, others, and what is refused."""

import json
import shutil

import conftest
import numpy as np
import pytest
from command import SMALL, refused, result, run
from conftest import ROOT

from leukemia_jax.errors import InputError
from leukemia_jax.workdir import saved


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


@pytest.mark.full
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
  report = (tmp_path / 'out/report.md').read_text()
  assert 'Scores of the run `trained` on set' in report
  (tmp_path / 'out/report.md').unlink()
  assert run('--mode=report', f'--workdir={tmp_path}/out').returncode == 0
  assert (tmp_path / 'out/report.md').read_text() == report
  conftest.save_images(tmp_path / 'other', {'Pre': 2, 'AML': 2}, size=90)
  source = f'--config.data.source={tmp_path}/other'
  error = refused(run(f'--workdir={tmp_path}/out2', *flags, source))
  assert 'the classes AML' in error
  inside = f'--workdir={trained}/checkpoints/best'
  for where in (f'--workdir={trained}', inside):
    assert 'lies in --checkpoint' in refused(run(where, *flags, source))


@pytest.mark.full
def test_recalibration_at_another_laboratory(trained, cache, tmp_path):
  conftest.save_images(
    tmp_path / 'set', dict.fromkeys(('Benign', 'Pre', 'Pro'), 9), size=90
  )
  source = f'--config.data.source={tmp_path}/set'
  flags = ['--mode=evaluate', f'--checkpoint={trained}', cache, source]
  local = f'--workdir={tmp_path}/local'
  done = run(local, *flags, '--config.evaluate.recalibrate=8')
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'local')
  record = got['recalibration']
  assert record['images'] == 8 and record['local']['mean'] > 0
  # The run's own temperature is what its scores are by.
  assert (
    got['calibration']['temperature']
    == result(trained)['calibration']['temperature']
  )
  assert not (trained / 'calibration.json').exists()
  used = f'--calibration={tmp_path}/local'
  done = run(f'--workdir={tmp_path}/used', *flags, used)
  assert done.returncode == 0, done.stderr
  assert '8 images left out' in done.stdout
  after = result(tmp_path / 'used')
  assert after['test']['images'] == 27 - 8
  assert after['calibration']['temperature'] == record['temperature']
  assert after['calibration']['fitted_to'] == 8
  everything = '--config.evaluate.recalibrate=27'
  assert 'none is left to score' in refused(
    run(f'--workdir={tmp_path}/all', *flags, everything)
  )
  # Fewer may follow in the same workdir.
  assert not (tmp_path / 'all/config.json').exists()
  path = tmp_path / 'local/calibration.json'
  content = json.loads(path.read_text())
  path.unlink()
  assert 'no temperature was fitted there' in refused(
    run(f'--workdir={tmp_path}/again', *flags, used)
  )
  path.write_text(json.dumps(content | {'parameters_sha256': 'another'}))
  assert 'another model' in refused(
    run(f'--workdir={tmp_path}/again', *flags, used)
  )


def test_evaluate_needs_a_trained_run(tmp_path, cache):
  flags = ['--mode=evaluate', f'--checkpoint={tmp_path}/none', cache]
  error = refused(run(f'--workdir={tmp_path}/out', *flags))
  assert 'no workdir of a finished run' in error


@pytest.mark.full
def test_a_study_is_no_model(tmp_path):
  (tmp_path / 'study').mkdir()
  config = '{"format": 5, "mode": "study"}'
  (tmp_path / 'study/config.json').write_text(config)
  flags = ['--mode=evaluate', f'--checkpoint={tmp_path}/study']
  error = refused(run(f'--workdir={tmp_path}/out', *flags))
  assert 'is a study: it stores scores of heads' in error


@pytest.mark.full
def test_an_evaluation_too_small_for_the_model(trained, cache, tmp_path):
  flags = ['--mode=evaluate', f'--checkpoint={trained}', cache]
  where = f'--workdir={tmp_path}/e'
  error = refused(run(where, *flags, '--config.data.scale=0.5'))
  assert 'config.data.image_size=75 * config.data.scale=0.5 must be 75' in error


@pytest.mark.full
def test_evaluation_leaves_out_what_was_trained_on(trained, cache, tmp_path):
  """A grown copy of the training set: only what is new, or was test, counts."""
  folders = [f'{"ab"[i // 5]}/patient {i}' for i in range(10)]
  conftest.save_images(tmp_path / 'one', dict.fromkeys(folders, 4), size=75)
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
  new = dict.fromkeys(folders, 1)
  conftest.save_images(tmp_path / 'new', new, size=75, seed=9)
  for path in (tmp_path / 'new').rglob('*.png'):
    folder = path.parent.relative_to(tmp_path / 'new')
    shutil.copy(path, tmp_path / 'two' / folder / f'new-{path.name}')
  source = f'--config.data.source={tmp_path}/two'
  done = run(f'--workdir={tmp_path}/out', *flags, source)
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'out')
  assert got['data']['left_out_as_trained_on'] == len(learnt)
  assert got['test']['images'] == 50 - len(learnt)
  # New images, but not all of new patients.
  patients = {i // 4 for i in learnt}
  assert got['data']['patients_named_as_learnt'] == len(patients)
  assert f'{len(patients)} patients are named as some' in done.stdout
  page = (tmp_path / 'out/report.md').read_text()
  assert f'{len(patients)} patients are named as some' in page
  # Its own source, changed: refused rather than scored as if it were test.
  more = tmp_path / f'one/{folders[0]}/more.png'
  shutil.copy(tmp_path / f'new/{folders[0]}/cell-0.png', more)
  error = refused(run(f'--workdir={tmp_path}/out2', *flags))
  assert 'has changed since' in error


@pytest.mark.full
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
    ('config.json', '{"format": 5, "mode": "train"}'),
    ('result.json', '{"format": 5, "data": {"classes": []}}'),
    ('split.json', '{"format": 5, "fingerprint": "", "parts": {}}'),
  ],
)
def test_damaged_files_of_a_run(trained, tmp_path, name, content):
  shutil.copytree(trained, tmp_path / 'w')
  (tmp_path / 'w' / name).write_text(content)
  with pytest.raises(InputError, match=name):
    saved.load_trained(tmp_path / 'w')
    saved.read_split(tmp_path / 'w')
