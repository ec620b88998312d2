"""--mode=compare: two runs on one set, and what is refused."""

import csv
import json
import shutil

import pytest
from command import refused, run

from leukemia_jax.commands import compare
from leukemia_jax.errors import InputError


def changed(trained, folder, make_wrong, group=str):
  """A copy of a run that predicts some test images otherwise."""
  folder.mkdir()
  shutil.copy(trained / 'result.json', folder)
  with (trained / 'predictions.csv').open(newline='') as stream:
    rows = list(csv.DictReader(stream))
  names = [key for key in rows[0] if key.startswith('p_')]
  for i, row in enumerate(rows):
    best = row['true_class']
    if make_wrong(i):
      best = next(n[2:] for n in names if n[2:] != best)
    # Patients of the small set are too few for an interval.
    row['group'] = group(i)
    row |= {name: '0.1' for name in names} | {f'p_{best}': '0.7'}
    row['predicted_class'] = best
  with (folder / 'predictions.csv').open('w', newline='') as stream:
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  return folder


@pytest.mark.full
def test_two_runs_of_one_set(trained, tmp_path):
  good = changed(trained, tmp_path / 'good', lambda i: i % 20 == 0)
  bad = changed(trained, tmp_path / 'bad', lambda i: i % 2 == 0)
  flags = ['--mode=compare', f'--runs={good},{bad}']
  done = run(f'--workdir={tmp_path}/out', *flags)
  assert done.returncode == 0, done.stderr
  assert 'good is ahead of bad by' in done.stdout
  got = json.loads((tmp_path / 'out/compare.json').read_text())
  assert got['runs'] == ['good', 'bad'] and got['group'] == 'patient'
  assert got['paired']['first_only'] > got['paired']['second_only'] == 0
  low, high = got['scores']['balanced_accuracy']['interval_95']
  assert 0 < low < got['scores']['balanced_accuracy']['difference'] < high
  assert 'good is ahead' in (tmp_path / 'out/compare.md').read_text()
  before = (tmp_path / 'out/compare.json').read_bytes()
  assert run(f'--workdir={tmp_path}/out', *flags).returncode == 0
  assert (tmp_path / 'out/compare.json').read_bytes() == before
  same = run(
    *(f'--workdir={tmp_path}/same', '--mode=compare', f'--runs={good},{good}')
  )
  assert 'cannot be told apart' in same.stdout
  # Another pair in the same folder.
  swapped = f'--runs={bad},{good}'
  error = refused(run(f'--workdir={tmp_path}/out', '--mode=compare', swapped))
  assert 'runs' in error and 'another --workdir' in error


@pytest.mark.full
def test_intervals_are_the_same_whichever_run_comes_first(trained, tmp_path):
  # As many pairs in each run, of other images: four belong together.
  one = changed(
    *(trained, tmp_path / 'one', lambda i: i % 7 == 0),
    lambda i: f'{i // 4} {i % 4 // 2}',
  )
  other = changed(
    *(trained, tmp_path / 'other', lambda i: i % 3 == 0),
    lambda i: f'{i // 4} {i % 2}',
  )
  got = []
  for pair in ((one, other), (other, one)):
    out = tmp_path / pair[0].name / 'out'
    compare.run(out, pair)
    got.append(json.loads((out / 'compare.json').read_text()))
  assert got[0]['groups'] == got[1]['groups']
  assert got[0]['groups'] <= got[0]['images'] // 4 + 1
  first, second = (own['scores']['balanced_accuracy'] for own in got)
  assert first['interval_95'] == pytest.approx(
    [-end for end in second['interval_95'][::-1]]
  )


@pytest.mark.full
def test_masks_that_were_read_otherwise_are_not_compared(segmenter, tmp_path):
  other = tmp_path / 'other'
  other.mkdir()
  content = json.loads((segmenter / 'result.json').read_text())
  content['data']['masks']['rule'] = 'grey>128'
  (other / 'result.json').write_text(json.dumps(content))
  with pytest.raises(InputError, match='differ in how masks are read'):
    compare.run(tmp_path / 'out', (segmenter, other))


@pytest.mark.full
def test_runs_of_different_sets_or_none(trained, tmp_path):
  other = changed(trained, tmp_path / 'other', lambda i: False)
  content = json.loads((other / 'result.json').read_text())
  content['data']['fingerprint'] = 'another'
  (other / 'result.json').write_text(json.dumps(content))
  out = f'--workdir={tmp_path}/out'
  compare = '--mode=compare'
  error = refused(run(out, compare, f'--runs={trained},{other}'))
  assert 'differ in image set' in error and '--mode=evaluate' in error
  assert not (tmp_path / 'out').exists()
  (other / 'predictions.csv').unlink()
  content['data']['fingerprint'] = json.loads(
    (trained / 'result.json').read_text()
  )['data']['fingerprint']
  (other / 'result.json').write_text(json.dumps(content))
  assert 'predictions.csv' in refused(
    run(out, compare, f'--runs={trained},{other}')
  )


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--mode=compare'], 'go together'),
    (['--runs=a,b'], 'go together'),
    (['--mode=compare', '--runs=a'], 'two workdirs are compared'),
    (['--mode=compare', '--runs=a,b'], 'a/result.json'),
    (['--mode=compare', '--runs=a,b', '--config.seed=1'], 'takes no config'),
    (['--calibration=a'], 'goes together with --mode=evaluate'),
    (['--config.evaluate.recalibrate=8'], 'together with --mode=evaluate'),
  ],
)
def test_flags_that_do_not_fit(flags, words, tmp_path):
  assert words in refused(run(f'--workdir={tmp_path}/out', *flags))
