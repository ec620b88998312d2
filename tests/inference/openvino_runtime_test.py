"""Networks in OpenVINO say what they say in JAX."""

import csv
import functools
import subprocess
import sys

import jax
import numpy as np
import pytest
from command import refused, run
from conftest import ROOT
from PIL import Image

import leukemia_jax
from leukemia_jax import parallel
from leukemia_jax.data import decode
from leukemia_jax.errors import InputError
from leukemia_jax.inference import classifier, openvino_runtime
from leukemia_jax.metrics import outliers
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.workdir import saved

pytestmark = pytest.mark.full

# What bfloat16 rounds, 8 bits of a number, through all layers of a network.
TOLERANCE = {'float32': 1e-4, 'bfloat16': 0.05}


def in_openvino(folder, dtype):
  compile_network = functools.partial(
    openvino_runtime.compile_network, dtype=dtype
  )
  trained = saved.load_trained(folder)
  return classifier.make(
    trained, folder, Rates(0.05, 0.95), None, compile_network
  )


@pytest.fixture(scope='module')
def images(smear) -> list[np.ndarray]:
  return [smear, smear[::-1], smear[:150], 255 - smear, smear[:, :90]]


@pytest.mark.parametrize('scale', [1.0, 1.5])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_classifiers_answer_alike(trained, images, scale, dtype):
  own = classifier.make(saved.load_trained(trained), trained, Rates(0.05, 0.95))
  squares = np.stack(
    [decode.to_scale(Image.fromarray(x), own.image_size, scale) for x in images]
  )
  expected, got = (
    [np.asarray(part) for part in net.step(net.variables, squares)]
    for net in (own, in_openvino(trained, dtype))
  )
  tolerance = TOLERANCE[dtype]
  np.testing.assert_allclose(got[0], expected[0], atol=tolerance)
  features = expected[1]
  np.testing.assert_allclose(
    got[1], features, atol=tolerance * np.ptp(features), rtol=0
  )
  # Images differ by more than runtimes do.
  assert np.ptp(features, axis=0).max() > 4 * np.abs(got[1] - features).max()
  if dtype == 'float32':
    # What flags are made of: channels that hardly vary count for much in it.
    known, far = (
      outliers.distances(own.detector, x) for x in (features, got[1])
    )
    np.testing.assert_allclose(far, known, rtol=0.01)


def test_threads_get_their_own_answers(trained):
  own = in_openvino(trained, 'bfloat16')
  rng = np.random.default_rng(0)
  shape = (24, 1, own.image_size, own.image_size, 3)
  images = rng.integers(0, 256, shape, np.uint8)
  jobs = [lambda x=x: own.step(own.variables, x)[1] for x in images]
  alone = [job() for job in jobs]
  together = list(parallel.in_order(jobs, 4, 8))
  np.testing.assert_array_equal(together, alone)


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
  assert 'networks are converted first' in done.stdout
  with (tmp_path / 'new/predictions.csv').open(newline='') as stream:
    (row,) = csv.DictReader(stream)
  assert row['path'] == 'a.png'
  # Answers of two runtimes don't share a folder.
  assert 'runtime' in refused(run(*flags))


def test_it_reports_to_nobody():
  code = (
    'from leukemia_jax.inference import openvino_runtime;'
    'openvino_runtime._openvino();'
    'from openvino.tools.ovc import telemetry_utils;'
    'print(telemetry_utils.tm.__name__);'
    # What hides it is gone.
    'import openvino_telemetry'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.split() == ['openvino.tools.ovc.telemetry_stub'], (
    done.stderr
  )
  assert not done.returncode, done.stderr


def test_a_network_that_cannot_be_converted_is_said():
  def network(variables, images):
    return (jax.pure_callback(np.asarray, images, images),)

  run = openvino_runtime.compile_network(network, dtype='float32')
  with pytest.raises(InputError, match='cannot be converted for OpenVINO'):
    run({}, np.zeros((1, 8, 8, 3), np.uint8))


def test_an_unknown_runtime_is_refused(trained):
  with pytest.raises(InputError, match="runtime='tpu' must be 'jax' or"):
    leukemia_jax.load(trained, runtime='tpu')


def test_without_the_extra_it_says_what_to_install(trained, monkeypatch):
  monkeypatch.setitem(sys.modules, 'openvino', None)
  with pytest.raises(InputError, match=r"pip install 'leukemia_jax\[openvino"):
    leukemia_jax.load(trained, runtime='openvino')
