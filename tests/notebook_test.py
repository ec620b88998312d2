"""The notebook in docs/ runs, cell after cell."""

import json

import matplotlib
import pytest
from conftest import ROOT


@pytest.mark.full
def test_every_cell_runs(cache):
  matplotlib.use('agg')
  _, _, cache_dir = cache.partition('=')
  content = json.loads((ROOT / 'docs/python.ipynb').read_text())
  names: dict = {}
  for cell in content['cells']:
    if cell['cell_type'] != 'code':
      continue
    code = ''.join(cell['source'])
    # That it runs needs few images, and nothing in the home folder of whoever
    # runs tests.
    code = code.replace(
      'config.synthetic.scale = 0.2',
      f'config.synthetic.scale = 0.03; config.data.cache_dir = {cache_dir!r}',
    )
    code = code.replace('config.train.epochs = 20', 'config.train.epochs = 2')
    exec(code, names)
  table, heat = names['table'], names['heat']
  assert len(table) == len(names['images']) == 5
  assert table['flags'].str.contains('unlike').iloc[4]
  assert heat.shape == (4, 80, 80) and float(heat.max()) == 1
