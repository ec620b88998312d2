"""Sets that stay on disk: the batches, steps and scores of those in memory."""

import jax
import numpy as np
import pytest
from leukemia_jax.configs import default, unet

from leukemia_jax import build, sharding
from leukemia_jax.data import input_pipeline, streaming
from leukemia_jax.errors import InputError


def load(cache, module, **changes):
  """A small set as a config reads it."""
  config = module.get_config()
  config.synthetic.scale = 0.03
  config.data.image_size = 48
  config.data.cache_dir = cache.partition('=')[2]
  config.data.update(changes)
  targets = 'masks' if module is unet else 'classes'
  inputs = build.inputs(config, targets)
  return *input_pipeline.load(inputs.spec), inputs


@pytest.mark.parametrize('module', [default, unet])
@pytest.mark.parametrize(
  'changes', [{}, {'hide_corners': True, 'neutral_background': True}]
)
def test_batches_are_those_of_memory(cache, module, changes):
  in_memory, first, _ = load(cache, module, **changes)
  on_disk, second, _ = load(cache, module, stream=True, **changes)
  assert on_disk.is_on_disk and not in_memory.is_on_disk
  assert first.ids == second.ids
  assert on_disk.images.shape == in_memory.images.shape
  rows = np.random.default_rng(0).permutation(len(first.ids))[:30].reshape(6, 5)
  pairs = zip(
    streaming.batches(in_memory, rows),
    streaming.batches(on_disk, rows),
    strict=True,
  )
  for (whole, indices), (batch, nothing) in pairs:
    assert nothing is None
    jax.tree.map(np.testing.assert_array_equal, whole.take(indices), batch)
  np.testing.assert_array_equal(in_memory.images[3], on_disk.images[3])
  np.testing.assert_array_equal(in_memory.images[5:9], on_disk.images[5:9])


def test_shares_of_a_batch(cache):
  on_disk, _, _ = load(cache, default, stream=True)
  rows, mesh = np.arange(8).reshape(2, 4), sharding.make_mesh(1, 4)
  weights = np.ones(rows.shape, np.float32)
  shared = streaming.shared_batches(on_disk, rows, weights, mesh)
  for row, (batch, _, weight) in zip(rows, shared, strict=True):
    np.testing.assert_array_equal(batch.images, on_disk.images[row])
    assert batch.images.sharding == weight.sharding == sharding.by_batch(mesh)


def test_copies_are_refused(cache):
  data, catalogue, inputs = load(
    cache, default, stream=True, protocol='balance_then_split', per_class=40
  )
  split = input_pipeline.make_split(inputs.keys.split, catalogue, inputs.spec)
  with pytest.raises(InputError, match=r'config\.data\.stream=True keeps'):
    input_pipeline.materialise(
      split, data, key=inputs.keys.copies, augment=inputs.augment
    )
