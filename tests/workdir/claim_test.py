"""Whose a workdir is."""

import json

import pytest
from leukemia_jax.configs import default

from leukemia_jax.errors import InputError
from leukemia_jax.workdir import claim


def test_the_same_config_claims_again_and_another_is_named(tmp_path):
  config = default.get_config()
  claim.claim(tmp_path / 'w', 'train', config)
  before = (tmp_path / 'w/config.json').read_bytes()
  # Where records are cached makes no other run.
  config.data.cache_dir = 'elsewhere'
  claim.claim(tmp_path / 'w', 'train', config)
  assert (tmp_path / 'w/config.json').read_bytes() == before
  config.model.blocks = (2, 1, 1)
  with pytest.raises(InputError) as caught:
    claim.check(tmp_path / 'w', 'train', config)
  text = str(caught.value)
  assert 'model.blocks: [1, 1, 1] saved, [2, 1, 1] now' in text
  assert 'cache_dir' not in text and 'epochs' not in text
  with pytest.raises(InputError, match='holds what --mode=train wrote; give'):
    claim.check(tmp_path / 'w', 'study', config)


def test_a_check_makes_no_folder(tmp_path):
  claim.check(tmp_path / 'a/b/c', 'train', default.get_config())
  assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize(
  ('number', 'words'),
  [
    (None, '0.1.0'),
    (1, '0.1.0'),
    (2, '0.2.0'),
    (3, '0.3.0'),
    (4, '0.4.0'),
    (6, 'of a later version'),
    ('x', 'later'),
  ],
)
def test_another_format_names_its_reader(tmp_path, number, words):
  claim.claim(tmp_path, 'train', default.get_config())
  path = tmp_path / 'config.json'
  content = json.loads(path.read_text())
  content['format'] = number
  if number is None:
    del content['format']
  path.write_text(json.dumps(content))
  with pytest.raises(InputError, match=words):
    claim.check(tmp_path, 'train', default.get_config())


def test_one_place_may_be_written_in_several_ways(tmp_path):
  config = default.get_config()
  config.data.source = str(tmp_path)
  claim.claim(tmp_path / 'w', 'study', config)
  config.data.source = f'{tmp_path}/'
  claim.check(tmp_path / 'w', 'study', config)
  config.data.source = str(tmp_path / 'w')
  with pytest.raises(InputError, match=r'data\.source'):
    claim.check(tmp_path / 'w', 'study', config)


def test_more_epochs_of_a_finished_run_say_how(tmp_path):
  config = default.get_config()
  claim.claim(tmp_path, 'train', config)
  (tmp_path / 'result.json').write_text('{}')
  config.train.epochs += 5
  with pytest.raises(InputError, match=r'--config\.model\.weights='):
    claim.check(tmp_path, 'train', config)
