"""What a config refuses, by the table of keys."""

import pytest
from leukemia_jax.configs import default, unet

from leukemia_jax.config_check import check_config, check_mode, override
from leukemia_jax.config_keys import flatten, keys
from leukemia_jax.errors import InputError


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('model.name', 'resnet50', "one of 'inception_resnet_v2'"),
    ('data.protocol', 'balance', "one of 'split_then_balance'"),
    ('data.option', 3, 'one of 1, 2'),
    ('model.dropout_rate', 1.0, 'from 0 to below 1'),
    ('train.learning_rate', 0.0, 'above 0'),
    ('train.epochs', 0, 'from 1 to'),
    ('augment.jpeg_quality', (0, 50), r'1\.\.100'),
    ('augment.fill', 'wrap', "'edge', 'constant'"),
    ('model.blocks', (1, 2), 'three numbers'),
    ('model.weights', 'imagenet', r'needs config\.model\.width=1\.0'),
    ('model.depth', 2, 'must be 0'),
    ('model.blocks', (), 'three numbers'),
    ('data.label', 'a{99999999999}', 'a regular expression'),
    ('seed', -1, 'from 0 to'),
    ('data.mask_rule', 'red>9', 'max_channel>60'),
    ('data.smallest_cell', 0.0, 'above 0'),
    ('train.mask_loss', 'l2', r'bce\+dice'),
  ],
)
def test_wrong_values_are_named(key, value, words):
  config = default.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=rf'config\.{key}=.*{words}'):
    check_config(config)


@pytest.mark.parametrize(
  ('config', 'key', 'value', 'words'),
  [
    (unet, 'train.accumulate', 3, 'config.train.batch_size=16 must be a mult'),
    (unet, 'train.freeze_backbone', True, 'unet has no backbone'),
    (unet, 'evaluate.recalibrate', 8, 'it is for classifiers'),
    (default, 'model.remat', True, 'must be False for inception_resnet_v2'),
  ],
)
def test_values_that_do_not_fit_the_rest_are_named(config, key, value, words):
  config = config.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=words):
    check_config(config)


@pytest.mark.parametrize(
  ('section', 'key', 'words'),
  [
    (
      'data',
      'sorce',
      'no key config.data.sorce; did you mean config.data.',
    ),
    ('augment', 'rotate', 'did you mean config.augment.rotation'),
    ('study', 'resnet', 'no key config.study.resnet'),
  ],
)
def test_keys_that_nobody_reads_are_named(section, key, words):
  config = default.get_config()
  config[section][key] = 1
  with pytest.raises(InputError, match=words):
    check_config(config)


@pytest.mark.parametrize(
  ('config', 'mode', 'key', 'value', 'words'),
  [
    (default, 'train', 'data.image_size', 32, '75 or more'),
    (default, 'train', 'data.scale', 0.5, 'goes together with --mode=evaluate'),
    (default, 'train', 'study.row', 3, 'goes together with --mode=study'),
    (default, 'train', 'train.mask_loss', 'focal', 'is for unet, unet_fpn'),
    (default, 'train', 'data.drop_empty_masks', True, 'is for unet'),
    (default, 'train', 'train.freeze_backbone', True, 'needs config.model.wei'),
    (unet, 'train', 'train.loss', 'keras_clipped', 'not for unet'),
    (unet, 'train', 'data.hide_corners', True, 'it is for classifiers'),
    (
      default,
      'study',
      'model.weights',
      'imagenet',
      'study.NAME.weights',
    ),
    (default, 'study', 'train.learning_rate', 0.1, 'study.learning_rates'),
  ],
)
def test_what_a_mode_would_leave_aside_is_named(
  config, mode, key, value, words
):
  config = config.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=words):
    check_mode(config, mode, [key])


@pytest.mark.parametrize('mode', ['prepare', 'audit', 'study'])
def test_modes_that_train_no_such_network_take_any_size(mode):
  config = default.get_config()
  config.data.image_size = 64
  check_config(config)
  check_mode(config, mode)


@pytest.mark.parametrize(
  ('mode', 'key', 'value'),
  [
    ('evaluate', 'predict.coverage', 0.9),
    ('export', 'predict.scale', 0.5),
    ('serve', 'predict.sheet', 5),
    ('predict', 'model.width', 0.5),
  ],
)
def test_keys_that_a_command_has_no_use_for_are_refused(mode, key, value):
  with pytest.raises(InputError, match=f'config.{key} .*--mode={mode}'):
    override(default.get_config(), {key: value}, mode)


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
def test_wrong_values_of_a_study_are_named(key, value, words):
  config = default.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=rf'config\.{key}=.*{words}'):
    check_config(config)


def test_the_table_holds_every_key_but_those_of_a_backbones_section():
  config = default.get_config()
  sections = tuple(f'study.{name}.' for name in config.study if '_' in name)
  named = {key for key in flatten(config) if not key.startswith(sections)}
  assert named == set(keys())


def test_a_prefix_names_the_section_that_the_user_wrote():
  config = default.get_config()
  config.model.width = 0
  with pytest.raises(InputError, match=r'config\.study\.nasnet_large\.width=0'):
    check_config(config, 'config.study.nasnet_large')
