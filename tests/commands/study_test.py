"""--mode=study: what it refuses, what it leaves, what it writes."""

import csv
import io
import pathlib
import shutil

import conftest
import ml_collections
import numpy as np
import pytest
from conftest import ROOT

from leukemia_jax import files
from leukemia_jax.commands import report, study
from leukemia_jax.errors import InputError
from leukemia_jax.reporting import study_page
from leukemia_jax.study import published


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('study.row', 48, 'rows 0 to 47'),
    ('data.protocol', 'split', 'balance_then_split'),
    ('data.image_size', 16, '75 or more'),
    ('study.nasnet_large.weights', 'missing.h5', 'no such file'),
    (
      'study.nasnet_large.weights',
      str(ROOT / 'README.md'),
      r'config\.study\.nasnet_large\.preprocess=backbone',
    ),
    ('study.nasnet_large.width', 0, r'config\.study\.nasnet_large\.width=0'),
    pytest.param(
      *('train.batch_size', 1000, 'images are in no test part'),
      marks=pytest.mark.full,
    ),
    ('study.segmentation', ('missing',), 'no workdir of a finished run'),
  ],
)
def test_a_study_that_cannot_be_is_refused(
  study_config, tmp_path, key, value, words
):
  config = ml_collections.ConfigDict(study_config.to_dict())
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=words):
    study.run(config, tmp_path / 'w')
  assert not (tmp_path / 'w/config.json').exists()


def test_a_split_of_the_source_has_no_options(study_config, tmp_path):
  for seed, part in enumerate(('train', 'validation', 'test')):
    folder = tmp_path / 'set' / part
    conftest.save_images(folder, {'a': 4, 'b': 4}, seed=seed)
  config = ml_collections.ConfigDict(study_config.to_dict())
  config.data.source = str(tmp_path / 'set')
  config.data.protocol = 'split_then_balance'
  with pytest.raises(InputError, match=r'config\.study\.options=\(1,\)'):
    study.run(config, tmp_path / 'w')


@pytest.mark.full
def test_finished_rows_are_left_and_damaged_ones_named(
  finished_study, study_config, tmp_path
):
  finished = shutil.copytree(finished_study, tmp_path / 'w')
  config = ml_collections.ConfigDict(study_config.to_dict())
  config.study.learning_rates, config.study.dropout_rates = (0.01,), (0.2, 0.0)
  config.study.repeats, config.train.epochs = 2, 3
  config.study.calibration_images = 0
  stamps = {p: p.stat().st_mtime_ns for p in (finished / 'rows').iterdir()}
  before = (finished / 'results.csv').read_text()
  lost = finished / 'rows/003.json'
  lost.unlink()
  # One row alone goes into the same tables.
  config.study.row = 3
  study.run(config, finished)
  for path, stamp in stamps.items():
    assert path == lost or path.stat().st_mtime_ns == stamp

  def numbers(text):
    lines = list(csv.DictReader(io.StringIO(text)))
    return [{k: v for k, v in ln.items() if k != 'seconds'} for ln in lines]

  assert numbers((finished / 'results.csv').read_text()) == numbers(before)
  whole = lost.read_text()
  lost.write_text('{"format": 5, "model": "inception_resnet_v2"}')
  with pytest.raises(InputError, match='damaged'):
    study.run(config, finished)
  lost.write_text(whole)
  # Rows of other images or weights are not mixed with these: of this backbone,
  # or of one all of whose rows are there.
  for number, what in (
    (2, 'fingerprint'),
    (2, 'weights_sha256'),
    (5, 'fingerprint'),
  ):
    other = finished / f'rows/{number:03d}.json'
    kept = other.read_text()
    there = files.read_json(other)['provenance'][what]
    other.write_text(kept.replace(there, there[::-1]))
    lost.unlink()
    with pytest.raises(InputError, match='of other images or weights'):
      study.run(config, finished)
    assert not lost.exists()
    lost.write_text(whole)
    if what == 'fingerprint':
      with pytest.raises(InputError, match='rows of different images'):
        study_page.write(finished, [])
    other.write_text(kept)
  config.train.epochs = 4
  with pytest.raises(InputError, match=r'train\.epochs: 3 saved, 4 now'):
    study.run(config, finished)


@pytest.mark.full
def test_tables_hold_what_the_rows_do(finished_study, tmp_path):
  lines = list(
    csv.DictReader(io.StringIO((finished_study / 'results.csv').read_text()))
  )
  assert len(lines) == 8
  published = (ROOT / 'leukemia_jax/study/published.csv').read_text()
  columns = published.splitlines()[0].split(',')
  assert list(lines[0])[: len(columns)] == columns
  for line in lines:
    row = files.read_json(finished_study / f'rows/{int(line["row"]):03d}.json')
    tests = [r['test'] for r in row['repeats']]
    accuracies = [100 * t['accuracy'] for t in tests]
    assert float(line['test_accuracy']) == pytest.approx(
      np.mean(accuracies), rel=1e-4
    )
    assert float(line['test_accuracy_std']) == pytest.approx(
      np.std(accuracies, ddof=1), rel=1e-4, abs=1e-9
    )
    # Precision, recall and F1 are of the test part.
    assert float(line['recall']) == pytest.approx(
      np.mean([t['balanced_accuracy'] for t in tests]), rel=1e-4
    )
    for repeat in row['repeats']:
      correct = np.equal(repeat['predicted'], row['test']['labels'])
      assert correct.mean() == pytest.approx(repeat['test']['accuracy'])
  text = (finished_study / 'report.md').read_text()
  for words in (
    '## InceptionResNetV2, loading option 1',
    '## NASNetLarge, loading option 2',
    '8 of 8 rows',
    'McNemar',
    'Option 1: by validation ',
    'colour 3-NN, %',
    'not a medical device',
  ):
    assert words in text, words
  page = (finished_study / 'report.html').read_text()
  # Every table of one is in the other.
  assert page.count('<table>') == text.count('\n| --- |')
  assert '<td><strong>' in page and 'http' not in page
  # Figures of the published set say nothing about these smears.
  assert '(96.67, ' not in text and 'In brackets' not in text
  # The picture is in the one, and beside the other.
  assert 'alt="Incorrect test images' in page and '](rates.svg)' in text
  assert 'src="data:image/svg+xml' in page
  assert (finished_study / 'rates.svg').read_text().startswith('<?xml')
  again = shutil.copytree(finished_study, tmp_path / 'w')
  (again / 'report.md').unlink()
  report.run(again)
  assert (again / 'report.md').read_text() == text
  # The winner is what the page says first.
  assert text.splitlines()[2].startswith('**Best by validation: ')


@pytest.mark.full
def test_segmentation_runs_are_joined(finished_study, tmp_path):
  workdir = shutil.copytree(finished_study, tmp_path / 'w')
  runs = []
  for name in ('unet_real', 'unet_real_cleaned'):
    runs.append(tmp_path / name)
    runs[-1].mkdir()
    shutil.copy(ROOT / f'results/{name}.json', runs[-1] / 'result.json')
  study_page.write(workdir, study_page.read_segmenters(map(str, runs)))
  text = (workdir / 'report.md').read_text()
  for run in runs:
    saved = files.read_json(run / 'result.json')
    worst = saved['test']['by_class']['Pro']['dice']
    assert f'{saved["test"]["dice"]:.3f}' in text
    assert f'{worst:.3f} (Pro)' in text
    rule = saved['baselines']['colour_rule']
    assert f'| colour rule | {rule["images"]} | {rule["dice"]:.3f} |' in text
  assert 'masks by grey\\>128): unet Dice 0.918' in text
  # Folds are not scored by class.
  saved['test']['by_class'] = None
  files.write_json(runs[1] / 'result.json', saved)
  study_page.write(workdir, study_page.read_segmenters(map(str, runs)))
  assert f'{worst:.3f} (Pro)' not in (workdir / 'report.md').read_text()
  # A run of another kind is refused.
  shutil.copy(ROOT / 'results/synthetic.json', runs[0] / 'result.json')
  with pytest.raises(InputError, match='no run that makes masks'):
    study_page.read_segmenters(map(str, runs))
  files.write_json(
    runs[0] / 'result.json', {'format': 5, 'task': 'segmentation'}
  )
  with pytest.raises(InputError, match='unet_real/result.json is damaged'):
    study_page.read_segmenters(map(str, runs))


def lost(workdir: pathlib.Path) -> int:
  """How many heads predict no image of some class correctly."""
  rows = [files.read_json(path) for path in (workdir / 'rows').iterdir()]
  return sum(
    repeat['test']['worst_class_recall'] == 0
    for row in rows
    for repeat in row['repeats']
  )


@pytest.mark.full
def test_a_report_of_what_is_not_known_or_went_wrong(finished_study, tmp_path):
  workdir = shutil.copytree(finished_study, tmp_path / 'w')
  for path in (workdir / 'rows').iterdir():
    row = files.read_json(path)
    row['backbone'] |= {'flops_per_image': None, 'images_per_second': None}
    if row['number'] == 0:
      row['repeats'][1] |= {'diverged': True, 'best_epoch': 0}
      for part in ('train', 'validation', 'test'):
        row['repeats'][1][part]['loss'] = float('nan')
        row['repeats'][0][part]['worst_class_recall'] = 1.0
        row['repeats'][1][part]['worst_class_recall'] = 0.0
    # A source's own test part may lack a class.
    for repeat in row['repeats']:
      absent = next(iter(repeat['test']['by_class'].values()))
      absent |= {'images': 0, 'recall': 0.0}
    files.write_json(path, row)
  path, winner = study_page.write(workdir, [])
  text = path.read_text()
  # A head that diverged does not win, whatever its scores.
  lines = [ln for ln in text.splitlines() if ln.startswith('| 0.01 | 0.2 |')]
  assert lines and '| 1 |' in lines[0] and '**' not in lines[0]
  assert f'{lost(workdir)} of 16 heads predict no image of some class' in text
  assert winner in text


@pytest.mark.full
def test_published_figures_stand_beside_rows_of_the_published_set(
  finished_study, tmp_path
):
  workdir = shutil.copytree(finished_study, tmp_path / 'w')
  for path in (workdir / 'rows').iterdir():
    row = files.read_json(path)
    row['data'] |= {'source': 'leukemia.zip', 'originals': published.IMAGES}
    files.write_json(path, row)
  text = study_page.write(workdir, [])[0].read_text()
  # The published figure of rate 0.01, dropout 0.2 on option 1.
  assert '(96.67, ' in text and 'In brackets' in text
  assert 'is not trained as the published rows were' in text
  assert 'published: imagenet' in text and 'published: 224' in text
  assert 'blocks \\[1, 1, 1\\] (published: \\[10, 20, 10\\])' in text
