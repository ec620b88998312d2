"""result.json: records to JSON and back."""

import json
import pathlib
import shutil

import pytest
from conftest import ROOT

from leukemia_jax.errors import InputError
from leukemia_jax.metrics.classification import ClassificationScores
from leukemia_jax.metrics.segmentation import MaskScores
from leukemia_jax.workdir import result

PATH = pathlib.Path('w/result.json')


@pytest.mark.parametrize(
  ('name', 'kind'),
  [('synthetic', ClassificationScores), ('unet_real', MaskScores)],
)
def test_a_result_comes_back(tmp_path, name, kind):
  stored = ROOT / f'results/{name}.json'
  content = json.loads(stored.read_text())
  # What is stored is of this version's format: a study's page reads it too.
  shutil.copy(stored, tmp_path / 'result.json')
  record = result.read(tmp_path)
  assert type(record.test) is type(record.train) is kind
  again = json.loads(json.dumps({'format': 5} | result.to_json(record)))
  assert result.from_json(again, result.Result, PATH) == record
  # Everything that was in the file is in the record.
  for key in ('model', 'data', 'test', 'validation', 'train', 'baselines'):
    assert again[key].keys() == {
      k for k, v in content[key].items() if v is not None or k in again[key]
    }
  result.write(tmp_path, record)
  assert result.read(tmp_path) == record


@pytest.mark.parametrize(
  ('key', 'words'),
  [('parameters_sha256', 'parameters_sha256'), ('data', 'data')],
)
def test_a_missing_key_is_named(key, words):
  content = json.loads((ROOT / 'results/synthetic.json').read_text())
  del content[key]
  with pytest.raises(InputError, match=f'is damaged: .*{words}'):
    result.from_json(content, result.Result, PATH)


def test_a_value_of_another_type_is_named():
  content = json.loads((ROOT / 'results/synthetic.json').read_text())
  content['test']['accuracy'] = 'high'
  with pytest.raises(InputError, match='is damaged'):
    result.from_json(content, result.Result, PATH)
