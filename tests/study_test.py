"""The study: cached features and heads trained together, against references."""

import csv
import io
import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from configs import default
from leukemia_jax import (
  commands,
  experiment,
  features,
  heads,
  metrics,
  models,
  published_study,
  settings,
  study,
  study_report,
  train,
)
from leukemia_jax import workdir as files
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.errors import InputError
from leukemia_jax.models import keras_import

MODEL = 'inception_resnet_v2'


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> ml_collections.ConfigDict:
  """A study of small backbones on a few smears, with impatient rules."""
  config = default.get_config()
  config.data.cache_dir = str(tmp_path_factory.mktemp('cache'))
  config.data.order = 'balance_then_split'
  config.data.image_size = 75
  config.synthetic.scale = 0.03
  config.train.epochs = 12
  config.train.batch_size = 8
  config.train.plateau_patience, config.train.stop_patience = 1, 3
  for name in config.study.models:
    config.study[name].width = 0.05
    config.study[name].blocks = (1, 1, 1)
  return config


def loaded_with_features(config):
  """What `study.run` works on, for one backbone."""
  config = study.model_config(config, MODEL)
  loaded = study._load(config)
  backbone = study._backbone(config, loaded)
  extracted = features.extract(
    backbone,
    loaded.data.images,
    cache=pathlib.Path(config.data.cache_dir, 'features'),
    batch_size=config.train.batch_size,
  )
  data = Dataset(jnp.asarray(extracted.features), loaded.data.labels)
  return config, loaded, data


def heads_of(config, loaded, rate=0.0) -> heads.Heads:
  names = loaded.catalogue.class_names
  return heads.Heads(config, class_names=names, dropout_rate=rate)


@pytest.mark.parametrize(
  ('loss', 'rate'),
  [
    ('cross_entropy', 0.0001),
    pytest.param('cross_entropy', 0.01, marks=pytest.mark.full),
    pytest.param('keras_clipped', 0.0001, marks=pytest.mark.full),
    pytest.param('keras_clipped', 0.01, marks=pytest.mark.full),
  ],
)
def test_a_row_is_a_training_run_with_a_frozen_backbone(
  config, tmp_path, monkeypatch, loss, rate
):
  if rate == 0.01:
    # In batches of another size features round otherwise. A weight whose
    # gradient is near Adam's epsilon then differs by 1 % of the rate, which is
    # 1e-6 at the lower rate. In training's own batches there is no such thing.
    monkeypatch.setattr(features, '_pace', lambda batch_size: (batch_size, 1))
  # Weights that tell images apart, in a file that both can start from.
  of_model, loaded, _ = loaded_with_features(config)
  file = tmp_path / 'calibrated.weights.h5'
  keras_import.export_weights(
    study._backbone(of_model, loaded).load(),
    file,
    MODEL,
    width=0.05,
    blocks=(1, 1, 1),
  )
  config = ml_collections.ConfigDict(config.to_dict())
  config.train.loss = loss
  config.study[MODEL].weights = str(file)
  config.study[MODEL].preprocess = 'unit'
  config, loaded, data = loaded_with_features(config)
  parts = heads.parts_of(loaded.rows[1], config.train.batch_size)
  run = heads.Run(rate, config.seed)
  (outcome,) = heads_of(config, loaded, 0.2).fit(
    [run], data, parts, lambda done: None
  )
  # The same by the command that trains: backbone in every step.
  config.data.option, config.model.dropout_rate = 1, 0.2
  config.train.learning_rate = rate
  commands.run_training(config, tmp_path / 'w')
  result = files.read_json(tmp_path / 'w' / files.RESULT)
  assert (result['epochs'], result['best_epoch']) == outcome[1:3]
  # The rules had something to decide.
  log = files.read_log(tmp_path / 'w' / files.METRICS)
  assert len({line['learning_rate'] for line in log}) > 1
  assert result['best_epoch'] < result['epochs']
  _, _, variables = experiment.load_trained(tmp_path / 'w')
  for layer, leaves in outcome.params.items():
    for name, leaf in leaves.items():
      expected = variables['params'][layer][name]
      assert np.abs(np.asarray(leaf) - expected).max() < 1e-5, (layer, name)


def test_heads_together_are_heads_alone(config):
  config, loaded, data = loaded_with_features(config)
  rates = (0.1, 0.01, 0.0001)
  runs = [heads.Run(rate, seed) for rate in rates for seed in range(2)]
  parts = heads.parts_of(loaded.rows[1], config.train.batch_size)
  fitter = heads_of(config, loaded, 0.4)
  done: list[int] = []
  together = fitter.fit(runs, data, parts, done.append)
  # Each stopped by itself.
  assert len({outcome.epochs for outcome in together}) > 1
  assert done[-1] == sum(outcome.epochs for outcome in together)
  for run, outcome in zip(runs, together, strict=True):
    (alone,) = fitter.fit([run], data, parts, lambda done: None)
    assert alone[1:] == outcome[1:]
    jax.tree.map(np.testing.assert_array_equal, alone.params, outcome.params)


def test_heads_side_by_side_are_heads_one_after_the_other(config):
  config, loaded, data = loaded_with_features(config)
  parts = heads.parts_of(loaded.rows[1], config.train.batch_size)
  runs = [
    heads.Run(rate, config.seed, wanted)
    for rate, wanted in ((0.01, True), (0.001, False), (0.0001, True))
  ]
  for_gpu, for_cpu = (
    heads.Heads(
      config,
      class_names=loaded.catalogue.class_names,
      dropout_rate=0.2,
      side_by_side=side_by_side,
    ).fit(runs, data, parts, lambda done: None)
    for side_by_side in (True, False)
  )
  for one, other in zip(for_gpu, for_cpu, strict=True):
    assert one[1:] == other[1:]
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
      one.params,
      other.params,
    )
  assert for_cpu[1].epochs == 0 and for_cpu[0].epochs > 1


def test_a_head_that_diverges_is_marked_and_keeps_its_best(config):
  config, loaded, data = loaded_with_features(config)
  parts = heads.parts_of(loaded.rows[1], config.train.batch_size)
  runs = [heads.Run(rate, config.seed) for rate in (1e30, 0.001)]
  wild, tame = heads_of(config, loaded).fit(
    runs, data, parts, lambda done: None
  )
  assert wild.diverged and not tame.diverged
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wild.params))
  assert tame.epochs > 1


def keras_head(width, classes, rate, dtype):
  import keras

  keras.config.set_floatx(dtype)
  # Layers made before have settled it, whatever floatx says.
  keras.config.set_dtype_policy(dtype)
  model = keras.Sequential(
    [
      keras.layers.Input((width,)),
      keras.layers.Dense(256, activation='relu', name='hidden'),
      keras.layers.Dense(classes, activation='softmax', name='logits'),
    ]
  )
  model.compile(
    optimizer=keras.optimizers.Adam(rate), loss='categorical_crossentropy'
  )
  return model


@pytest.mark.parametrize(
  ('dtype', 'rate', 'limit'),
  [
    *(('float64', rate, 1e-9) for rate in (0.1, 0.01, 0.001, 0.0001)),
    *(('float32', rate, 1e-5) for rate in (0.001, 0.0001)),
  ],
)
def test_a_head_is_keras_for_twenty_steps(dtype, rate, limit):
  import keras

  rng = np.random.default_rng(0)
  inputs = rng.gamma(1.0, 0.5, (160, 48)).astype(dtype)
  labels = rng.integers(0, 4, 160)
  try:
    with (
      jax.enable_x64(dtype == 'float64'),
      jax.numpy_rank_promotion('allow'),
    ):
      theirs = keras_head(48, 4, rate, dtype)
      start = {
        layer.name: {
          'kernel': np.asarray(layer.kernel),
          'bias': np.asarray(layer.bias),
        }
        for layer in theirs.layers
      }
      head = models.Head(4)
      tx = train.make_optimizer(False)
      params = jax.tree.map(jnp.asarray, start)
      state = train.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats={},
        opt_state=tx.init(params),
        learning_rate=jnp.asarray(rate, dtype),
        sums=jnp.zeros(3, dtype),
      )
      step = jax.jit(
        train.make_train_step(
          apply_fn=head.apply,
          tx=tx,
          augment=None,
          preprocessing=None,
          objective=lambda logits, labels: metrics.class_objective(
            logits, labels, loss='keras_clipped'
          ),
        )
      )
      data = Dataset(jnp.asarray(inputs), jnp.asarray(labels))
      rows = np.resize(np.arange(160), (20, 32))
      one_hot = np.eye(4, dtype=dtype)[labels]
      for batch in rows:
        theirs.train_on_batch(inputs[batch], one_hot[batch])
        state, _ = step(
          state,
          jax.random.key(0),
          data,
          jnp.asarray(rows),
          jnp.ones((20, 32), dtype),
        )
      for layer in theirs.layers:
        for name in ('kernel', 'bias'):
          ours = np.asarray(state.params[layer.name][name])
          expected = np.asarray(getattr(layer, name))
          assert ours.dtype == expected.dtype == dtype
          assert np.abs(ours - expected).max() < limit
          assert np.abs(ours - start[layer.name][name]).max() > limit
  finally:
    keras.config.set_floatx('float32')
    keras.config.set_dtype_policy('float32')


def test_a_collapsed_softmax_scores_what_the_study_printed():
  labels = jnp.repeat(jnp.arange(4), 25)
  logits = jnp.zeros((100, 4)).at[:, 2].set(1000.0)
  losses, _ = metrics.class_objective(logits, labels, loss='keras_clipped')
  assert float(losses.mean()) == pytest.approx(12.0886, abs=5e-5)
  confusion = metrics.confusion_matrix(logits, labels, jnp.ones(100))
  got = metrics.scores(confusion, float(losses.sum()), tuple('abcd'), 'a')
  assert (got['precision'], got['recall'], got['f1']) == (0.0625, 0.25, 0.1)

  def total(logits, loss):
    return metrics.class_objective(logits, labels, loss=loss)[0].sum()

  assert not jax.grad(total)(logits, 'keras_clipped').any()
  stable = jax.grad(total)(logits, 'cross_entropy')
  assert (jnp.abs(stable).sum(1) > 0)[labels != 2].all()


def test_clipped_loss_is_keras():
  import keras

  rng = np.random.default_rng(0)
  logits = (rng.normal(size=(64, 4)) * 12).astype(np.float32)
  labels = rng.integers(0, 4, 64)
  theirs = keras.losses.CategoricalCrossentropy(reduction=None)(
    np.eye(4, dtype=np.float32)[labels], jax.nn.softmax(logits)
  )
  ours = metrics.clipped_cross_entropy(jnp.asarray(logits), labels)
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  assert (np.asarray(ours) > 16).any()


def test_rows_are_numbered_as_the_published_table():
  rows = study.grid(default.get_config().study)
  assert [row.number for row in rows] == list(range(48))
  published = list(published_study.figures())
  ours = [
    (study_report._TITLES[r.model], r.option, r.learning_rate, r.dropout_rate)
    for r in rows
    if r.option == 1
  ]
  assert ours == published


def test_published_misprints_are_not_compared_with():
  figures = published_study.figures()
  assert 'test_loss' not in figures['NASNetLarge', 1, 0.01, 0.4]
  assert not figures['NASNetLarge', 1, 0.0001, 0.4]
  assert figures['InceptionResNetV2', 1, 0.0001, 0.0]['test_accuracy'] == 97.83
  assert sum(map(len, figures.values())) == 24 * 9 - 1 - 9


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('study.models', ('unet',), "each one of 'inception_resnet_v2'"),
    ('study.options', (), 'one or more'),
    ('study.learning_rates', (0.1, 0.1), 'different'),
    ('study.dropout_rates', (1.0,), 'below 1'),
    ('study.row', -2, 'from -1'),
    ('study.segmentation', ('',), 'or workdirs'),
    ('train.loss', 'mse', 'keras_clipped'),
  ],
)
def test_wrong_values_are_named(key, value, words):
  config = default.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=rf'config\.{key}=.*{words}'):
    settings.check(config)


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('study.row', 48, 'rows 0 to 47'),
    ('data.order', 'split', 'balance_then_split'),
    ('data.image_size', 16, '75 or more'),
    ('study.nasnet_large.weights', 'missing.h5', 'no such file'),
    (
      'study.nasnet_large.weights',
      str(ROOT / 'README.md'),
      r'config\.study\.nasnet_large\.preprocess=backbone',
    ),
    ('study.nasnet_large.width', 0, r'config\.study\.nasnet_large\.width=0'),
    ('train.batch_size', 1000, 'images are in no test part'),
    ('study.segmentation', ('missing',), 'no workdir of a finished run'),
  ],
)
def test_a_study_that_cannot_be_is_refused(config, tmp_path, key, value, words):
  config = ml_collections.ConfigDict(config.to_dict())
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=words):
    study.run(config, tmp_path / 'w')
  assert not (tmp_path / 'w/config.json').exists()


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory) -> pathlib.Path:
  """A study of two rows of each table, twice each."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.study.learning_rates, config.study.dropout_rates = (0.01,), (0.2, 0.0)
  config.study.repeats, config.train.epochs = 2, 3
  config.study.calibration_images = 0
  workdir = tmp_path_factory.mktemp('study')
  study.run(config, workdir)
  return workdir


def test_winners_are_chosen_on_validation_alone():
  def line(model, option, worst, accuracy, loss, test, diverged=0):
    return {
      'model': model,
      'loading_option': option,
      'diverged': diverged,
      'val_worst_class_recall': worst,
      'val_accuracy': accuracy,
      'val_loss': loss,
      'test_worst_class_recall': test,
      'test_accuracy': test,
    }

  lines = [
    line('a', 1, 90, 99, 1, test=99),
    line('a', 1, 95, 96 + 1e-13, 9, test=50),
    line('a', 1, 95, 96, 8, test=40),
    line('a', 1, 99, 99, 0, test=99, diverged=1),
    line('b', 1, 80, 99, 1, test=99),
    line('a', 2, 70, 71, 1, test=1),
    line('a', 2, 70, 70, 0, test=99),
  ]
  # Worst class first, then accuracy, then loss; test scores choose nothing.
  assert study_report.winners(lines) == [2, 4, 5]


def test_pairs_are_of_the_images_that_both_have():
  def row(images, labels, *called):
    return {
      'test': {'images': images, 'labels': labels},
      'repeats': [{'test': {'called': c}} for c in called],
    }

  # Images 4 to 7 are common: the first alone is right on 4, 5 and 6.
  one = row([1, 4, 5, 6, 7], [0, 0, 1, 2, 3], [9, 0, 1, 2, 9], [9] * 5)
  other = row([4, 5, 6, 7, 8], [0, 1, 2, 3, 0], [9, 9, 9, 3, 0], [9] * 5)
  found = study_report._paired(one, other)
  assert [paired[:3] for paired in found] == [(4, 3, 1), (4, 0, 0)]
  # Exact, by hand: 2 * (1 + 4) / 2^4.
  assert [paired.p_value for paired in found] == [0.625, 1.0]
  assert [paired[1:3] for paired in study_report._paired(other, one)] == [
    (1, 3),
    (0, 0),
  ]


@pytest.mark.full
def test_tables_hold_what_the_rows_do(finished):
  lines = list(
    csv.DictReader(io.StringIO((finished / 'results.csv').read_text()))
  )
  assert len(lines) == 8
  published = (ROOT / 'leukemia_jax/published_study.csv').read_text()
  columns = published.splitlines()[0].split(',')
  assert list(lines[0])[: len(columns)] == columns
  for line in lines:
    row = files.read_json(finished / f'rows/{int(line["row"]):03d}.json')
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
      np.mean([t['recall'] for t in tests]), rel=1e-4
    )
    for repeat in row['repeats']:
      right = np.equal(repeat['test']['called'], row['test']['labels'])
      assert right.mean() == pytest.approx(repeat['test']['accuracy'])
  text = (finished / 'report.md').read_text()
  for words in (
    '## InceptionResNetV2, loading option 1',
    '## NASNetLarge, loading option 2',
    '8 of 8 rows',
    'McNemar',
    'Option 1: by validation ',
    'colour 3-NN, %',
    # The published figure of rate 0.01, dropout 0.2 on option 1.
    '(96.67, ',
    'not a medical device',
  ):
    assert words in text, words
  page = (finished / 'report.html').read_text()
  # Every table of one is in the other.
  assert page.count('<table>') == text.count('\n| --- |')
  assert 'class="best"' in page and 'http' not in page
  # The picture is in the one, and beside the other.
  assert '<img alt="Wrong test images' in page and '](rates.png)' in text
  with Image.open(finished / 'rates.png') as image:
    assert image.format == 'PNG'


@pytest.mark.full
def test_finished_rows_are_left_and_damaged_ones_named(
  finished, config, tmp_path
):
  finished = shutil.copytree(finished, tmp_path / 'w')
  config = ml_collections.ConfigDict(config.to_dict())
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
  lost.write_text('{"model": "inception_resnet_v2"}')
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
    there = files.read_json(other)['of'][what]
    other.write_text(kept.replace(there, there[::-1]))
    lost.unlink()
    with pytest.raises(InputError, match='of other images or weights'):
      study.run(config, finished)
    assert not lost.exists()
    lost.write_text(whole)
    if what == 'fingerprint':
      with pytest.raises(InputError, match='rows of different images'):
        study_report.write(finished)
    other.write_text(kept)
  config.train.epochs = 4
  with pytest.raises(InputError, match=r'train\.epochs: 3 there, 4 now'):
    study.run(config, finished)


@pytest.mark.full
def test_segmentation_runs_are_joined(finished, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / 'w')
  runs = []
  for name in ('unet_real', 'unet_real_cleaned'):
    runs.append(tmp_path / name)
    runs[-1].mkdir()
    shutil.copy(ROOT / f'results/{name}.json', runs[-1] / files.RESULT)
  study_report.write(workdir, [str(run) for run in runs])
  text = (workdir / 'report.md').read_text()
  for run in runs:
    result = files.read_json(run / files.RESULT)
    worst = result['test']['by_class']['Pro']['dice']
    assert f'{result["test"]["dice"]:.3f}' in text
    assert f'{worst:.3f} (Pro)' in text
    rule = result['baselines']['colour_rule']
    assert f'| colour rule | {rule["images"]} | {rule["dice"]:.3f} |' in text
  assert 'masks by grey>128): unet Dice 0.918' in text
  # A run of another kind is refused.
  shutil.copy(ROOT / 'results/synthetic.json', runs[0] / files.RESULT)
  with pytest.raises(InputError, match='no run that makes masks'):
    study_report.write(workdir, [str(run) for run in runs])
  files.write_json(runs[0] / files.RESULT, {'task': 'segmentation'})
  with pytest.raises(InputError, match='unet_real/result.json is damaged'):
    study_report.write(workdir, [str(run) for run in runs])


def lost(workdir: pathlib.Path) -> int:
  """How many heads have a class of the test part that none is called."""
  rows = [files.read_json(path) for path in (workdir / 'rows').iterdir()]
  return sum(
    repeat['test']['worst_class_recall'] == 0
    for row in rows
    for repeat in row['repeats']
  )


@pytest.mark.full
def test_a_report_of_what_is_not_known_or_went_wrong(finished, tmp_path):
  workdir = shutil.copytree(finished, tmp_path / 'w')
  for path in (workdir / 'rows').iterdir():
    row = files.read_json(path)
    row['backbone'] |= {'flops_an_image': None, 'images_per_second': None}
    if row['number'] == 0:
      row['repeats'][1] |= {'diverged': True, 'best_epoch': 0}
      for part in ('train', 'validation', 'test'):
        row['repeats'][1][part]['loss'] = float('nan')
        row['repeats'][0][part]['worst_class_recall'] = 1.0
        row['repeats'][1][part]['worst_class_recall'] = 0.0
    files.write_json(path, row)
  text = study_report.write(workdir).read_text()
  # A head that diverged does not win, whatever its scores.
  lines = [ln for ln in text.splitlines() if ln.startswith('| 0.01 | 0.2 |')]
  assert lines and '| 1 |' in lines[0] and '**' not in lines[0]
  assert 'is not trained as the published rows were' in text
  assert 'theirs: imagenet' in text and 'theirs: 224' in text
  assert 'blocks [1, 1, 1] (theirs: [10, 20, 10])' in text
  assert f'{lost(workdir)} of 16 heads never find some class' in text
