"""The Python interface: files and arrays in, tables and arrays out."""

import ast
import csv
import os

import conftest
import numpy as np
import pandas as pd
import pytest
from leukemia_jax.configs import default
from PIL import Image

import leukemia_jax
from leukemia_jax.commands import predict
from leukemia_jax.errors import InputError


@pytest.fixture(scope='module')
def both(trained, segmenter):
  return leukemia_jax.load(trained, segmenter)


@pytest.mark.full
def test_predictions_are_the_command_s(both, trained, smear, tmp_path):
  (tmp_path / 'set').mkdir()
  images = [smear, smear[::-1], smear[:150]]
  for i, image in enumerate(images):
    Image.fromarray(image).save(tmp_path / f'set/{i}.png')
  paths = sorted((tmp_path / 'set').iterdir())
  keys = {'predict.scale': '1'}
  predict.run(
    keys, tmp_path / 'w', [trained], str(tmp_path / 'set'), shard=(0, 1)
  )
  table = both.predict([paths[0], *images[1:]])
  # Whatever gives images one after the other.
  pd.testing.assert_frame_equal(both.predict(iter(paths)), both.predict(paths))
  both.predict(paths[:1], scale=np.float32(1))
  with (tmp_path / 'w/predictions.csv').open(newline='') as stream:
    written = list(csv.DictReader(stream))
  assert list(table.columns) == list(written[0])
  assert list(table['path']) == [str(paths[0]), '', '']
  for name in table.columns[1:]:
    theirs = [row[name] for row in written]
    if name in ('predicted_class', 'flags'):
      assert list(table[name]) == theirs
    else:
      got = table[name].to_numpy()
      np.testing.assert_allclose(got, np.array(theirs, float), atol=1e-5)


@pytest.mark.full
def test_cells_are_arrays_and_a_table(both, smear):
  images = [smear, smear[:150]]
  instances, cells = both.instances(images), both.cells(images)
  for i, (own, image) in enumerate(zip(instances, images, strict=True)):
    assert own.shape == image.shape[:2] and own.dtype == np.int32
    numbers = cells['number'][cells['image'] == i]
    assert list(numbers) == list(range(1, own.max() + 1))


@pytest.mark.full
def test_only_what_is_asked_for_is_computed(both):
  # Cells are not looked for in it, its class is.
  narrow = np.full((8, 2000, 3), 200, np.uint8)
  assert len(both.predict([narrow])) == 1
  with pytest.raises(InputError, match='too narrow'):
    both.instances([narrow])


@pytest.mark.full
def test_scale_is_asked_for_and_used(both, smear):
  middle = smear[56:168, 56:168]
  factor = both.measure_scale([middle])
  assert 0.4 < factor < 0.6
  scaled, plain = (
    both.predict([middle], scale=own)['p_Pro'][0] for own in (factor, 1)
  )
  assert scaled != plain


@pytest.mark.full
def test_what_is_refused(trained, segmenter, both, smear, tmp_path):
  with pytest.raises(InputError, match='uint8'):
    both.predict([smear.astype(float)])
  (tmp_path / 'bad.png').write_bytes(b'bad')
  with pytest.raises(InputError, match='bad.png: not an image'):
    both.predict([smear, tmp_path / 'bad.png'])
  with pytest.raises(InputError, match='cannot be read'):
    both.predict([tmp_path / 'gone.png'])
  with pytest.raises(InputError, match='image 0: an array must be uint8'):
    both.predict([np.zeros((9, 9, 4), np.uint8)])
  with pytest.raises(InputError, match='need a segmenter'):
    leukemia_jax.load(trained).instances([smear])
  with pytest.raises(InputError, match='needs a classifier'):
    leukemia_jax.load(segmenter).predict([smear])
  with pytest.raises(InputError, match='config.json is missing'):
    leukemia_jax.load(tmp_path)
  with pytest.raises(InputError, match='give'):
    leukemia_jax.load()


def test_train_gives_the_result(trained, cache):
  from command import SMALL

  config = default.get_config()
  for flag in [*SMALL, cache]:
    key, _, value = flag.removeprefix('--config.').partition('=')
    if '/' not in value:  # a path
      value = ast.literal_eval(value)
    config.update_from_flattened_dict({key: value})
  got = leukemia_jax.train(config, trained)
  assert got.test.images > 0
  config.train.epochs = 0
  with pytest.raises(InputError, match='train.epochs'):
    leukemia_jax.train(config, trained)


def test_train_refuses_what_the_command_line_does(tmp_path):
  conftest.save_images(tmp_path / 'set', {'a': 4, 'b': 4})
  config = default.get_config()
  config.data.source = str(tmp_path / 'set')
  with pytest.raises(InputError, match='lies in config.data.source'):
    leukemia_jax.train(config, tmp_path / 'set/run')
  config.data.scale = 0.5
  with pytest.raises(InputError, match='goes together with --mode=evaluate'):
    leukemia_jax.train(config, tmp_path / 'run')


@pytest.mark.full
@pytest.mark.parametrize(
  ('images', 'scale', 'words'),
  [
    (np.zeros((9, 9, 3), np.uint8), 1.0, 'give a list of images'),
    ('a.png', 1.0, 'give a list of images'),
    ([None], 1.0, 'image 0: give a path or a uint8 array, not NoneType'),
    ([b'a.png'], 1.0, 'not bytes'),
    ([np.zeros((9, 9, 3), np.uint8)], 0, 'scale=0 must be above 0'),
    ([np.zeros((9, 9, 3), np.uint8)], float('nan'), 'scale=nan must be'),
    ([np.zeros((9, 9, 3), np.uint8)], 'auto', "scale='auto' must be"),
  ],
)
def test_what_is_no_list_of_images_is_refused(both, images, scale, words):
  with pytest.raises(InputError, match=words):
    both.predict(images, scale=scale)


@pytest.mark.full
def test_a_pipe_is_no_image(both, tmp_path):
  os.mkfifo(tmp_path / 'a.png')
  with pytest.raises(InputError, match='no plain file'):
    both.predict([tmp_path / 'a.png'])
