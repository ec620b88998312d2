"""Segmentation on the command line: training, other sets, refusals."""

import json
import pathlib

import numpy as np
import pytest
from command import SMALL_UNET, check_kills, refused, result, run
from PIL import Image

from leukemia_jax.data import synthetic, synthetic_cells


def save_pairs(folder: pathlib.Path, count: int = 4) -> pathlib.Path:
  """Smears with masks of 0 and 1, drawn by hand as it were."""
  import jax

  for tree in ('images', 'masks'):
    (folder / tree).mkdir(parents=True)
  for i in range(count):
    image, mask = synthetic.render_image(
      jax.random.key(9), i, i % 4, i, spec=synthetic_cells.SmearSpec(size=96)
    )
    Image.fromarray(image).save(folder / f'images/{i}.png')
    Image.fromarray(mask).save(folder / f'masks/{i}.png')
  return folder


@pytest.fixture(scope='module')
def drawn(tmp_path_factory) -> pathlib.Path:
  return save_pairs(tmp_path_factory.mktemp('drawn') / 'set')


@pytest.mark.full
def test_a_run_learns_and_shows_it(segmenter):
  got = result(segmenter)
  test = got['test']
  assert got['task'] == 'segmentation'
  assert test['dice'] > got['baselines']['background']['dice'] == 0
  assert test['dice'] > 0.4
  assert 0 < got['threshold'] < 1
  assert test['iou'] == pytest.approx(test['dice'] / (2 - test['dice']))
  assert set(test['by_class']) == set(synthetic.CLASSES)
  assert sum(c['images'] for c in test['by_class'].values()) == test['images']
  assert got['baselines']['colour_rule']['dice'] > 0.5
  report = (segmenter / 'report.md').read_text()
  for name in ('curves.svg', 'thresholds.svg', 'errors.png'):
    assert f']({name})' in report and (segmenter / name).exists()
  assert 'colour rule' in report and 'Hausdorff' in report


@pytest.mark.full
def test_its_own_set_is_scored_alike(segmenter, cache, tmp_path):
  where = [f'--workdir={tmp_path}/e', '--mode=evaluate']
  done = run(*where, f'--checkpoint={segmenter}', cache)
  assert done.returncode == 0, done.stderr
  one, two = result(segmenter), result(tmp_path / 'e')
  assert one['threshold'] == two['threshold']
  for part in ('train', 'validation', 'test'):
    assert one[part] == two[part]


@pytest.mark.full
def test_masks_drawn_by_hand_are_scored(segmenter, cache, drawn, tmp_path):
  flags = ['--mode=evaluate', f'--checkpoint={segmenter}', cache]
  flags += [f'--config.data.source={drawn}']
  error = refused(run(*flags, f'--workdir={tmp_path}/a'))
  assert 'all 4 masks are empty' in error and 'grey>0' in error
  flags += ['--config.data.mask_rule=grey>0']
  done = run(*flags, f'--workdir={tmp_path}/b')
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'b')
  assert got['test']['images'] == 4 and 'train' not in got
  assert got['threshold'] == result(segmenter)['threshold']
  assert list(got['test']['by_class']) == ['unlabelled']
  assert got['data']['masks']['rule'] == 'grey>0' and got['data']['scale'] == 1
  # The rule is the training run's: four images are no set to fit one to.
  assert got['baselines']['rule'] == result(segmenter)['baselines']['rule']
  done = run(*flags, f'--workdir={tmp_path}/c', '--config.data.scale=0.5')
  assert done.returncode == 0, done.stderr
  assert result(tmp_path / 'c')['test'] != got['test']


@pytest.mark.full
def test_controls_without_cells_are_scored(segmenter, cache, tmp_path):
  source = save_pairs(tmp_path / 'set')
  for tree in ('images', 'masks'):
    for i, name in enumerate(('cells', 'cells', 'controls', 'controls')):
      (source / tree / name).mkdir(exist_ok=True)
      file = source / f'{tree}/{i}.png'
      file.rename(source / f'{tree}/{name}/{i}.png')
  for file in (source / 'masks/controls').glob('*.png'):
    Image.fromarray(np.zeros((96, 96), np.uint8)).save(file)
  flags = [cache, f'--config.data.source={source}']
  flags += ['--config.data.mask_rule=grey>0']
  evaluate = ['--mode=evaluate', f'--checkpoint={segmenter}']
  done = run(*flags, *evaluate, f'--workdir={tmp_path}/e')
  assert done.returncode == 0, done.stderr
  assert 'masks of controls look broken' in done.stdout
  got = result(tmp_path / 'e')
  assert got['data']['masks']['by_class']['controls']['empty'] == 2
  background = got['baselines']['background']['by_class']['controls']
  assert background['dice'] == 1 and 'hausdorff_95' not in background
  assert 'look broken' in (tmp_path / 'e/report.md').read_text()
  # There is nothing to learn from such a class.
  error = refused(run(*SMALL_UNET, *flags, f'--workdir={tmp_path}/w'))
  assert 'all 2 masks of controls are empty' in error


@pytest.mark.full
def test_files_under_an_embargo_are_no_empty_masks(cache, tmp_path):
  source = save_pairs(tmp_path / 'set', count=12)
  flags = [*SMALL_UNET, cache, f'--config.data.source={source}']
  flags += ['--config.data.mask_rule=grey>0', '--config.train.epochs=1']
  flags += ['--config.data.grouping=contiguous', '--config.data.embargo=1']
  flags += ['--config.data.folds=3', '--config.data.fold=1']
  done = run(
    *flags, '--config.data.drop_empty_masks=True', f'--workdir={tmp_path}/w'
  )
  assert done.returncode == 0, done.stderr
  data = result(tmp_path / 'w')['data']
  assert data['masks']['dropped_empty'] == 0
  split = json.loads((tmp_path / 'w/split.json').read_text())['parts']
  listed = {i for part in split.values() for i, _ in part}
  assert data['in_no_part'] == 12 - len(listed) > 0
  lines = (tmp_path / 'w/report.md').read_text()
  assert f'Images in no part: {data["in_no_part"]}' in lines
  again = run(
    *flags, '--config.data.drop_empty_masks=True', f'--workdir={tmp_path}/w'
  )
  assert again.returncode == 0 and 'this run is finished' in again.stdout


@pytest.mark.full
def test_balanced_first_with_one_empty_mask_dropped(cache, tmp_path):
  source = save_pairs(tmp_path / 'set', count=12)
  for i in range(6):
    background = np.zeros((96, 96), np.uint8)
    Image.fromarray(background).save(source / f'masks/{i}.png')
  flags = [*SMALL_UNET, cache, f'--config.data.source={source}']
  flags += ['--config.data.mask_rule=grey>0', '--config.train.epochs=1']
  flags += ['--config.data.protocol=balance_then_split']
  flags += ['--config.data.drop_empty_masks=True']
  flags += ['--config.data.per_class=30']
  done = run(*flags, f'--workdir={tmp_path}/w')
  assert done.returncode == 0, done.stderr
  got = result(tmp_path / 'w')
  assert list(got['test']['by_class']) == ['unlabelled']
  split = json.loads((tmp_path / 'w/split.json').read_text())['parts']
  assert {i for i, _ in split['train']} <= set(range(12))
  cells = {i for i, _ in split['train']}
  # Ids are in natural order: the first six have empty masks.
  assert cells and not cells & set(range(6))
  assert any(copy for _, copy in split['train'])
  held_out = {i for p in ('validation', 'test') for i, _ in split[p]}
  dropped = 12 - len(cells | held_out)
  assert got['data']['masks']['dropped_empty'] == dropped
  assert got['data']['in_no_part'] == dropped
  assert 'with an empty mask left out of training' in done.stdout


@pytest.mark.full
def test_a_kill_changes_nothing(tmp_path, cache):
  check_kills(tmp_path, 1, *SMALL_UNET, cache)


@pytest.mark.full
def test_prepare_counts_what_masks_cover(cache, tmp_path):
  done = run(f'--workdir={tmp_path}/p', '--mode=prepare', *SMALL_UNET, cache)
  assert done.returncode == 0, done.stderr
  assert '| class | masks | mean share of cells | empty |' in done.stdout
  assert (tmp_path / 'p/masks.png').exists()


def refusal(source, tmp_path, *flags) -> str:
  where = [f'--config.data.cache_dir={tmp_path}/c', *flags]
  rule = '--config.data.mask_rule=grey>0'
  return refused(
    run(
      f'--workdir={tmp_path}/w',
      *SMALL_UNET,
      f'--config.data.source={source}',
      rule,
      *where,
    )
  )


@pytest.mark.full
def test_missing_and_extra_masks(tmp_path):
  source = save_pairs(tmp_path / 'set')
  (source / 'masks/1.png').rename(source / 'masks/one.png')
  error = refusal(source, tmp_path)
  assert 'images/1.png' in error and 'masks/one.png' in error
  assert 'on_bad_image=skip' in error
  done = run(
    f'--workdir={tmp_path}/p',
    '--mode=prepare',
    *SMALL_UNET,
    f'--config.data.source={source}',
    f'--config.data.cache_dir={tmp_path}/c',
    '--config.data.mask_rule=grey>0',
    '--config.data.on_bad_image=skip',
  )
  assert done.returncode == 0, done.stderr
  assert '1 images without a mask that can be used left out' in done.stdout


@pytest.mark.full
def test_a_mask_of_another_size(tmp_path):
  source = save_pairs(tmp_path / 'set')
  Image.new('L', (96, 90)).save(source / 'masks/2.png')
  error = refusal(source, tmp_path)
  assert 'masks/2.png: this mask is 96 x 90 px, its image 96 x 96' in error
  # All of them: that masks are there is not denied.
  for i in range(4):
    Image.new('L', (96, 90)).save(source / f'masks/{i}.png')
  assert 'masks/3.png: this mask is 96 x 90' in refusal(source, tmp_path)


@pytest.mark.full
def test_no_masks_at_all(tmp_path):
  source = save_pairs(tmp_path / 'set')
  for tree in ('images', 'masks'):
    (source / tree).rename(source / f'of {tree[0]}')
  assert 'has no masks' in refusal(source, tmp_path)
