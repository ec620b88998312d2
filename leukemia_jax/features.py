"""Pooled features of a frozen backbone: constants of fixed images, kept.

A shard of images is named after everything that its features depend on, its
own pixels included. So shards are shared by every set, split and run that holds
the same images in the same order, two processes can fill one cache, and a kill
costs one shard.
"""

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

from leukemia_jax import evaluate, models, progress
from leukemia_jax import workdir as files
from leukemia_jax.errors import InputError

# Images a shard: 17 s of the largest backbone on two cores.
SHARD = 128
_DIGEST = 32  # bytes of a SHA-256
# Of a CPU's steps; each keeps its own feature maps.
_MOST_AT_ONCE = 4


class Backbone(NamedTuple):
  """A frozen backbone whose weights are not loaded before they are needed.

  Attributes:
    model: a `models.Classifier` without a head.
    preprocessing: see `evaluate.preprocess`.
    identity: what its weights are a function of.
    load: gives its variables.
  """

  model: Any
  preprocessing: str
  identity: str
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


def make_step(
  *, apply_fn: Callable[..., Any], preprocessing: str
) -> Callable[..., jax.Array]:
  """Makes the compiled step from images to pooled features.

  Args:
    apply_fn: the `apply` of a model without a head.
    preprocessing: see `evaluate.preprocess`.

  Returns:
    (variables, uint8 images) -> float32 (batch, channels).
  """

  @jax.jit
  def step(variables: Any, images: jax.Array) -> jax.Array:
    images = evaluate.preprocess(images, preprocessing)
    features, _ = apply_fn(variables, images, train=False)
    return models.pool(features)

  return step


def calibrate(
  model: Any,
  variables: dict[str, Any],
  images: np.ndarray,
  *,
  preprocessing: str,
  batch_size: int,
) -> dict[str, Any]:
  """Sets batch norms' statistics to the mean of some images' batches.

  Random weights need it: with statistics of 0 and 1 the signal of a deep
  network dies out, or explodes, and all features are alike.

  Args:
    model: without a head; its batch norms have momentum 0, so that a batch's
      statistics are those of the batch alone.
    variables: the model's.
    images: uint8, shape (n, size, size, 3); what fills no batch is left out,
      if there is a full one.
    preprocessing: see `evaluate.preprocess`.
    batch_size: images a step.

  Returns:
    The variables with new statistics.
  """

  @jax.jit
  def statistics(variables: Any, batch: jax.Array) -> Any:
    batch = evaluate.preprocess(batch, preprocessing)
    _, updated = model.apply(
      variables, batch, train=True, mutable=['batch_stats']
    )
    return updated['batch_stats']

  count = max(1, len(images) // batch_size)
  total = None
  for i in progress.track(range(count), 'Calibrating batch norms', count):
    batch = images[i * batch_size : (i + 1) * batch_size]
    found = statistics(variables, batch)
    total = found if total is None else jax.tree.map(jnp.add, total, found)
  mean = jax.tree.map(lambda leaf: leaf / count, total)
  return {**variables, 'batch_stats': mean}


def _pace(batch_size: int) -> tuple[int, int]:
  """Images a step, and steps at once.

  A CPU's cores share the matrix products of one step well, but not what lies
  between them. With a small step for each of two cores InceptionResNetV2 runs
  1.5 times as fast as with one step of 32.
  """
  if jax.default_backend() == 'cpu':
    return min(batch_size, 2), min(os.cpu_count() or 1, _MOST_AT_ONCE)
  return batch_size, 2


def _circumstances(batch_size: int) -> str:
  """What else decides a feature's last bits, or its meaning.

  The code of this package as a whole: the drawing of weights, the calibration
  and the input's scale are part of it. CPUs are all one device here: a cache
  that different ones share may mix their last bits.
  """
  digest = hashlib.sha256()
  package = pathlib.Path(__file__).parent
  for path in sorted(package.rglob('*.py')):
    digest.update(path.read_bytes())
  device = jax.devices()[0]
  versions = [importlib.metadata.version(n) for n in ('jax', 'jaxlib', 'flax')]
  return repr((digest.hexdigest(), versions, device.device_kind, batch_size))


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


def extract(
  backbone: Backbone,
  images: jax.Array | np.ndarray,
  *,
  cache: pathlib.Path,
  batch_size: int,
) -> Extracted:
  """Computes every image's pooled features, but for those in the cache.

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
  batch_size, at_once = _pace(batch_size)
  circumstances = _circumstances(batch_size)
  shards: dict[int, np.ndarray] = {}
  missing: dict[int, pathlib.Path] = {}
  for start in range(0, len(images), SHARD):
    pixels = np.asarray(images[start : start + SHARD])
    what = (backbone.identity, backbone.preprocessing, repr(backbone.model))
    key = hashlib.sha256(repr((*what, circumstances, pixels.shape)).encode())
    key.update(pixels.tobytes())
    path = cache / f'{key.hexdigest()[:40]}.features'
    found = _read(path, len(pixels))
    if found is None:
      missing[start] = path
    else:
      shards[start] = found
  computed, seconds = 0, 0.0
  if missing:
    variables = jax.device_put(backbone.load())
    step = make_step(
      apply_fn=backbone.model.apply, preprocessing=backbone.preprocessing
    )

    def features_of(batch: np.ndarray) -> np.ndarray:
      filled = np.resize(batch, (batch_size, *batch.shape[1:]))
      return np.asarray(step(variables, filled))[: len(batch)]

    # Compiled before the clock runs.
    features_of(np.zeros((1, *images.shape[1:]), np.uint8))
    started = time.perf_counter()
    # Processes that share a cache begin at different shards, and so share work.
    order = list(missing)
    random.Random(os.getpid()).shuffle(order)
    for start in progress.track(order, 'Computing features', len(order)):
      pixels = np.asarray(images[start : start + SHARD])
      # Another process may have been here meanwhile.
      if (found := _read(missing[start], len(pixels))) is not None:
        shards[start] = found
        continue
      firsts = range(0, len(pixels), batch_size)
      batches = [pixels[i : i + batch_size] for i in firsts]
      with futures.ThreadPoolExecutor(at_once) as pool:
        shards[start] = np.concatenate(list(pool.map(features_of, batches)))
      if not np.isfinite(shards[start]).all():
        raise InputError(
          'the features of a backbone are not finite: its weights do not fit '
          'its input, or are damaged'
        )
      computed += len(pixels)
      with files.lock(cache):
        files.write(missing[start], _pack(shards[start]))
    seconds = time.perf_counter() - started
  features = np.concatenate([shards[start] for start in sorted(shards)])
  return Extracted(features, computed, seconds)
