"""InceptionResNetV2's fields; keras_weights_test.py compares it with Keras."""

import jax
import jax.numpy as jnp
import pytest
from conftest import count, shapes

from leukemia_jax.models.inception_resnet_v2 import InceptionResNetV2


def test_width_and_blocks_make_it_small():
  small = shapes('inception_resnet_v2', 4, width=0.25, blocks=(1, 1, 1))
  assert count(small['params']) < 1_000_000


def test_too_small_an_image():
  with pytest.raises(ValueError, match='75 px or more'):
    InceptionResNetV2().init(
      jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False
    )
