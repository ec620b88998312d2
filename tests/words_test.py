"""The field's words: names that readers had to look up are gone."""

import ast
import json
import pathlib

from conftest import ROOT

EVERYWHERE = ('',)
# Names that once had other meanings too, and where each has its one meaning; an
# empty tuple: nowhere.
ALLOWED: dict[str, tuple[str, ...]] = {
  'called': (),
  'wrong': (),
  # Directions.
  'right': (
    'leukemia_jax/transforms/jpeg.py',
    'leukemia_jax/models/layers.py',
    'leukemia_jax/audit/properties.py',
    'leukemia_jax/reporting/audit_page.py',
    'leukemia_jax/inference/segmenter.py',
  ),
  'ground': (),
  'all_ground': (),
  'invented': (),
  'missed': (),
  'found': (),
  'many_coloured': (),
  # In which order an epoch takes images, shards are computed, layers lie; and
  # SciPy's, of an interpolation.
  'order': (
    'leukemia_jax/training/',
    'leukemia_jax/study/',
    'leukemia_jax/pretrained/keras_layers.py',
    'leukemia_jax/audit/duplicates.py',
  ),
  'outside_study': (),
  'Journal': (),
  '_Watch': (),
  '_Steps': (),
  'with_scale': (),
  'of_run': (),
  # Of a range; and a method of rich and of threads.
  'start': (
    'leukemia_jax/interrupts.py',
    'leukemia_jax/data/synthetic_cells.py',
    'leukemia_jax/pretrained/',
    'reproduce/measure_serving.py',
  ),
  'identity': (),
  'CHANCE': (),
  # The run that an evaluation scored; a model's key is `remat`.
  'checkpoint': ('leukemia_jax/commands/evaluate.py',),
  '_pace': (),
  '_circumstances': (),
  'cast': (),
  'dealt': (),
  'of': (),
  'one': (),
  'other': (),
  'there': (),
  'here': (),
  # A factor on a size.
  'scale': EVERYWHERE,
  # Of a table, a matrix or a picture; never an image of a set.
  'rows': (
    'leukemia_jax/reporting/',
    'leukemia_jax/study/',
    'leukemia_jax/tasks.py',
    'leukemia_jax/commands/prepare.py',
    'leukemia_jax/evaluation/predictions.py',
    'leukemia_jax/evaluation/comparison.py',
    'leukemia_jax/commands/compare.py',
    'leukemia_jax/evaluation/cross_validation.py',
    'leukemia_jax/transforms/jpeg.py',
    'leukemia_jax/models/layers.py',
    'leukemia_jax/workdir/outputs.py',
    'leukemia_jax/inference/model.py',
    'reproduce/',
    'results/',
  ),
  'settings': (),
  # Of a network; never of a sample.
  'weights': (
    'leukemia_jax/config_check.py',
    'leukemia_jax/training/initial_weights.py',
    'leukemia_jax/commands/train.py',
    'leukemia_jax/study/',
    'leukemia_jax/pretrained/',
    'configs/',
    'reproduce/',
    'results/',
  ),
  'kept': (),
  'made': (),
  'shown': (),
  'given': (),
  'seen': (),
}
# What the modules of that name are imported as.
MODULES = {'checkpoint'}


def names_in(path: pathlib.Path) -> set[str]:
  """Identifiers, and texts that are keys."""
  names: set[str] = set()
  for node in ast.walk(ast.parse(path.read_text())):
    match node:
      case ast.Name(id=name) if name not in MODULES:
        names.add(name)
      case ast.arg(arg=name) | ast.keyword(arg=str(name)):
        names.add(name)
      case ast.Attribute(attr=name) if name not in MODULES:
        names.add(name)
      case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
        names.add(name)
      case ast.Dict(keys=keys):
        names |= {
          k.value
          for k in keys
          if isinstance(k, ast.Constant) and isinstance(k.value, str)
        }
      case ast.Subscript(slice=ast.Constant(value=str(name))):
        names.add(name)
  return names


def keys_in(content: object) -> set[str]:
  """All keys of a JSON file."""
  if isinstance(content, dict):
    return set(content).union(*map(keys_in, content.values()))
  if isinstance(content, list):
    return set().union(*map(keys_in, content))
  return set()


def test_no_name_of_the_left_column_is_left():
  places = {
    path.relative_to(ROOT).as_posix(): names_in(path)
    for folder in ('leukemia_jax', 'configs', 'reproduce')
    for path in (ROOT / folder).rglob('*.py')
  }
  places |= {
    path.relative_to(ROOT).as_posix(): keys_in(json.loads(path.read_text()))
    for path in (ROOT / 'results').glob('*.json')
  }
  wrong = [
    f'{place}: {name}'
    for place, names in places.items()
    for name in sorted(names & ALLOWED.keys())
    if not place.startswith(ALLOWED[name] or ('nowhere',))
  ]
  assert not wrong


def test_every_allowed_place_is_used():
  """What is allowed and not there is forgotten, not needed."""
  for name, places in ALLOWED.items():
    for place in places:
      if place in ('', 'reproduce/', 'results/'):
        continue
      path = ROOT / place
      files = [path] if path.is_file() else path.rglob('*.py')
      assert any(name in names_in(file) for file in files), (name, place)
