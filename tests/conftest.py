"""Settings of the whole suite, and the small sets that many tests share."""

import os
import pathlib
import tempfile
from typing import Any

# Before the first import of jax and keras.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['KERAS_BACKEND'] = 'jax'
# Many tests, and the commands that they start, compile the same programs.
_COMPILED = tempfile.TemporaryDirectory(prefix='compiled-')
os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

import jax
import numpy as np
import pytest
from PIL import Image

jax.config.update('jax_numpy_rank_promotion', 'raise')

ROOT = pathlib.Path(__file__).parents[1]


def catalogue(labels, groups=None, ids=None) -> Any:
  """A catalogue of images that nobody reads."""
  from leukemia_jax.data import dataset

  count = len(labels)
  names = tuple(f'class {i}' for i in range(int(max(labels)) + 1))
  return dataset.Catalogue(
    class_names=names,
    labels=np.asarray(labels, np.int32),
    ids=ids or tuple(f'{names[y]}/{i}.png' for i, y in enumerate(labels)),
    pixel_hashes=tuple(map(str, range(count))),
    groups=tuple(groups)
    if groups is not None
    else tuple(map(str, range(count))),
    fingerprint='f',
    coverage=np.full(count, np.nan),
    num_masks=0,
    num_multicolour_masks=0,
    mask_side=0,
    skipped=(),
    bad_masks=(),
    unpaired=(),
  )


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


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> str:
  """The flag of a cache that a file's command runs share."""
  return f'--config.data.cache_dir={tmp_path_factory.mktemp("cache")}'


@pytest.fixture(scope='session')
def smear() -> np.ndarray:
  """A synthetic field, uint8 (224, 224, 3)."""
  from leukemia_jax.data import smear_cells, synthetic

  image, _ = synthetic.render_image(
    jax.random.key(3), 0, 2, 0, spec=smear_cells.SmearSpec()
  )
  return image
