"""The house's rules: who imports whom, what is never imported, file sizes."""

import ast
import pathlib
import subprocess
import sys

from conftest import ROOT

PACKAGE = ROOT / 'leukemia_jax'

# A module may import what stands on a lower floor, or on its own.
FLOORS = [
  {
    'errors',
    'progress',
    'workdir',
    'metrics',
    'segmentation',
    'optimizer',
    'jpeg',
    'figures',
    'statistics',
    'published_study',
  },
  {'augment'},
  {'data', 'models'},
  {'evaluate', 'checkpoint', 'report'},
  {'features', 'study_report'},
  {'journal'},
  {'train'},
  {'settings', 'experiment'},
  {'weights', 'scoring', 'heads'},
  {'commands', 'study'},
]


def imports(path: pathlib.Path) -> set[str]:
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def room(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def test_imports_run_one_way():
  floor = {name: i for i, names in enumerate(FLOORS) for name in names}
  for path in PACKAGE.rglob('*.py'):
    if path == PACKAGE / '__init__.py':
      continue
    for name in imports(path):
      parts = name.split('.')
      assert parts[0] != 'configs', path
      if parts[0] == 'leukemia_jax' and len(parts) > 1:
        assert floor[parts[1]] <= floor[room(path)], f'{path} imports {name}'


def test_only_main_reads_flags():
  for path in PACKAGE.rglob('*.py'):
    assert not any(n.startswith('absl.flags') for n in imports(path)), path


def test_what_nothing_imports():
  for path in [
    *PACKAGE.rglob('*.py'),
    *ROOT.glob('configs/*.py'),
    ROOT / 'main.py',
  ]:
    for name in imports(path):
      first = name.split('.')[0]
      assert first not in ('tensorflow', 'torch', 'chex', 'pickle', 'keras'), (
        path
      )
      assert not name.startswith('flax.training'), path


def test_flax_is_known_to_models_and_training_alone():
  for path in PACKAGE.rglob('*.py'):
    if any(n.split('.')[0] == 'flax' for n in imports(path)):
      assert room(path) in ('models', 'train'), path


def test_importing_everything_imports_no_tensorflow():
  code = (
    'import sys, leukemia_jax.commands, leukemia_jax.settings;'
    'print([m for m in ("tensorflow", "torch", "keras") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.strip() == '[]', done.stderr


def test_no_file_over_600_lines_and_no_room_without_a_name():
  for path in ROOT.rglob('*.py'):
    if '.venv' in path.parts:
      continue
    assert len(path.read_text().splitlines()) <= 600, path
    assert path.stem not in ('utils', 'util', 'helpers', 'common', 'misc'), path
