"""Segmentation on the command line: training, other sets, refusals."""

import pathlib

import numpy as np
import pytest
from main_test import refused, result, run
from PIL import Image

from leukemia_jax.data import synthetic

SMALL = [
  '--config=configs/unet.py',
  '--config.synthetic.scale=0.03',
  '--config.data.image_size=48',
  '--config.model.width=0.125',
  '--config.model.depth=2',
  '--config.train.learning_rate=0.01',
  '--config.train.mask_loss=bce+dice',
  '--config.train.batch_size=4',
  '--config.train.epochs=12',
]


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> str:
  return f'--config.data.cache_dir={tmp_path_factory.mktemp("cache")}'


@pytest.fixture(scope='module')
def trained(tmp_path_factory, cache) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp('runs') / 'train'
  done = run(f'--workdir={workdir}', *SMALL, cache)
  assert done.returncode == 0, done.stderr
  assert 'test Dice' in done.stdout and 'Dice 0.' in done.stderr
  return workdir


def save_pairs(folder: pathlib.Path, count: int = 4) -> pathlib.Path:
  """Smears with masks of 0 and 1, drawn by hand as it were."""
  import jax

  for tree in ('images', 'masks'):
    (folder / tree).mkdir(parents=True)
  for i in range(count):
    image, mask = synthetic.render_image(
      jax.random.key(9), i, i % 4, i, spec=synthetic.SmearSpec(size=96)
    )
    Image.fromarray(image).save(folder / f'images/{i}.png')
    Image.fromarray(mask).save(folder / f'masks/{i}.png')
  return folder


@pytest.fixture(scope='module')
def drawn(tmp_path_factory) -> pathlib.Path:
  return save_pairs(tmp_path_factory.mktemp('drawn') / 'set')


def test_a_run_learns_and_shows_it(trained):
  got = result(trained)
  test = got['test']
  assert got['task'] == 'segmentation'
  assert test['dice'] > got['baselines']['all_ground']['dice'] == 0
  assert test['dice'] > 0.4
  assert 0 < got['threshold'] < 1
  assert test['iou'] == pytest.approx(test['dice'] / (2 - test['dice']))
  assert set(test['by_class']) == set(synthetic.CLASSES)
  assert sum(c['images'] for c in test['by_class'].values()) == test['images']
  assert got['baselines']['colour_rule']['dice'] > 0.5
  report = (trained / 'report.md').read_text()
  for name in ('curves.png', 'thresholds.png', 'errors.png'):
    assert f']({name})' in report and (trained / name).exists()
  assert 'colour rule' in report and 'Hausdorff' in report


@pytest.mark.full
def test_another_run_gives_the_same_result(trained, cache, tmp_path):
  done = run(f'--workdir={tmp_path}/w', *SMALL, cache)
  assert done.returncode == 0, done.stderr
  one, two = result(trained), result(tmp_path / 'w')
  del one['cost'], two['cost']
  assert one == two


def test_its_own_set_is_scored_alike(trained, cache, tmp_path):
  where = [f'--workdir={tmp_path}/e', '--mode=evaluate']
  done = run(*where, f'--checkpoint={trained}', cache)
  assert done.returncode == 0, done.stderr
  one, two = result(trained), result(tmp_path / 'e')
  assert one['threshold'] == two['threshold']
  for part in ('train', 'validation', 'test'):
    assert one[part] == two[part]


def test_masks_drawn_by_hand_are_scored(trained, cache, drawn, tmp_path):
  flags = ['--mode=evaluate', f'--checkpoint={trained}', cache]
  flags += [f'--config.data.source={drawn}']
  error = refused(run(*flags, f'--workdir={tmp_path}/a'))
  assert 'all 4 masks of images are empty' in error and 'grey>0' in error
  flags += ['--config.data.mask_rule=grey>0']
  done = run(*flags, f'--workdir={tmp_path}/b')
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'b')
  assert got['test']['images'] == 4 and 'train' not in got
  assert got['threshold'] == result(trained)['threshold']
  assert list(got['test']['by_class']) == ['images']
  done = run(*flags, f'--workdir={tmp_path}/c', '--config.data.scale=0.5')
  assert done.returncode == 0, done.stderr
  assert result(tmp_path / 'c')['test'] != got['test']


def test_prepare_counts_what_masks_cover(cache, tmp_path):
  done = run(f'--workdir={tmp_path}/p', '--mode=prepare', *SMALL, cache)
  assert done.returncode == 0, done.stderr
  assert '| class | masks | mean share of cells | empty |' in done.stdout
  assert (tmp_path / 'p/masks.png').exists()


def refusal(source, tmp_path, *flags) -> str:
  where = [f'--config.data.cache_dir={tmp_path}/c', *flags]
  rule = '--config.data.mask_rule=grey>0'
  return refused(
    run(
      f'--workdir={tmp_path}/w',
      *SMALL,
      f'--config.data.source={source}',
      rule,
      *where,
    )
  )


def test_missing_and_extra_masks(tmp_path):
  source = save_pairs(tmp_path / 'set')
  (source / 'masks/1.png').rename(source / 'masks/one.png')
  error = refusal(source, tmp_path)
  assert 'images/1.png' in error and 'masks/one.png' in error
  assert 'on_bad_image=skip' in error


def test_no_masks_at_all(tmp_path):
  source = save_pairs(tmp_path / 'set')
  for tree in ('images', 'masks'):
    (source / tree).rename(source / f'class {tree}')
  assert 'has no masks' in refusal(source, tmp_path)


def test_a_training_part_without_cells(tmp_path):
  source = save_pairs(tmp_path / 'set', count=8)
  for i in range(7):
    ground = np.zeros((96, 96), np.uint8)
    Image.fromarray(ground).save(source / f'masks/{i}.png')
  # Whichever part the one mask with cells is in, not both of these fail.
  errors = [
    run(
      f'--workdir={tmp_path}/w{seed}',
      '--mode=prepare',
      *SMALL,
      f'--config.data.cache_dir={tmp_path}/c',
      f'--config.data.source={source}',
      '--config.data.mask_rule=grey>0',
      '--config.data.drop_empty_masks=True',
      f'--config.seed={seed}',
    ).stderr
    for seed in range(4)
  ]
  assert any('leaves no image to train on' in error for error in errors)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--config.data.mask_rule=red>9'], 'config.data.mask_rule'),
    (['--config.train.accumulate=3'], 'must be a multiple'),
    (['--config.train.mask_loss=l2'], 'bce+dice'),
    (['--config=configs/default.py', '--config.model.checkpoint=True'], 'unet'),
    (['--config=configs/unet.py:large'], "there are 'small' and 'study'"),
  ],
)
def test_wrong_values(tmp_path, flags, words):
  assert words in refused(run(f'--workdir={tmp_path}/w', *flags_for(flags)))


def flags_for(flags: list[str]) -> list[str]:
  """A case's flags, by default on the U-Net's config."""
  if flags[0].startswith('--config='):
    return flags
  return ['--config=configs/unet.py', *flags]
