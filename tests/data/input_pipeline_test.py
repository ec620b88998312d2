"""A split of images with masks, where some masks are empty."""

import dataclasses

import conftest
import jax
import numpy as np
import pytest
from conftest import catalogue
from leukemia_jax.configs import default, unet

from leukemia_jax import build
from leukemia_jax.data import input_pipeline
from leukemia_jax.errors import InputError


def make_split(coverage):
  config = unet.get_config()
  config.data.drop_empty_masks = True
  images = dataclasses.replace(
    catalogue([0] * len(coverage)), coverage=np.asarray(coverage)
  )
  spec = build.inputs(config, 'masks').spec
  return input_pipeline.make_split(jax.random.key(0), images, spec)


def test_a_training_part_without_cells_is_refused():
  refused = 0
  for at in range(8):
    try:
      split = make_split(np.where(np.arange(8) == at, 0.3, 0))
    except InputError as error:
      assert 'leaves no image to train on' in str(error)
      refused += 1
    else:
      assert split.train.tolist() == [[at, 0]]
  # Of eight images one is held out for validation and one for the test.
  assert refused == 2


@pytest.mark.parametrize(
  ('parts', 'keys', 'warns'),
  [
    (['train', 'test'], {'folds': 2}, True),
    (['train', 'test'], {'protocol': 'balance_then_split'}, True),
    (['fold_0', 'fold_1'], {}, True),
    (['train', 'test'], {}, False),
    (['train', 'test'], {'folds': 2, 'split': 'random'}, False),
    (['fold_0', 'fold_1'], {'folds': 2, 'split': 'source'}, False),
    (['', ''], {'folds': 2}, False),
  ],
)
def test_parts_that_are_left_aside_are_named(parts, keys, warns, capsys):
  config = default.get_config()
  config.data.update(keys)
  known = catalogue([0, 1] * 4, parts=parts * 4)
  input_pipeline.warn_of_parts(build.inputs(config, 'classes').spec, known)
  printed = capsys.readouterr().out
  assert bool(printed) == warns
  if warns:
    assert f'({", ".join(sorted(parts))}) are left aside' in printed


def test_cells_alone_need_masks(tmp_path):
  for kind, count in (('Original', 6), ('Segmented', 6)):
    conftest.save_images(
      tmp_path / 'set' / kind, {'Benign': count, 'Pro': count}, size=75
    )
  config = default.get_config()
  config.data.source = str(tmp_path / 'set')
  config.data.cache_dir = str(tmp_path / 'cache')
  config.data.image_size = 75
  config.data.neutral_background = True
  spec = build.inputs(config, 'classes').spec
  data, catalogue = input_pipeline.load(spec)
  # A classifier learns classes, whatever was read besides.
  assert data.masks is None and data.targets is data.labels
  plain = spec._replace(removal=spec.removal._replace(neutral_background=False))
  originals, _ = input_pipeline.load(plain)
  after, before = np.asarray(data.images), np.asarray(originals.images)
  kept = (after == before).all(-1)
  np.testing.assert_allclose(kept.mean((1, 2)), catalogue.coverage, atol=0.01)
  assert (after[~kept] == 240).all()
  (tmp_path / 'set/Segmented/Pro/cell-2.png').unlink()
  with pytest.raises(InputError, match='neutral_background=True needs a mask'):
    input_pipeline.load(spec)


def test_a_class_without_cells_is_refused():
  with pytest.raises(InputError, match='all 8 masks of class 0 are empty'):
    make_split([0] * 8)


def test_images_that_are_in_no_part_are_counted():
  parts = ['train'] * 8 + ['test'] * 4
  labels = [0, 1] * 6
  # The first test images equal training images, turned or not.
  hashes = tuple(str(i if i < 8 else i - 8) for i in range(12))
  known = dataclasses.replace(
    catalogue(labels, parts=parts), pixel_hashes=hashes
  )
  config = default.get_config()
  spec = build.inputs(config, 'classes').spec
  split = input_pipeline.make_split(jax.random.key(0), known, spec)
  (warning,) = input_pipeline.warnings_of_split(split, known, spec.protocol)
  assert warning.startswith('4 images are in no part')
  alone = catalogue(labels, parts=parts)
  split = input_pipeline.make_split(jax.random.key(0), alone, spec)
  assert not input_pipeline.warnings_of_split(split, alone, spec.protocol)


def test_a_test_part_without_a_class_is_said():
  parts = ['train'] * 9 + ['test'] * 3
  known = catalogue([0, 1, 0] * 3 + [0] * 3, parts=parts)
  spec = build.inputs(default.get_config(), 'classes').spec
  split = input_pipeline.make_split(jax.random.key(0), known, spec)
  said = input_pipeline.warnings_of_split(split, known, spec.protocol)
  assert "the test part has no image of 'class 1'" in ' '.join(said)
