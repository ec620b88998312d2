"""The command line: which flags go together, and what a mode is given."""

import contextlib
import importlib
import io
import logging as python_logging
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from leukemia_jax import files
from leukemia_jax.command_flags import fail, parse
from leukemia_jax.config_check import (
  check_config,
  check_mode,
  check_paths,
  check_start,
)
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import CONFIG, RESULT, config_of

# Those that use a trained model.
_OF_A_RUN = ('evaluate', 'predict', 'export', 'serve')
# Flags of some modes alone.
_FLAGS_OF_MODES = {
  'calibration': _OF_A_RUN,
  'explain': ('predict',),
  'runtime': ('predict',),
  'strict': ('audit',),
  'compare': ('benchmark',),
  'num_processes': ('train',),
  'shard': ('predict',),
  'host': ('serve',),
  'port': ('serve',),
}
# (mode, flag, what it is) of those that need each other.
_NEEDS = (
  ('predict', 'input', 'image, folder'),
  ('compare', 'runs', 'workdir>,<workdir'),
)
# Those that choose what a model computes in.
_COMPUTES = ('train', 'study', 'benchmark')


def _check_flags() -> None:
  """Refuses flags that don't go together."""
  parsed = flags.FLAGS
  if parsed.mode == 'serve':
    if parsed.workdir:
      raise InputError('--mode=serve writes nothing: leave --workdir away')
  elif not parsed.workdir:
    raise InputError(
      '--workdir is missing: a folder for what this makes, as in '
      '--workdir=runs/first'
    )
  uses_run = parsed.mode in _OF_A_RUN
  if uses_run != bool(parsed.checkpoint):
    mode = parsed.mode if uses_run else 'evaluate, predict, export or serve,'
    raise InputError(
      f'--mode={mode} and --checkpoint=<workdir of a training run> go together'
    )
  for name, modes in _FLAGS_OF_MODES.items():
    flag = parsed[name]
    if flag.value != flag.default and parsed.mode not in modes:
      raise InputError(f'--{name} goes together with --mode={", ".join(modes)}')
  if parsed.mode in ('evaluate', 'export') and len(parsed.checkpoint) > 1:
    raise InputError(
      f'--mode={parsed.mode} takes one run: give one --checkpoint; folds are '
      'scored together while they are trained'
    )
  for mode, name, what in _NEEDS:
    if (parsed.mode == mode) != bool(parsed[name].value):
      raise InputError(f'--mode={mode} and --{name}=<{what}> go together')
  belongs = parsed.coordinator is not None or parsed.process_id is not None
  if belongs and not parsed['num_processes'].present:
    raise InputError(
      '--coordinator and --process_id go together with --num_processes'
    )
  overrides = config_flags.get_override_values(parsed['config'])
  has_config = parsed['config'].present or overrides
  if parsed.mode in ('compare', 'report') and has_config:
    raise InputError(
      f'--mode={parsed.mode} takes no config: finished runs have their own'
    )
  if parsed.mode == 'compare':
    _check_comparison()
  # Said before anything heavy is imported.
  for folder in parsed.checkpoint:
    files.read_json(files.expand(folder) / CONFIG)
  if uses_run and parsed['config'].present:
    raise InputError(
      f"--mode={parsed.mode} takes the trained model's own config; leave "
      '--config away, single keys can be given as --config.key=value'
    )


def _shard() -> tuple[int, int]:
  """The shard that the flags name."""
  match = re.fullmatch(r'(\d{1,6})/(\d{1,6})', flags.FLAGS.shard)
  index, count = map(int, match.groups()) if match else (0, 0)
  if not index < count:
    raise InputError(
      f'--shard={flags.FLAGS.shard} must be i/n, i from 0 to n - 1, as 0/4'
    )
  return index, count


def _check_comparison() -> None:
  """Refuses what no two runs are, before anything heavy is imported."""
  parsed = flags.FLAGS
  if len(parsed.runs) != 2:
    raise InputError(
      f'--runs={",".join(parsed.runs)}: two workdirs are compared, as in '
      '--runs=runs/first,runs/second'
    )
  for folder in parsed.runs:
    files.read_json(files.expand(folder) / RESULT)


def _dispatch() -> None:
  """Runs the mode that the flags name; what it needs is imported only then."""
  _check_flags()
  parsed = flags.FLAGS
  config, workdir = parsed.config, files.expand(parsed.workdir or '.')
  if parsed.workdir:
    check_paths(config, workdir)
    if not config_of(workdir):
      # A run that has begun has its weights.
      check_start(config)
  # An evaluation's config is the trained run's, with these overrides.
  args: tuple[Any, ...] = (config, workdir)
  if parsed.mode == 'report':
    args = (workdir,)
  elif parsed.mode == 'compare':
    args = (workdir, [files.expand(folder) for folder in parsed.runs])
  elif parsed.checkpoint:
    overrides = config_flags.get_override_values(parsed['config'])
    runs = [files.expand(folder) for folder in parsed.checkpoint]
    local = parsed.calibration and files.expand(parsed.calibration)
    args = (overrides, workdir, runs[0], local)
    if parsed.mode == 'predict':
      args = (overrides, workdir, runs, parsed.input, _shard(), local)
      args += (parsed.explain, parsed.runtime)
    elif parsed.mode == 'serve':
      args = (overrides, runs, parsed.host, parsed.port, local)
  else:
    check_config(config)
    overrides = config_flags.get_override_values(parsed['config'])
    check_mode(config, parsed.mode, overrides)
  if parsed.mode == 'audit':
    args = (config, workdir, parsed.strict)
  elif parsed.mode == 'benchmark':
    args = (config, workdir, parsed.compare)
  # JAX is loaded now, and no sooner.
  from leukemia_jax import devices, sharding

  if parsed.num_processes > 1:
    sharding.join(parsed.coordinator, parsed.process_id, parsed.num_processes)
    if not sharding.leads():
      sys.stdout = io.StringIO()
  print(f'device: {devices.describe()}', flush=True)
  if config.model.dtype == 'auto' and parsed.mode in _COMPUTES:
    from leukemia_jax.training import initial_weights

    dtype = initial_weights.resolve_dtype(config, workdir).model.dtype
    print(f'config.model.dtype=auto: {dtype}', flush=True)
  # Of several processes JAX lets the first alone store what it compiles.
  if parsed.num_processes == 1:
    # Nothing is kept in a home folder that isn't there.
    with contextlib.suppress(InputError):
      devices.keep_compiled(files.expand(config.data.cache_dir) / 'compiled')
  importlib.import_module(f'leukemia_jax.commands.{parsed.mode}').run(*args)


def _main(_: Sequence[str]) -> None:
  """Turns what goes wrong into one error, in any terminal."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='replace')
  # Libraries' chatter; what JAX warns of is shown.
  logging.set_verbosity(logging.FATAL)
  python_logging.getLogger('jax').setLevel(python_logging.WARNING)
  try:
    _dispatch()
  except InputError as error:
    fail(str(error))
  except OSError as error:
    where = error.filename or flags.FLAGS.workdir
    fail(f'{where}: {error.strerror or error}')
  except Exception as error:
    if flags.FLAGS.num_processes == 1:
      raise
    from leukemia_jax import sharding

    if sharding.is_loss(error):
      fail(
        f'another process of this training was lost ({error}). Give the same '
        'commands again: the run resumes from its latest checkpoint'
      )
    traceback.print_exc()
    fail(f'{type(error).__name__}: {error}')


def main() -> None:
  """Runs the command line of this process."""
  app.run(_main, flags_parser=parse)
