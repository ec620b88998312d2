"""Pooled features of a frozen backbone: constants of fixed images, stored.

A shard of images is named after everything that its features depend on, its
own pixels included. So shards are shared by every set, split and run that holds
the same images in the same order, two processes can fill one cache, and a kill
costs one shard.
"""

import ast
import functools
import hashlib
import importlib.metadata
import io
import os
import pathlib
import random
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import (
  devices,
  files,
  models,
  pretrained,
  progress,
  transforms,
)
from leukemia_jax.errors import InputError
from leukemia_jax.lock import lock_folder
from leukemia_jax.study import calibration
from leukemia_jax.training import state
from leukemia_jax.transforms.preprocess import preprocess

# Images a shard: 17 s of the largest backbone on two cores.
SHARD = 128
_DIGEST = 32  # bytes of a SHA-256
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


class Backbone(NamedTuple):
  """A frozen backbone whose weights are not loaded before they are needed.

  Attributes:
    model: a `models.Classifier` without a head.
    preprocessing: see `transforms.preprocess`.
    fingerprint: what its weights are a function of.
    load: gives its variables.
  """

  model: Any
  preprocessing: str
  fingerprint: str
  load: Callable[[], dict[str, Any]]


class Extracted(NamedTuple):
  """Features and what they took.

  Attributes:
    features: float32, shape (n, channels).
    computed: number of images whose features were not in the cache.
    seconds: what those took, without compilation.
  """

  features: np.ndarray
  computed: int
  seconds: float

  @property
  def rate(self) -> float | None:
    """Images a second; None if none was computed."""
    return round(self.computed / self.seconds, 2) if self.computed else None


def make_step(
  *, apply_fn: Callable[..., Any], preprocessing: str
) -> jax.stages.Wrapped:
  """Makes the compiled step from images to pooled features.

  Args:
    apply_fn: the `apply` of a model without a head.
    preprocessing: see `transforms.preprocess`.

  Returns:
    (variables, uint8 images) -> float32 (batch, channels).
  """

  @jax.jit
  def step(variables: Any, images: jax.Array) -> jax.Array:
    images = preprocess(images, preprocessing)
    features, _ = apply_fn(variables, images, train=False)
    return models.pool(features)

  return step


def _code(path: pathlib.Path) -> str:
  """A source file as what it computes: without comments and docstrings."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  for node in ast.walk(tree):
    if not isinstance(node, _DOCUMENTED) or ast.get_docstring(node) is None:
      continue
    del node.body[0]
  return ast.dump(tree)


@functools.cache
def _code_digest() -> str:
  """Changes with the code that features are a function of, not with its words.

  That of models, transforms and pretrained weights, of the drawing of random
  weights, of calibration and of this module.
  """
  modules = (__file__, calibration.__file__, state.__file__)
  files_of_code = [pathlib.Path(path) for path in modules]
  for package in (models, transforms, pretrained):
    files_of_code += sorted(pathlib.Path(package.__path__[0]).rglob('*.py'))
  digest = hashlib.sha256()
  for path in files_of_code:
    digest.update(_code(path).encode())
  return digest.hexdigest()


def cache_key(batch_size: int) -> str:
  """What else decides a feature's last bits, or its meaning.

  CPUs are all one device here: a cache that different ones share may mix their
  last bits.
  """
  device = jax.devices()[0]
  versions = [importlib.metadata.version(n) for n in ('jax', 'jaxlib', 'flax')]
  return repr((_code_digest(), versions, device.device_kind, batch_size))


def _pack(features: np.ndarray) -> bytes:
  stream = io.BytesIO()
  np.save(stream, features, allow_pickle=False)
  data = stream.getvalue()
  return hashlib.sha256(data).digest() + data


def _unpack(content: bytes, count: int) -> np.ndarray | None:
  """The features of a shard's file; None if it is not whole."""
  digest, data = content[:_DIGEST], content[_DIGEST:]
  if hashlib.sha256(data).digest() != digest:
    return None
  features = np.load(io.BytesIO(data), allow_pickle=False)
  return features if len(features) == count else None


def _read(path: pathlib.Path, count: int) -> np.ndarray | None:
  """A shard's features, if they are there and whole."""
  if not path.exists():
    return None
  features = _unpack(path.read_bytes(), count)
  if features is None:
    print(f'{path} is damaged: its {count} images are computed again')
  return features


def _shard_paths(
  backbone: Backbone,
  images: jax.Array | np.ndarray,
  cache: pathlib.Path,
  batch_size: int,
) -> dict[int, pathlib.Path]:
  """The file of each shard, by the index of its first image."""
  common = (
    backbone.fingerprint,
    backbone.preprocessing,
    repr(backbone.model),
    cache_key(batch_size),
  )
  paths = {}
  for first in range(0, len(images), SHARD):
    pixels = np.asarray(images[first : first + SHARD])
    key = hashlib.sha256(repr((*common, pixels.shape)).encode())
    key.update(pixels.tobytes())
    paths[first] = cache / f'{key.hexdigest()[:40]}.features'
  return paths


def extract(
  backbone: Backbone,
  images: jax.Array | np.ndarray,
  *,
  cache: pathlib.Path,
  batch_size: int,
) -> Extracted:
  """Computes every image's pooled features, except for those in the cache.

  Args:
    backbone: what makes them.
    images: uint8, shape (n, size, size, 3).
    cache: folder of shards; safe to delete.
    batch_size: most images a step; a shard's last batch is filled up.

  Returns:
    The features and their cost.

  Raises:
    InputError: a feature is not finite.
  """
  cpu_batch = devices.cpu_batch(backbone.model.backbone.dtype)
  batch_size, at_once = devices.step_batching(batch_size, cpu_batch)
  paths = _shard_paths(backbone, images, cache, batch_size)
  shards: dict[int, np.ndarray] = {}
  for first, path in paths.items():
    stored = _read(path, min(SHARD, len(images) - first))
    if stored is not None:
      shards[first] = stored
  missing = [first for first in paths if first not in shards]
  computed, seconds = 0, 0.0
  if missing:
    features_of = _make_features_of(backbone, images.shape[1:], batch_size)
    started = time.perf_counter()
    # Processes that share a cache begin at different shards, and so share work.
    random.Random(os.getpid()).shuffle(missing)
    for first in progress.track(missing, 'Computing features', len(missing)):
      pixels = np.asarray(images[first : first + SHARD])
      # Another process may have been here meanwhile.
      stored = _read(paths[first], len(pixels))
      if stored is None:
        batches = np.split(pixels, range(batch_size, len(pixels), batch_size))
        with futures.ThreadPoolExecutor(at_once) as pool:
          stored = np.concatenate(list(pool.map(features_of, batches)))
        _check_finite(stored)
        computed += len(pixels)
        with lock_folder(cache):
          files.write(paths[first], _pack(stored))
      shards[first] = stored
    seconds = time.perf_counter() - started
  features = np.concatenate([shards[first] for first in sorted(shards)])
  return Extracted(features, computed, seconds)


def _make_features_of(
  backbone: Backbone, shape: tuple[int, ...], batch_size: int
) -> Callable[[np.ndarray], np.ndarray]:
  """Maps a batch, or less, to its features; compiled."""
  step = make_step(
    apply_fn=backbone.model.apply, preprocessing=backbone.preprocessing
  )
  images = jax.ShapeDtypeStruct((batch_size, *shape), np.uint8)
  like = jax.eval_shape(
    lambda key: models.with_rounded_kernels(
      backbone.model,
      backbone.model.init(key, jnp.zeros(images.shape), train=False),
    ),
    jax.random.key(0),
  )
  lowered = step.lower(like, images)
  # XLA compiles on one core; making the weights may take as long.
  with futures.ThreadPoolExecutor(1) as pool:
    compiling = pool.submit(lowered.compile)
    variables = models.with_rounded_kernels(backbone.model, backbone.load())
    variables = jax.device_put(variables)
    compiled = compiling.result()

  def features_of(batch: np.ndarray) -> np.ndarray:
    filled = np.resize(batch, (batch_size, *shape))
    return np.asarray(compiled(variables, filled))[: len(batch)]

  return features_of


def _check_finite(features: np.ndarray) -> None:
  if not np.isfinite(features).all():
    raise InputError(
      'the features of a backbone are not finite: its weights do not fit its '
      'input, or are damaged'
    )
