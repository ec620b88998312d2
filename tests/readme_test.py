"""The README: its numbers are those of the result files, its flags exist."""

import json
import re
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT
from leukemia_jax.configs import default

from leukemia_jax import models
from leukemia_jax.pretrained import keras_weights
from reproduce import rows, tables

README = (ROOT / 'README.md').read_text()
DOCS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('page', tables.PAGES, ids=lambda page: page.name)
def test_numbers_are_rendered_from_the_result_files(page):
  text = page.read_text()
  assert tables.render(text, page) == text
  assert '<!--' in text


def test_result_files_say_how_they_were_made():
  fingerprints = set()
  runs = rows.RUNS | rows.CROSS_VALIDATION | rows.COUNTER_MEASURES
  runs |= rows.SEGMENTATION | rows.BACKBONES
  audits = json.loads((ROOT / 'results/audits.json').read_text())
  for name, (_, flags) in (runs | rows.STUDIES | rows.AUDITS).items():
    path = ROOT / f'results/{name}.json'
    got = audits[name] if name in audits else json.loads(path.read_text())
    # Changed flags are not shown beside what others made.
    assert got['command'] == rows.typed_command(name, flags), name
    if name in runs:
      assert re.fullmatch('[0-9a-f]{64}', got['parameters_sha256'])
    if 'leukemia.zip' in got['command']:
      fingerprints.add(got.get('fingerprint') or got['data']['fingerprint'])
    if name in runs and 'real' in name:
      assert got['data']['images'] == 3256
  # All real rows are of one and the same set.
  assert len(fingerprints) == 1


def test_flags_and_files_exist():
  text = ''.join(page.read_text() for page in DOCS)
  config = default.get_config()
  for key in re.findall(r'--config\.([a-z][\w.]+)', text):
    value = config
    for part in key.split('.'):
      value = value[part]
  for path in re.findall(r'(?:configs|results)/[a-z]\w+\.\w+', text):
    assert (ROOT / path).exists(), path
  for page in DOCS:
    for path in re.findall(r'\]\((?!http)([^)]+)\)', page.read_text()):
      assert (page.parent / path).exists(), (page, path)


def test_it_is_one_page_in_the_order_that_was_promised():
  assert len(README.splitlines()) <= 150
  headings = re.findall(r'^## (.+)$', README, re.MULTILINE)
  assert headings == [
    'Two commands',
    'Your own images',
    'New images',
    'Segmentation',
    'The study: 48 runs from one command',
    'Results',
    'Python',
    'Models and weights',
    'Limits',
    'Citation',
  ]


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


def python_lines(page) -> str:
  (code,) = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
  return code


@pytest.mark.full
def test_the_readmes_python_lines_run(trained):
  names = {'images': [np.zeros((75, 75, 3), np.uint8)] * 2}
  exec(
    python_lines(ROOT / 'README.md').replace('runs/first', str(trained)), names
  )
  assert len(names['table']) == 2


@pytest.mark.full
def test_the_lines_on_predictions_run(trained, segmenter, smear):
  names = {'images': [smear, smear[::-1]]}
  code = python_lines(ROOT / 'docs/predict.md')
  code = code.replace('runs/mine', str(trained))
  exec(code.replace('runs/cells', str(segmenter)), names)
  assert len(names['table']) == len(names['instances']) == 2
  assert 0 < names['scale'] and 'diameter' in names['cells']


@pytest.mark.full
def test_the_docs_python_lines_run(tmp_path, monkeypatch):
  model = models.create('nasnet_mobile', num_classes=0)
  images = np.zeros((1, 32, 32, 3), np.float32)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  variables = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes)
  monkeypatch.chdir(tmp_path)
  keras_weights.export_weights(variables, 'weights.h5', 'nasnet_mobile')
  names = {'images': images}
  exec(python_lines(ROOT / 'docs/models.md'), names)
  assert names['features'].shape == (1, 1, 1, 1056)
  assert (tmp_path / 'for_keras.weights.h5').exists()


def test_nothing_speaks_of_where_it_was_made():
  assert sys.executable not in README
  for kind in ('json', 'md', 'csv'):
    for path in (ROOT / 'results').glob(f'*.{kind}'):
      assert '/tmp/' not in path.read_text()
      assert '../' not in path.read_text()
