"""The house's rules: who imports whom, what is never imported, sizes."""

import ast
import pathlib
import subprocess
import sys

import pytest
from conftest import ROOT

PACKAGE = ROOT / 'leukemia_jax'

# A package, or module of the top level, imports what stands on lower floors; no
# two of one floor import each other.
FLOORS = [
  {'errors', 'interrupts', 'memory', 'parallel', 'progress', 'timing'},
  {'devices', 'files', 'lock', 'sharding'},
  {'metrics', 'models', 'transforms'},
  {'data'},
  {'audit', 'build', 'pretrained', 'config_keys'},
  {'config_check'},
  {'workdir'},
  {'evaluation', 'inference'},
  {'training'},
  {'study', 'benchmark'},
  {'reporting'},
  {'serving'},
  {'tasks'},
  {'commands'},
  {'command_flags'},
  {'cli'},
  {'__main__'},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


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


def sources() -> list[pathlib.Path]:
  return [p for p in PACKAGE.rglob('*.py') if p != PACKAGE / '__init__.py']


def test_imports_run_one_way():
  for path in sources():
    for name in imports(path):
      top, *rest = name.split('.')
      if top != 'leukemia_jax' or not rest or rest[0].startswith('__'):
        continue
      assert rest[0] != 'configs', f'{path} imports {name}'
      if rest[0] != room(path):
        assert FLOOR[rest[0]] < FLOOR[room(path)], f'{path} imports {name}'


def test_no_circle_within_a_package():
  for package in {path.parent for path in sources()} - {PACKAGE}:
    prefix = f'leukemia_jax.{package.name}.'
    # What hands names on is no room of its own.
    modules = {p.stem: p for p in package.glob('*.py') if p.stem != '__init__'}
    below = {
      name: {n.removeprefix(prefix).split('.')[0] for n in imports(path)}
      & modules.keys() - {name}
      for name, path in modules.items()
    }
    while below:
      ground = {name for name, names in below.items() if not names}
      assert ground, f'{package.name}: a circle among {sorted(below)}'
      below = {k: v - ground for k, v in below.items() if k not in ground}


def test_only_the_command_line_reads_flags():
  for path in sources():
    reads = any(name.startswith('absl.flags') for name in imports(path))
    assert reads == (room(path) in ('command_flags', 'cli')), path


def test_what_nothing_imports():
  for path in [*sources(), *ROOT.glob('configs/*.py'), ROOT / 'main.py']:
    for name in imports(path):
      first = name.split('.')[0]
      assert first not in ('tensorflow', 'torch', 'chex', 'pickle', 'keras'), (
        path
      )
      assert not name.startswith('flax.training'), path


def test_flax_is_known_to_models_and_training_alone():
  known = ('models', 'pretrained', 'workdir', 'training', 'study')
  for path in sources():
    if any(n.split('.')[0] == 'flax' for n in imports(path)):
      assert room(path) in known, path


@pytest.mark.parametrize(
  ('module', 'absent'),
  [
    (
      'leukemia_jax',
      ('jax', 'tensorflow_datasets', 'matplotlib', 'sklearn', 'flax'),
    ),
    (
      'leukemia_jax.commands.train, leukemia_jax.commands.study',
      ('tensorflow', 'torch', 'keras'),
    ),
    (
      'leukemia_jax.training.setup',
      ('matplotlib', 'sklearn', 'skimage', 'pandas'),
    ),
    ('leukemia_jax.study.runner', ('matplotlib', 'sklearn', 'pandas')),
  ],
)
def test_what_an_import_does_not_load(module, absent):
  code = (
    f'import sys, {module};print([m for m in {absent} if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.strip() == '[]', done.stdout + done.stderr


def test_files_and_functions_are_short_and_named():
  for folder in ('leukemia_jax', 'configs', 'reproduce', 'tests'):
    limit = 600 if folder == 'tests' else 450
    for path in [*(ROOT / folder).rglob('*.py'), ROOT / 'main.py']:
      text = path.read_text()
      assert len(text.splitlines()) <= limit, path
      assert path.stem not in ('utils', 'util', 'helpers', 'common', 'misc')
      if folder == 'tests':
        continue
      for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
          lines = node.end_lineno - node.lineno + 1
          assert lines <= 70, f'{path}: {node.name} has {lines} lines'
