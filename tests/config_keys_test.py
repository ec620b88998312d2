"""What a config refuses, by the table of keys."""

import pytest
from leukemia_jax.configs import default, unet

from leukemia_jax.config_check import check_config
from leukemia_jax.config_keys import keys
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
    ('data.image_size', 32, '75 or more'),
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
  def flat(config, prefix=''):
    for key, value in config.items():
      if hasattr(value, 'items'):
        yield from flat(value, f'{prefix}{key}.')
      else:
        yield prefix + key

  config = default.get_config()
  sections = tuple(f'study.{name}.' for name in config.study if '_' in name)
  named = {key for key in flat(config) if not key.startswith(sections)}
  assert named == {
    key for key in keys() if key.count('.') < 2 and key in set(flat(config))
  }
  assert set(keys()) <= set(flat(config))


def test_a_prefix_names_the_section_that_the_user_wrote():
  config = default.get_config()
  config.model.width = 0
  with pytest.raises(InputError, match=r'config\.study\.nasnet_large\.width=0'):
    check_config(config, 'config.study.nasnet_large')
