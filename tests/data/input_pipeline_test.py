"""A split of images with masks, where some masks are empty."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import catalogue
from leukemia_jax.configs import unet

from leukemia_jax import build
from leukemia_jax.data import input_pipeline
from leukemia_jax.errors import InputError


def make_split(coverage):
  config = unet.get_config()
  config.data.drop_empty_masks = True
  images = dataclasses.replace(
    catalogue([0] * len(coverage)), coverage=np.asarray(coverage)
  )
  spec = build.inputs(config, 'masks').spec
  return input_pipeline.make_split(jax.random.key(0), images, spec)


def test_a_training_part_without_cells_is_refused():
  refused = 0
  for at in range(8):
    try:
      split = make_split(np.where(np.arange(8) == at, 0.3, 0))
    except InputError as error:
      assert 'leaves no image to train on' in str(error)
      refused += 1
    else:
      assert split.train.tolist() == [[at, 0]]
  # Of eight images one is held out for validation and one for the test.
  assert refused == 2


def test_a_class_without_cells_is_refused():
  with pytest.raises(InputError, match='all 8 masks of class 0 are empty'):
    make_split([0] * 8)
