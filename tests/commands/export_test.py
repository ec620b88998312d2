"""--mode=export: files that answer what the run's model does."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from command import SMALL_UNET, refused, run
from conftest import ROOT
from safetensors.numpy import save

import leukemia_jax
from leukemia_jax.commands.export import KERAS, ONNX, STABLEHLO
from leukemia_jax.errors import InputError
from leukemia_jax.inference import exported
from leukemia_jax.pretrained import keras_weights, safetensors_files
from leukemia_jax.workdir import description, saved

# What a program elsewhere does; all that it needs is imported first.
READER = """
import sys
import flatbuffers
import jax
import numpy as np
from jax import export

with open(sys.argv[1], 'rb') as stream:
  model = export.deserialize(bytearray(stream.read()))
images = np.load(sys.argv[2])
np.savez(sys.argv[3], *model.call(images))
packages = {name.split('.')[0] for name in sys.modules}
assert not packages & {'leukemia_jax', 'flax', 'optax', 'orbax', 'PIL', 'pix'}
"""


@pytest.fixture
def folder(once, trained):
  """The run of `trained`, exported."""

  def export(folder):
    done = run(
      '--mode=export', f'--workdir={folder}', f'--checkpoint={trained}'
    )
    assert done.returncode == 0, done.stderr
    assert 'not a medical device' in done.stdout
    assert done.stdout.count('answers what the model does') == 2

  return once('exported', export)


@pytest.mark.full
def test_a_program_without_this_package_gets_the_same(
  folder, trained, tmp_path
):
  own = description.read(folder)
  images = exported.smears(own.image_size)
  np.save(tmp_path / 'images.npy', images)
  paths = folder / STABLEHLO, tmp_path / 'images.npy', tmp_path / 'out.npz'
  done = subprocess.run(
    [sys.executable, '-c', READER, *map(str, paths)],
    # Not from a checkout's folder.
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  with np.load(tmp_path / 'out.npz') as arrays:
    probabilities, distances = arrays['arr_0'], arrays['arr_1']
  model = leukemia_jax.load(trained)
  table = model.predict(list(images))
  assert list(model.class_names) == own.classes
  expected = table[[f'p_{name}' for name in own.classes]].to_numpy()
  np.testing.assert_allclose(probabilities, expected, atol=1e-5)
  flags = [flags.split(';') for flags in table['flags']]
  assert [x > 1 for x in distances] == [
    'unlike the training images' in own_flags for own_flags in flags
  ]
  # Which classes are possible can be told from what model.json says.
  possible = (probabilities >= own.least_probability).sum(1)
  assert [count > 1 for count in possible] == [
    'uncertain' in own_flags for own_flags in flags
  ]


@pytest.mark.full
def test_onnxruntime_gets_the_same(folder):
  images = exported.smears(description.read(folder).image_size)
  first, second = (
    load((folder / name).read_bytes())(images)
    for name, load in (
      (STABLEHLO, exported.run_stablehlo),
      (ONNX, exported.run_onnx),
    )
  )
  for own, theirs in zip(first, second, strict=True):
    np.testing.assert_allclose(own, theirs, atol=1e-4)


@pytest.mark.full
def test_the_lines_of_the_docs_run(folder, monkeypatch):
  monkeypatch.chdir(folder)
  text = (ROOT / 'docs/export.md').read_text()
  programs = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert len(programs) == 2
  for code in programs:
    names: dict = {}
    exec(code.replace('112', '75'), names)
    assert names['probabilities'].shape == (5, 4)
    assert names['distance'].shape == (5,)


@pytest.mark.full
def test_weights_come_back(folder, trained):
  own, source = description.read(folder), saved.load_trained(trained)
  jax.tree.map(
    np.testing.assert_array_equal,
    safetensors_files.read(folder / description.WEIGHTS),
    dict(source.variables),
  )
  backbone = keras_weights.load_weights(
    folder / KERAS,
    own.architecture.name,
    width=own.architecture.width,
    blocks=tuple(own.architecture.blocks),
  )
  for collection, tree in backbone.items():
    jax.tree.map(
      np.testing.assert_array_equal,
      tree['backbone'],
      source.variables[collection]['backbone'],
    )


@pytest.mark.full
def test_masks_are_exported(segmenter, tmp_path):
  done = run(
    '--mode=export', f'--workdir={tmp_path}', f'--checkpoint={segmenter}'
  )
  assert done.returncode == 0, done.stderr
  own = description.read(tmp_path)
  assert own.classes == [] and own.threshold is not None
  images = exported.smears(own.image_size)
  for name, load in (
    (STABLEHLO, exported.run_stablehlo),
    (ONNX, exported.run_onnx),
  ):
    probabilities, masks = load((tmp_path / name).read_bytes())(images)
    np.testing.assert_array_equal(masks, probabilities > own.threshold)
    assert 0 < np.mean(masks) < 1


@pytest.mark.full
def test_a_unet_with_batch_norms_has_no_file_of_keras(cache, tmp_path):
  own = f'--workdir={tmp_path}/w', '--config.model.batch_norm=True'
  done = run(*SMALL_UNET, *own, cache, '--config.train.epochs=1')
  assert done.returncode == 0, done.stderr
  folder = tmp_path / 'exported'
  done = run(
    '--mode=export', f'--workdir={folder}', f'--checkpoint={tmp_path}/w'
  )
  assert done.returncode == 0, done.stderr
  assert f'{KERAS} is not written' in done.stdout
  assert not (folder / KERAS).exists()
  assert description.read(folder).files.keys() == {
    *(STABLEHLO, ONNX, description.WEIGHTS)
  }


def test_two_runs_are_refused(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'config.json').write_text('{}')
  error = refused(
    run(
      '--mode=export',
      f'--workdir={tmp_path}/w',
      *(f'--checkpoint={tmp_path}/{name}' for name in ('a', 'b')),
    )
  )
  assert '--mode=export takes one run' in error


def test_damaged_files_are_named(tmp_path):
  variables = {'params': {'a': {'b': np.ones((2, 3), np.float32)}}}
  content = safetensors_files.to_bytes(variables)
  path = tmp_path / description.WEIGHTS
  path.write_bytes(content)
  again = safetensors_files.read(path)
  np.testing.assert_array_equal(again['params']['a']['b'], np.ones((2, 3)))
  assert again['batch_stats'] == {}
  path.write_bytes(content[:-1])
  with pytest.raises(InputError, match='cannot be read'):
    safetensors_files.read(path)
  for name in ('params', 'others/a/b'):
    path.write_bytes(save({name: np.ones(2, np.float32)}))
    with pytest.raises(InputError, match=f'{name} is of none of'):
      safetensors_files.read(path)
  both = {'params/a': np.ones(2, np.float32), 'params/a/b': np.ones(2, 'f4')}
  path.write_bytes(save(both))
  with pytest.raises(
    InputError, match='params/a is the beginning of params/a/b'
  ):
    safetensors_files.read(path)
  variables['params']['a']['b'][0, 0] = np.inf
  path.write_bytes(safetensors_files.to_bytes(variables))
  with pytest.raises(InputError, match='params/a/b is not of finite float32'):
    safetensors_files.read(path)
  (tmp_path / description.NAME).write_text(json.dumps({'format': 5}))
  with pytest.raises(InputError, match=r'model\.json is damaged'):
    description.read(tmp_path)
