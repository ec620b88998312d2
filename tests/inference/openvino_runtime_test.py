"""Networks in OpenVINO say what they say in JAX."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from command import refused, run
from conftest import ROOT
from PIL import Image

import leukemia_jax
from leukemia_jax.data import decode
from leukemia_jax.errors import InputError
from leukemia_jax.inference import loading
from leukemia_jax.workdir import saved

pytestmark = pytest.mark.full

# What bfloat16 rounds, 8 bits of a number, through all layers of a network.
ROUNDED = 0.05


def loaded(folder, runtime):
  trained = saved.load_trained(folder)
  return loading.load([trained], [folder], trained.config, runtime=runtime)


@pytest.fixture(scope='module')
def images(smear) -> list[np.ndarray]:
  return [smear, smear[::-1], smear[:150], 255 - smear, smear[:, :90]]


@pytest.mark.parametrize('scale', [1.0, 1.5])
def test_classifiers_answer_alike(trained, images, scale):
  own, theirs = (
    loaded(trained, name).models.classifiers[0] for name in ('jax', 'openvino')
  )
  squares = np.stack(
    [decode.to_scale(Image.fromarray(x), own.image_size, scale) for x in images]
  )
  expected, got = (
    [np.asarray(part) for part in net.step(net.variables, squares)]
    for net in (own, theirs)
  )
  np.testing.assert_allclose(got[0], expected[0], atol=ROUNDED)
  features = expected[1]
  np.testing.assert_allclose(
    got[1], features, atol=ROUNDED * np.ptp(features), rtol=0
  )
  # Images differ by more than runtimes do.
  assert np.ptp(features, axis=0).max() > 4 * np.abs(got[1] - features).max()
  again = theirs.step(theirs.variables, squares)
  np.testing.assert_array_equal(again[1], got[1])


def test_segmenters_find_the_same_cells(segmenter, images):
  own, theirs = (
    leukemia_jax.load(segmenter, runtime=name).instances(images[:1])[0] > 0
    for name in ('jax', 'openvino')
  )
  assert own.any() and (own & theirs).sum() / (own | theirs).sum() > 0.95


def test_the_command_says_what_it_ran_in(trained, smear, tmp_path):
  Image.fromarray(smear).save(tmp_path / 'a.png')
  flags = (
    *('--mode=predict', f'--workdir={tmp_path / "new"}'),
    *(f'--checkpoint={trained}', f'--input={tmp_path / "a.png"}'),
    '--config.predict.scale=1',
  )
  done = run(*flags, '--runtime=openvino')
  assert done.returncode == 0, done.stderr
  with (tmp_path / 'new/predictions.csv').open(newline='') as stream:
    (row,) = csv.DictReader(stream)
  assert row['path'] == 'a.png'
  # Answers of two runtimes don't share a folder.
  assert 'runtime' in refused(run(*flags))


def test_it_reports_to_nobody():
  code = (
    'import sys; from leukemia_jax.inference import openvino_runtime;'
    'openvino_runtime._openvino(); print(sys.modules["openvino_telemetry"])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.split() == ['None'], done.stderr


def test_an_unknown_runtime_is_refused(trained):
  with pytest.raises(InputError, match="runtime='tpu' must be 'jax' or"):
    leukemia_jax.load(trained, runtime='tpu')


def test_without_the_extra_it_says_what_to_install(trained, monkeypatch):
  monkeypatch.setitem(sys.modules, 'openvino', None)
  with pytest.raises(InputError, match=r"pip install 'leukemia_jax\[openvino"):
    leukemia_jax.load(trained, runtime='openvino')
