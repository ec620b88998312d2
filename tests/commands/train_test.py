"""--mode=train: its files, its second start, kills, a full disk."""

import csv
import json
import shutil

import conftest
import numpy as np
import pytest
from command import SMALL, SMALL_UNET, check_kills, refused, result, run
from PIL import Image

from leukemia_jax.lock import lock_run


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
    for name in (
      'loss',
      'precision',
      'balanced_accuracy',
      'macro_f1',
      'worst_class_recall',
    ):
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


def read_predictions(workdir):
  with (workdir / 'predictions.csv').open(newline='') as stream:
    return list(csv.DictReader(stream))


@pytest.mark.full
def test_report_shows_it(trained):
  text = (trained / 'report.md').read_text()
  got = result(trained)
  assert f'{100 * got["test"]["accuracy"]:.1f}' in text
  assert 'not a medical device' in text
  page = (trained / 'report.html').read_text()
  assert 'InceptionResNetV2, reduced: width 0.05' in page
  for image in ('curves.svg', 'confusion.svg', 'roc.svg', 'reliability.svg'):
    assert image in text and image not in page
    assert b'<svg' in (trained / image).read_bytes()
  card = (trained / 'model_card.md').read_text()
  assert got['parameters_sha256'] in card and 'not reported' in card
  # Pages know patients by numbers alone.
  patients = {row['patient'] for row in read_predictions(trained)}
  assert 'P01' in text and not any(f' {p} ' in text for p in patients)
  before = text
  assert run('--mode=report', f'--workdir={trained}').returncode == 0
  assert (trained / 'report.md').read_text() == before


@pytest.mark.full
def test_images_that_may_not_be_shown_are_taken_away(trained, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / 'w')
  Image.new('RGB', (60, 60)).save(workdir / 'mistakes.png')
  assert run('--mode=report', f'--workdir={workdir}').returncode == 0
  assert '](mistakes.png)' in (workdir / 'report.md').read_text()
  config = json.loads((workdir / 'config.json').read_text())
  config['report']['include_images'] = 'no'
  (workdir / 'config.json').write_text(json.dumps(config))
  assert run('--mode=report', f'--workdir={workdir}').returncode == 0
  assert '](mistakes.png)' not in (workdir / 'report.md').read_text()
  assert not (workdir / 'mistakes.png').exists()
  (workdir / 'result.json').unlink()
  unfinished = run('--mode=report', f'--workdir={workdir}')
  assert 'no finished training run' in refused(unfinished)
  other = json.dumps(config | {'mode': 'predict'})
  (workdir / 'config.json').write_text(other)
  wrong = run('--mode=report', f'--workdir={workdir}')
  assert 'holds what --mode=predict wrote' in refused(wrong)


def test_predictions_name_each_image(trained):
  got = result(trained)
  rows = read_predictions(trained)
  names = got['data']['classes']
  shares = [f'p_{name}' for name in names]
  assert list(rows[0]) == [
    *('path', 'part', 'patient', 'group', 'true_class', 'predicted_class'),
    *(*shares, 'loss'),
  ]
  assert len({row['path'] for row in rows}) == got['data']['images']
  for part in ('train', 'validation', 'test'):
    own = [row for row in rows if row['part'] == part]
    counts = np.zeros((len(names), len(names)), int)
    for row in own:
      true, predicted = row['true_class'], row['predicted_class']
      counts[names.index(true), names.index(predicted)] += 1
      values = [float(row[share]) for share in shares]
      assert sum(values) == pytest.approx(1, abs=1e-5)
      assert np.argmax(values) == names.index(predicted)
      assert row['path'].startswith(f'{true}/{row["patient"]}-')
      loss = -np.log(float(row[f'p_{true}']))
      assert float(row['loss']) == pytest.approx(loss, rel=1e-3, abs=1e-4)
    assert counts.tolist() == got[part]['confusion_matrix']
    losses = [float(row['loss']) for row in own]
    assert np.mean(losses) == pytest.approx(got[part]['loss'], rel=1e-4)
    patients = {row['patient'] for row in own}
    assert len(patients) == got['data']['patients_by_part'][part]
  text = (trained / 'report.md').read_text()
  assert '(predictions.csv)' in text
  if counts.trace() < counts.sum():
    assert '(mistakes.png)' in text and (trained / 'mistakes.png').exists()


@pytest.mark.full
def test_folds_are_trained_and_scored_together(tmp_path, cache):
  flags = [f'--workdir={tmp_path}/w', cache, *SMALL]
  flags += ['--config.train.epochs=1', '--config.data.folds=3']
  flags.append('--config.report.shortcuts=True')
  # Killed after the first fold, it goes on with the second.
  first = run(*flags[1:], f'--workdir={tmp_path}/w', '--config.data.fold=0')
  assert first.returncode == 0, first.stderr
  done = run(*[f.replace('/w', '/cv') for f in flags])
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'cv')
  record = got['cross_validation']
  assert record['folds'] == 3 and got['intervals']['group'] == 'patient'
  assert got['test']['images'] == got['data']['images']
  one = result(tmp_path / 'cv/fold-0')
  # A fold alone is the same run.
  alone = result(tmp_path / 'w')
  assert one['parameters_sha256'] == alone['parameters_sha256']
  assert one['test'] == alone['test']
  scores = record['scores']['balanced_accuracy']
  assert scores[0] == pytest.approx(one['test']['balanced_accuracy'])
  assert record['mean']['balanced_accuracy'] == pytest.approx(np.mean(scores))
  together = got['test']['balanced_accuracy']
  # After an epoch one class may be all that is predicted: only losses vary.
  low, high = got['intervals']['ends']['test.loss']
  assert low <= got['test']['loss'] <= high
  assert got['intervals']['smallest'] > 1
  # Each fold's own shortcut, scored on all images together.
  assert one['baselines']['shortcut']['name']
  shortcut = got['baselines']['shortcut']
  assert shortcut['above'] == pytest.approx(
    together - shortcut['balanced_accuracy']
  )
  low, high = shortcut['above_interval_95']
  assert low <= shortcut['above'] <= high
  with (tmp_path / 'cv/predictions.csv').open(newline='') as stream:
    rows = list(csv.DictReader(stream))
  assert len({row['path'] for row in rows}) == len(rows)
  assert {row['part'] for row in rows} == {'fold_0', 'fold_1', 'fold_2'}
  recalls = [
    np.mean(
      [r['shortcut_class'] == name for r in rows if r['true_class'] == name]
    )
    for name in got['data']['classes']
  ]
  assert np.mean(recalls) == pytest.approx(shortcut['balanced_accuracy'])
  page = tmp_path / 'cv/report.md'
  text = page.read_text()
  assert '(fold-2/report.md)' in text
  page.unlink()
  assert run('--mode=report', f'--workdir={tmp_path}/cv').returncode == 0
  assert page.read_text() == text
  before = (tmp_path / 'cv/result.json').read_bytes()
  shutil.rmtree(tmp_path / 'cv/fold-2')
  (tmp_path / 'cv/result.json').unlink()
  again = run(*[f.replace('/w', '/cv') for f in flags])
  assert again.returncode == 0, again.stderr
  after = result(tmp_path / 'cv')
  assert after['cross_validation'] == record
  assert json.loads(before)['test'] == after['test']
  elsewhere = [f.replace('/w', '/cv') for f in flags]
  elsewhere.append(f'--config.data.source={tmp_path}/set')
  conftest.save_images(tmp_path / 'set', {'a': 9, 'b': 9})
  assert 'a finished run on synthetic' in refused(run(*elsewhere))
  (tmp_path / 'cv/result.json').unlink()
  with lock_run(tmp_path / 'cv/fold-1'):
    busy = run(*[f.replace('/w', '/cv') for f in flags])
  assert 'fold-1: another run is at work here' in refused(busy)
  split = tmp_path / 'cv/fold-1/split.json'
  content = json.loads(split.read_text())
  split.write_text(json.dumps(content | {'fingerprint': 'of other images'}))
  changed = run(*[f.replace('/w', '/cv') for f in flags])
  assert 'synthetic has changed since this run began' in refused(changed)
  scored = run(
    *('--mode=evaluate', f'--checkpoint={tmp_path}/cv', cache),
    f'--workdir={tmp_path}/e',
  )
  assert 'fold-0' in refused(scored)


@pytest.mark.full
def test_same_command_again_and_another_config(trained, cache):
  before = (trained / 'result.json').read_bytes()
  done = run(f'--workdir={trained}', cache, *SMALL)
  assert done.returncode == 0
  assert 'finished' in done.stdout
  error = refused(run(f'--workdir={trained}', cache, *SMALL, '--config.seed=5'))
  assert 'seed: 0 saved, 5 now' in error
  assert 'epochs' not in error
  assert (trained / 'result.json').read_bytes() == before


@pytest.mark.full
def test_the_studys_protocol_and_a_start_from_other_weights(
  trained, cache, tmp_path
):
  done = run(
    f'--workdir={tmp_path}/w',
    cache,
    *SMALL,
    '--config.data.protocol=balance_then_split',
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


@pytest.mark.full
def test_weights_that_are_gone_are_missed_by_no_run_that_has_begun(
  trained, cache, tmp_path
):
  first = tmp_path / 'first'
  shutil.copytree(trained, first)
  # What the first one's weights had learnt from is passed on.
  path = first / 'split.json'
  split = json.loads(path.read_text())
  everything = set(split['pixel_hashes'])
  split['before'] = {'pixel_hashes': sorted(everything), 'is_known': False}
  path.write_text(json.dumps(split))
  flags = [f'--workdir={tmp_path}/w', cache, *SMALL]
  flags.append(f'--config.model.weights={first}')
  done = run(*flags)
  assert done.returncode == 0, done.stderr
  assert 'or those that they started from' in done.stdout
  whole = result(tmp_path / 'w')
  seen = whole['data']['held_out_seen_by_weights']
  assert seen == {p: whole[p]['images'] for p in ('validation', 'test')}
  shutil.rmtree(first)
  (tmp_path / 'w/result.json').unlink()
  again = run(*flags)
  assert again.returncode == 0, again.stderr
  got = result(tmp_path / 'w')
  assert got['parameters_sha256'] == whole['parameters_sha256']
  assert got['data'] == whole['data']
  scored = run(
    *('--mode=evaluate', f'--checkpoint={tmp_path}/w', cache),
    f'--workdir={tmp_path}/e',
  )
  assert scored.returncode == 0, scored.stderr
  error = refused(run(f'--workdir={tmp_path}/new', *flags[1:]))
  assert f'config.model.weights={first}: there is no such file' in error


@pytest.mark.full
def test_pyramids_that_weights_lack_are_not_left_random(
  segmenter, cache, tmp_path
):
  # All other layers have the same shapes.
  error = refused(
    run(
      f'--workdir={tmp_path}/w',
      cache,
      *SMALL_UNET,
      '--config.model.name=unet_fpn',
      f'--config.model.weights={segmenter}',
    )
  )
  assert 'model of another shape' in error


@pytest.mark.full
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


@pytest.mark.full
def test_kills_change_nothing(tmp_path, cache):
  """Nor does a second run of one command: its result is compared whole."""
  check_kills(tmp_path, 2, cache, *SMALL)


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


@pytest.mark.parametrize(
  'name',
  [
    'config.json',
    pytest.param('split.json', marks=pytest.mark.full),
    pytest.param('result.json', marks=pytest.mark.full),
  ],
)
def test_a_run_of_another_version_is_refused_in_one_line(
  trained, cache, tmp_path, name
):
  workdir = shutil.copytree(trained, tmp_path / 'w')
  if name != 'result.json':
    (workdir / 'result.json').unlink()
  content = json.loads((workdir / name).read_text())
  del content['format']  # As version 0.1.0 wrote it.
  (workdir / name).write_text(json.dumps(content))
  error = refused(run(f'--workdir={workdir}', cache, *SMALL))
  assert f'{name} has format 1' in error and 'leukemia_jax 0.1.0' in error


@pytest.mark.full
@pytest.mark.parametrize('kind', ['trained', 'segmenter'])
def test_a_set_on_disk_trains_as_one_in_memory(kind, request, cache, tmp_path):
  whole = request.getfixturevalue(kind)
  flags = SMALL if kind == 'trained' else SMALL_UNET
  workdir = tmp_path / 'run'
  done = run(f'--workdir={workdir}', cache, *flags, '--config.data.stream=True')
  assert done.returncode == 0, done.stderr
  one, other = result(whole), result(workdir)
  del one['cost'], other['cost']
  assert one == other
