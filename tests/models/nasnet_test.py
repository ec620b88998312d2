"""NASNet's fields; pretrained/keras_weights_test.py compares it with Keras."""

import jax
import jax.numpy as jnp
import pytest
from conftest import count, shapes

from leukemia_jax.models import nasnet


def test_cells_of_the_paper():
  names = [name for name, _, _ in nasnet.cells((2, 1, 1))]
  assert names == [
    'stem_1',
    'stem_2',
    'normal_0_0',
    'normal_0_1',
    'reduction_1',
    'normal_1_0',
    'reduction_2',
    'normal_2_0',
  ]


def test_width_and_blocks_make_it_small():
  small = shapes('nasnet_mobile', 4, width=0.5, blocks=(1, 1, 1))
  assert count(small['params']) < 1_000_000
  # No filter is left, but for four a cell.
  assert count(shapes('nasnet_mobile', 4, width=0.001)['params']) > 0


@pytest.mark.parametrize('shape', [(31, 64), (64, 31)])
def test_too_small_an_image(shape):
  with pytest.raises(ValueError, match='32 px or more'):
    shapes_of = nasnet.NASNet(96, 8, True)
    shapes_of.init(jax.random.key(0), jnp.zeros((1, *shape, 3)), False)
