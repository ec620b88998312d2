"""Leukemia from blood-smear images: prepare, train, evaluate, study.

python main.py --workdir=runs/first
    trains a small network on synthetic smears, in minutes, on any laptop
python main.py --workdir=runs/mine --config.data.source=path/to/folder_or.zip
    the same on your images, in <Class>/ folders or Original/<Class>/
python main.py --workdir=runs/cells --config=configs/unet.py
    trains a U-Net that finds white cells, on pairs of image and mask
python main.py --workdir=runs/mine --mode=prepare --config.data.source=...
    only checks images and masks, counts them and draws contact sheets
python main.py --workdir=runs/scored --mode=evaluate --checkpoint=runs/mine
    scores a trained model, on its own data or another config.data.source
python main.py --workdir=runs/study --mode=study --config=configs/study.py
    compares backbones, loading options, rates and dropouts: 48 runs at once

Every key of an experiment stands, with what it means, in configs/default.py.
"""

import ast
import difflib
import importlib.util
import io
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

MODES = ('prepare', 'train', 'evaluate', 'study')
_DEFAULT_CONFIG = str(pathlib.Path(__file__).parent / 'configs/default.py')


def _define_flags() -> None:
  """Defines the flags; overrides of config keys are read right here."""
  config_flags.DEFINE_config_file(
    'config', _DEFAULT_CONFIG, 'File of the experiment; see configs/.'
  )
  flags.DEFINE_string(
    'workdir', None, 'Folder for everything that this command makes.'
  )
  flags.DEFINE_string(
    'checkpoint',
    None,
    'Workdir of the training run that --mode=evaluate scores.',
  )
  flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')


def _fail(message: str) -> NoReturn:
  """Ends with one error, no traceback, status 1."""
  print(f'error: {message}', file=sys.stderr)
  sys.exit(1)


def _read_config(argument: str) -> ConfigDict:
  """Runs a config file's get_config as ml_collections would."""
  name, _, row = argument.partition(':')
  path = pathlib.Path(name)
  try:
    found = path.is_file()
  except (OSError, ValueError):
    found = False
  if not found or path.suffix != '.py':
    known = sorted(p.name for p in path.parent.glob('*.py'))[:20]
    hint = f'; there are {", ".join(known)}' if known else ''
    _fail(f'--config={argument[:200]}: there is no such .py file{hint}')
  spec = importlib.util.spec_from_file_location('experiment_config', path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config(*([row] if row else []))
  except KeyboardInterrupt:
    _fail('stopped')
  except BaseException as error:
    # A file of the user's: whatever it raises is said in one line.
    _fail(f'--config={argument}: {type(error).__name__}: {error}')
  if not isinstance(config, ConfigDict):
    _fail(f'--config={argument}: get_config must return a ConfigDict')
  return config


def _flat(config: ConfigDict, prefix: str = '') -> dict[str, object]:
  flat: dict[str, object] = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      flat |= _flat(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat


def _fits(text: str, default: object) -> bool:
  """Whether ml_collections could read a text as the default's type."""
  if isinstance(default, str):
    return True
  if isinstance(default, bool):
    return text.lower() in ('true', 'false', '1', '0', 't', 'f')
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return False
  if isinstance(default, tuple):
    return isinstance(value, tuple)
  return isinstance(value, (int, type(default))) and not isinstance(value, bool)


def _check_overrides(argv: Sequence[str]) -> None:
  """Refuses --config.key=value with a wrong key or type, saying what is right.

  ml_collections would raise a bare KeyError from inside its parser.
  """
  path = _DEFAULT_CONFIG
  for i, argument in enumerate(argv):
    name, equals, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name == 'config':
      path = value if equals else ''.join(argv[i + 1 : i + 2])
  keys = _flat(_read_config(path))
  for i, argument in enumerate(argv):
    if argument == '--':
      return
    name, equals, value = argument.lstrip('-').partition('=')
    negated = name.startswith('noconfig.')
    if not argument.startswith('-') or not (
      name.startswith('config.') or negated
    ):
      continue
    key = name.partition('.')[2]
    if key not in keys:
      groups = {k for k in keys if k.startswith(f'{key}.')}
      near = sorted(groups) or difflib.get_close_matches(key, keys, 3, 0.5)
      near = near or [k for k in keys if k.endswith(key.rpartition('.')[2])]
      hint = f'; did you mean {", ".join(f"config.{k}" for k in near[:6])}?'
      _fail(
        f'there is no key config.{key}{hint if near else ""} (all keys: {path})'
      )
    default = keys[key]
    if isinstance(default, bool) and not equals:
      continue
    if not equals:
      following = argv[i + 1 : i + 2]
      if not following:
        _fail(f'--config.{key} needs a value, as in --config.{key}={default}')
      value = following[0]
    if not _fits(value, default):
      kind = type(default).__name__
      _fail(
        f'config.{key}={value} must be of type {kind}, as in '
        f'--config.{key}={default}'
      )


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses the command line, or ends with one clear error."""
  argv = ['--help' if a == '-h' else a for a in argv]
  # Before the flags exist: ml_collections looks at the command line, and
  # raises, as soon as its flag is defined.
  _check_overrides(argv[1:])
  try:
    _define_flags()
    rest = flags.FLAGS(argv)
  except (
    flags.Error,
    AttributeError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
  ) as error:
    _fail(f'{error} (python main.py --help lists the flags)')
  given = flags.FLAGS
  if rest[1:]:
    _fail(f'unexpected {" ".join(rest[1:])}; flags start with --')
  if not given.workdir:
    _fail(
      '--workdir is missing: a folder for what this makes, as in '
      '--workdir=runs/first'
    )
  if (given.mode == 'evaluate') != bool(given.checkpoint):
    _fail(
      '--mode=evaluate and --checkpoint=<workdir of a training run> go together'
    )
  if given.mode == 'evaluate' and given['config'].present:
    _fail(
      "--mode=evaluate takes the trained model's own config; leave --config "
      'away, single keys can be given as --config.key=value'
    )
  return rest


def _check_place(workdir: pathlib.Path, source: str) -> None:
  """Refuses a workdir whose files would be taken for images next time."""
  folder = pathlib.Path(source)
  if folder.is_dir() and workdir.resolve().is_relative_to(folder.resolve()):
    _fail(
      f'--workdir={workdir} lies in config.data.source={source}; give a folder '
      'outside the images'
    )


def main(_: Sequence[str]) -> None:
  """Runs the mode that the flags name."""
  # What goes wrong is said once, by this program, in any terminal.
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='replace')
  logging.set_verbosity(logging.FATAL)
  # JAX takes seconds to import: not for --help, not for a mistyped flag.
  from leukemia_jax import commands, settings, study
  from leukemia_jax.errors import InputError

  given = flags.FLAGS
  config, workdir = given.config, pathlib.Path(given.workdir)
  try:
    # An evaluation's config is the trained run's, checked with its overrides.
    if given.mode != 'evaluate':
      settings.check(config)
    _check_place(workdir, config.data.source)
    if given.mode == 'prepare':
      commands.prepare(config, workdir)
    elif given.mode == 'train':
      commands.run_training(config, workdir)
    elif given.mode == 'study':
      study.run(config, workdir)
    else:
      overrides = config_flags.get_override_values(given['config'])
      commands.run_evaluation(
        overrides, workdir, pathlib.Path(given.checkpoint)
      )
  except InputError as error:
    _fail(str(error))
  except OSError as error:
    where = error.filename or given.workdir
    _fail(f'{where}: {error.strerror or error}')
  except KeyboardInterrupt:
    _fail('stopped; give the same command to go on from the last checkpoint')


if __name__ == '__main__':
  app.run(main, flags_parser=_parse)
