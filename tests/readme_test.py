"""The README: its numbers are those of the result files, its flags exist."""

import importlib.util
import json
import re
import sys

import jax
import numpy as np
import pytest
import rows
import tables
from conftest import ROOT

from leukemia_jax import models
from leukemia_jax.models import keras_import

README = (ROOT / 'README.md').read_text()


def load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_numbers_are_rendered_from_the_result_files():
  assert tables.render(README) == README


def test_result_files_say_how_they_were_made():
  fingerprints = set()
  for name in rows.RUNS | rows.SEGMENTATION:
    got = json.loads((ROOT / f'results/{name}.json').read_text())
    assert got['command'].startswith('python main.py --workdir=')
    assert re.fullmatch('[0-9a-f]{64}', got['parameters_sha256'])
    if 'real' in name:
      fingerprints.add(got['data']['fingerprint'])
      assert got['data']['images'] == 3256
  for name, (_, flags) in (rows.BACKBONES | rows.STUDIES).items():
    got = json.loads((ROOT / f'results/{name}.json').read_text())
    # Changed flags are not shown beside what others made.
    assert got['command'] == rows.shown_command(name, flags)
    fingerprints.add(got.get('fingerprint') or got['data']['fingerprint'])
  # All real rows are of one and the same set.
  assert len(fingerprints) == 1


def test_flags_and_files_exist():
  default = load(ROOT / 'configs/default.py').get_config()
  for key in re.findall(r'--config\.([\w.]+)', README):
    value = default
    for part in key.split('.'):
      value = value[part]
  for path in re.findall(r'(?:configs|results)/[\w.]+', README):
    assert (ROOT / path).exists(), path
  for path in re.findall(r'\]\((?!http)([^)]+)\)', README):
    assert (ROOT / path).exists(), path


def test_two_commands_do_all_their_set_up():
  lines = [
    line for line in README.splitlines() if line.startswith('python3 -m')
  ]
  assert len(lines) == 2
  run, tests = lines
  assert '--workdir=runs/first' in run and 'main.py' in run
  assert tests.endswith('-m pytest')
  assert 'pip install' in run and 'pip install' in tests
  assert 'not a medical device' in README


@pytest.mark.full
def test_the_python_lines_run(tmp_path, monkeypatch):
  model = models.create('nasnet_mobile', num_classes=0)
  images = np.zeros((1, 32, 32, 3), np.float32)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  variables = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes)
  monkeypatch.chdir(tmp_path)
  keras_import.export_weights(variables, 'weights.h5', 'nasnet_mobile')
  (code,) = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
  names = {'images': images}
  exec(code, names)
  assert names['features'].shape == (1, 1, 1, 1056)
  assert (tmp_path / 'for_keras.weights.h5').exists()


def test_nothing_speaks_of_where_it_was_made():
  assert sys.executable not in README
  for kind in ('json', 'md', 'csv'):
    for path in (ROOT / 'results').glob(f'*.{kind}'):
      assert '/tmp/' not in path.read_text()
      assert '../' not in path.read_text()
