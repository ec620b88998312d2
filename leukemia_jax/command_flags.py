"""Leukemia from blood-smear images: prepare, audit, train, evaluate, compare.

COMMAND --workdir=runs/first
    trains a small network on synthetic smears, in minutes, on any laptop
COMMAND --workdir=runs/mine --config.data.source=path/to/folder_or.zip
    the same on your images, in any usual layout (docs/datasets.md)
COMMAND --workdir=runs/folds --config.data.source=... --config.data.folds=5
    cross-validates by patient, with an interval over patients
COMMAND --workdir=runs/cells --config=configs/unet.py
    trains a U-Net that finds white cells, on pairs of image and mask
COMMAND --workdir=runs/mine --mode=prepare --config.data.source=...
    says how they are read: classes, masks, patients, parts, what is left out
COMMAND --workdir=runs/audit --mode=audit --config.data.source=...
    says how much of a score on them can be believed: twins, leaks, shortcuts
COMMAND --workdir=runs/scored --mode=evaluate --checkpoint=runs/mine
    scores a trained model, on its own data or another config.data.source
COMMAND --workdir=runs/new --mode=predict --checkpoint=runs/mine --input=...
    says what new images are, and which of its answers not to believe
COMMAND --workdir=runs/exported --mode=export --checkpoint=runs/mine
    writes a trained model for other programs: StableHLO, ONNX, safetensors
COMMAND --mode=serve --checkpoint=runs/mine
    answers images that are dropped on a local page
COMMAND --workdir=runs/compared --mode=compare --runs=runs/mine,runs/other
    says whether two runs on one set can be told apart
COMMAND --workdir=runs/mine --mode=report
    writes the pages of a finished run again, as after an update
COMMAND --workdir=runs/speed --mode=benchmark --config=configs/unet.py
    measures how fast a config runs here; --compare measures others beside it
COMMAND --workdir=runs/study --mode=study --config=configs/study.py
    compares backbones, loading options, rates and dropouts: 48 runs at once

Any key of a config is set by --config.KEY=VALUE, as in
--config.train.learning_rate=0.0003 or "--config.model.blocks=(1, 1, 1)";
configs/default.py lists all keys, with what they mean.
"""

import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from leukemia_jax import __version__
from leukemia_jax.config_keys import flatten, no_such_key

# Modules of `leukemia_jax.commands`, each imported when it is asked for.
MODES = (
  'prepare',
  'audit',
  'train',
  'evaluate',
  'predict',
  'export',
  'serve',
  'compare',
  'study',
  'report',
  'benchmark',
)


def fail(message: str) -> NoReturn:
  """Ends with one error, no traceback, status 1."""
  print(f'error: {message}', file=sys.stderr, flush=True)
  if flags.FLAGS.is_parsed() and flags.FLAGS.num_processes > 1:
    # An orderly end would wait for the others, and they for this one.
    sys.stdout.flush()
    os._exit(1)
  sys.exit(1)


def _config_folder() -> pathlib.Path:
  """The configs that were installed with the package."""
  spec = importlib.util.find_spec('leukemia_jax.configs')
  assert spec is not None and spec.origin is not None
  return pathlib.Path(spec.origin).parent


def _config_path(argument: str) -> str:
  """The file of --config=FILE or FILE:ARGUMENT, of the user or installed."""
  name, colon, rest = argument.partition(':')
  path = pathlib.Path(name)
  try:
    if not path.is_file() and str(path.parent) in ('.', 'configs'):
      path = _config_folder() / path.name
    if path.is_file() and path.suffix == '.py':
      return f'{path}{colon}{rest}'
  except (OSError, ValueError):
    pass  # No path at all; said below.
  known = ', '.join(sorted(p.name for p in _config_folder().glob('[!_]*.py')))
  fail(
    f'--config={argument[:200]}: there is no such .py file; there are {known}'
  )


def _config_first(argv: Sequence[str]) -> list[str]:
  """The command line with --config before its overrides, in --x=y form."""
  config, others, waiting = '', [], list(argv[1:])
  while waiting:
    argument = waiting.pop(0)
    name, equals, value = argument.partition('=')
    if name not in ('--config', '-config'):
      others.append(argument)
    elif equals or waiting:
      config = value if equals else waiting.pop(0)
    else:
      fail('--config needs a value, as in --config=configs/unet.py')
  first = [f'--config={_config_path(config)}'] if config else []
  return [argv[0], *first, *others]


def _last_line(error: BaseException) -> str:
  """An error's own words, where ml_collections adds a whole traceback."""
  text = str(error)
  return text.strip().splitlines()[-1] if 'Traceback' in text else text


def _unknown_key(argv: Sequence[str]) -> str:
  """The error for the first unknown key; '' if all are known."""
  path = _config_folder() / 'default.py'
  spec = importlib.util.spec_from_file_location('default_config', path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  keys = flatten(module.get_config())
  for argument in argv:
    name = argument.lstrip('-').removeprefix('no').partition('=')[0]
    key = name.removeprefix('config.')
    if not name.startswith('config.') or key in keys:
      continue
    return f'{no_such_key(key, keys)} (all keys: {path})'
  return ''


def _print_help() -> NoReturn:
  command = pathlib.Path(sys.argv[0]).name
  command = f'python {command}' if command.endswith('.py') else command
  print((__doc__ or '').replace('COMMAND', command))
  print('Flags:')
  for flag in flags.FLAGS.get_flags_for_module(__name__):
    print(f'  --{flag.name}: {flag.help}')
  print('  --help, --version: print this text, or the version')
  sys.exit(0)


def _define_flags() -> None:
  """Defines what a command does; its config is defined as it is read."""
  flags.DEFINE_string(
    'workdir', None, 'folder for everything that this command makes'
  )
  flags.DEFINE_enum(
    'mode', 'train', MODES, f'{", ".join(MODES)}; train if left away'
  )
  flags.DEFINE_multi_string(
    'checkpoint',
    [],
    'workdir of the run that --mode=evaluate scores, --mode=export exports or '
    '--mode=predict and serve use; predictions of several are averaged',
  )
  flags.DEFINE_string(
    'input', None, 'image, folder or .zip that --mode=predict reads'
  )
  flags.DEFINE_string(
    'shard', '0/1', 'i/n: every n-th image from i on, for --mode=predict'
  )
  flags.DEFINE_string(
    'calibration',
    None,
    'workdir of an evaluation with config.evaluate.recalibrate, whose '
    'temperature is used',
  )
  flags.DEFINE_string(
    'host',
    '127.0.0.1',
    'address that --mode=serve listens at; for another the environment must '
    'hold a password in LEUKEMIA_JAX_PASSWORD',
  )
  flags.DEFINE_integer(
    'port', 8080, 'port of --mode=serve; 0 for any', 0, 65535
  )
  flags.DEFINE_list(
    'runs', [], 'workdirs of the two runs that --mode=compare compares'
  )
  flags.DEFINE_bool(
    'explain',
    False,
    'whether --mode=predict draws where classifiers look, in explanations/',
  )
  flags.DEFINE_enum(
    'runtime',
    'jax',
    ['jax', 'openvino'],
    'what --mode=predict runs networks in: jax, or openvino, which is faster '
    'on many processors (docs/speed.md)',
  )
  flags.DEFINE_bool(
    'strict',
    False,
    'whether serious findings of --mode=audit end with status 1',
  )
  flags.DEFINE_list(
    'compare',
    [],
    'also measured by --mode=benchmark: keras, timm, torch, keras_jax, ...',
  )


def _define_process_flags() -> None:
  """Defines who trains together."""
  flags.DEFINE_integer(
    'num_processes',
    1,
    'processes, perhaps on several machines, that train one model together: '
    'each is started with the same flags and a workdir that all see',
    1,
    10**5,
  )
  flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT of process 0, for --num_processes; where a cluster such as '
    'SLURM starts them, it is found, and --process_id too',
  )
  flags.DEFINE_integer(
    'process_id', None, 'which of --num_processes this is, from 0', 0
  )


def parse(argv: Sequence[str]) -> list[str]:
  """Parses the command line, or ends with one clear error."""
  if '--version' in argv:
    print(f'leukemia_jax {__version__}')
    sys.exit(0)
  _define_flags()
  _define_process_flags()
  argv = _config_first(argv)
  wants_help = bool({'-h', '--help', '-help', '--helpfull'} & set(argv))
  try:
    config_flags.DEFINE_config_file(
      'config',
      str(_config_folder() / 'default.py'),
      'file of the experiment, FILE.py or FILE.py:ARGUMENT; see configs/',
      sys_argv=argv[:1] if wants_help else argv,
    )
    rest = flags.FLAGS(argv[:1] if wants_help else argv)
    config = flags.FLAGS.config
  except (AttributeError, KeyError) as error:
    fail(_unknown_key(argv[1:]) or f'--config: {_last_line(error)}')
  except flags.Error as error:
    # A section is no key either.
    text = f'{_last_line(error)} (--help lists the flags)'
    fail(_unknown_key(argv[1:]) or text)
  except (Exception, SystemExit) as error:
    # A file of the user's: whatever it raises is said in one line.
    fail(f'--config: {type(error).__name__}: {_last_line(error)}')
  if wants_help:
    _print_help()
  if not isinstance(config, ConfigDict):
    fail('--config: get_config must return a ConfigDict')
  if rest[1:]:
    fail(f'unexpected {" ".join(rest[1:])}; flags start with --')
  return rest
