"""New runs' states."""

import functools

import jax
import numpy as np
import pytest

from leukemia_jax import models
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import init_state, new_state


@pytest.mark.full
def test_many_draws_of_few_shapes_are_as_drawn_one_by_one():
  model = models.create(
    'nasnet_mobile', num_classes=4, width=0.05, blocks=(1, 1, 1)
  )
  fields = {
    'model': model,
    'tx': make_optimizer(freeze_backbone=False),
    'shape': (32, 32, 3),
    'learning_rate': 0.1,
  }
  key = jax.random.key(0)
  state = init_state(key, **fields)
  expected = jax.jit(
    functools.partial(new_state, **fields),
    compiler_options={'xla_backend_optimization_level': 0},
  )(key)
  assert jax.tree.structure(state) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  # Else a step could not overwrite them.
  leaves = jax.tree.leaves(state)
  assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
  # Else a step would be traced again.
  for leaf, own in zip(*map(jax.tree.leaves, (state, expected)), strict=True):
    assert leaf.aval == own.aval
