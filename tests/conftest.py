"""Options of the whole suite, and the small sets that many tests share."""

import functools
import os
import pathlib
import tempfile
import threading
from collections.abc import Callable
from typing import Any

# Before the first import of jax and keras.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['KERAS_BACKEND'] = 'jax'
# What runs once takes longer to optimise than to run, here and in the commands
# that tests start.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0')
# Nor need each of those commands parse every module anew.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
# Many tests, and the commands that they start, compile the same programs.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  # Made by the first process; its workers share it.
  _COMPILED = tempfile.TemporaryDirectory(prefix='compiled-')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

import filelock
import hypothesis
import jax
import numpy as np
import pytest
from PIL import Image

from leukemia_jax import memory

memory.collect_rarely()
jax.config.update('jax_numpy_rank_promotion', 'raise')
# The same examples in every run.
hypothesis.settings.register_profile('suite', derandomize=True, database=None)
hypothesis.settings.load_profile('suite')

ROOT = pathlib.Path(__file__).parents[1]


def catalogue(labels, groups=None, ids=None, parts=None) -> Any:
  """A catalogue of images that nobody reads."""
  from leukemia_jax.data import dataset

  count = len(labels)
  names = tuple(f'class {i}' for i in range(int(max(labels)) + 1))
  return dataset.Catalogue(
    class_names=names,
    labels=np.asarray(labels, np.int32),
    ids=ids or tuple(f'{names[y]}/{i}.png' for i, y in enumerate(labels)),
    pixel_hashes=tuple(map(str, range(count))),
    patients=tuple(groups) if groups is not None else ('',) * count,
    parts=tuple(parts) if parts is not None else ('',) * count,
    mean_colours=np.zeros((count, 3)),
    fingerprint='f',
    coverage=np.full(count, np.nan),
    num_masks=0,
    num_multicolour_masks=0,
    mask_side=0,
  )


def protocol(**changes: Any) -> Any:
  """The default protocol, with some values changed."""
  from leukemia_jax.data import protocols

  values = {
    'name': 'split_then_balance',
    'option': 1,
    'grouping': 'record',
    'block': 40,
    'per_class': 0,
  }
  return protocols.Protocol(**values | changes)


def reading(max_bytes: int = 10**9, table: str = 'auto', **layout: str) -> Any:
  """How tests read sources: nothing is said that a user needn't say."""
  from leukemia_jax.data import layouts, source

  return source.Options(layouts.Options(**layout), table, (), max_bytes, False)


def save_images(
  folder: pathlib.Path,
  classes: dict[str, int],
  size: int = 80,
  suffix: str = '.png',
  seed: int = 0,
) -> None:
  """Writes class folders of random, all different images."""
  rng = np.random.default_rng(seed)
  for name, count in classes.items():
    (folder / name).mkdir(parents=True)
    for i in range(count):
      pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(folder / name / f'cell-{i}{suffix}')


@pytest.fixture(scope='session')
def once(tmp_path_factory):
  """Makes a folder once for all workers: `once(name, make)` gives its path."""
  base = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    base = base.parent

  def made_once(
    name: str, make: Callable[[pathlib.Path], None]
  ) -> pathlib.Path:
    with filelock.FileLock(base / f'{name}.lock'):
      if not (base / f'{name}.done').exists():
        make(base / name)
        (base / f'{name}.done').touch()
    return base / name

  return made_once


@pytest.fixture(scope='session')
def cache(once) -> str:
  """The flag of a cache that all command runs share."""
  return f'--config.data.cache_dir={once("cache", pathlib.Path.mkdir)}'


@pytest.fixture(scope='session')
def smear() -> np.ndarray:
  """A synthetic field, uint8 (224, 224, 3)."""
  from leukemia_jax.data import synthetic, synthetic_cells

  image, _ = synthetic.render_image(
    jax.random.key(3), 0, 2, 0, spec=synthetic_cells.SmearSpec()
  )
  return image


def count(tree) -> int:
  """Number of values of a pytree of arrays."""
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def shapes(name, num_classes, size=96, **fields):
  """A model's variables as shapes."""
  from leukemia_jax import models

  model = models.create(name, num_classes=num_classes, **fields)
  images = jax.numpy.zeros((1, size, size, 3))
  return jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )


def drawn(model, images):
  """Variables of the right shapes, without compiling an init."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  return jax.tree.map(
    lambda leaf: jax.numpy.asarray(
      rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype
    ),
    shapes,
  )


def _train(folder: pathlib.Path, cache: str) -> None:
  from command import SMALL, run

  done = run(f'--workdir={folder}', cache, *SMALL)
  assert done.returncode == 0, done.stderr


def _train_segmenter(folder: pathlib.Path, cache: str) -> None:
  from command import SMALL_UNET, run

  done = run(f'--workdir={folder}', *SMALL_UNET, cache)
  assert done.returncode == 0, done.stderr
  assert 'test Dice' in done.stdout and 'Dice 0.' in done.stderr


# What makes the runs that most tests wait for, and which worker does it early.
_EARLY = {
  'trained': ('gw0', _train),
  'segmenter': ('gw1', _train_segmenter),
}


@pytest.fixture(scope='session', autouse=True)
def early_runs(request, once, cache) -> None:
  """Begins with shared runs beside the tests that don't need them."""
  wanted = {
    name for item in request.session.items for name in item.fixturenames
  }
  for name, (worker, train) in _EARLY.items():
    if os.environ.get('PYTEST_XDIST_WORKER') == worker and name in wanted:
      make = functools.partial(train, cache=cache)
      # A failure is that of the first test that needs the run, and makes it.
      threading.Thread(target=once, args=(name, make), daemon=True).start()


@pytest.fixture(scope='session')
def trained(once, cache) -> pathlib.Path:
  """A finished run of `command.SMALL`; not to be changed."""
  return once('trained', functools.partial(_train, cache=cache))


@pytest.fixture(scope='session')
def segmenter(once, cache) -> pathlib.Path:
  """A finished run of `command.SMALL_UNET`; not to be changed."""
  return once('segmenter', functools.partial(_train_segmenter, cache=cache))


@pytest.fixture(scope='session')
def benchmarked(once) -> pathlib.Path:
  """A benchmark of `command.SMALL`, and what it printed; not to be changed."""
  from command import SMALL, run

  def measure(folder: pathlib.Path) -> None:
    done = run(
      *('--mode=benchmark', f'--workdir={folder}', *SMALL),
      '--config.model.dtype=auto',
    )
    assert done.returncode == 0, done.stderr
    (folder / 'printed.txt').write_text(done.stdout)

  return once('benchmarked', measure)


@pytest.fixture(scope='session')
def study_config(once) -> Any:
  """The config of a study of small backbones."""
  from small_study import small_config

  return small_config(once('study cache', pathlib.Path.mkdir))


@pytest.fixture(scope='session')
def finished_study(study_config, once) -> pathlib.Path:
  """A study of two rows of each table, twice each; not to be changed."""
  import ml_collections

  from leukemia_jax.commands import study

  config = ml_collections.ConfigDict(study_config.to_dict())
  config.study.learning_rates, config.study.dropout_rates = (0.01,), (0.2, 0.0)
  config.study.repeats, config.train.epochs = 2, 3
  config.study.calibration_images = 0
  return once('small study', lambda folder: study.run(config, folder))
