"""That balancing doesn't mark a class, and that the probe would see it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from leukemia_jax.configs import default

from leukemia_jax import build
from leukemia_jax.data import synthetic, synthetic_cells
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.transforms import augment
from reproduce import balancing_trace


@pytest.fixture(scope='module')
def smears() -> tuple[Dataset, Catalogue]:
  """Smears with the study's imbalance: half as many of class 0."""
  labels = np.repeat(np.arange(4), (60, 120, 120, 100)).astype(np.int32)
  images = draw(labels)
  names = tuple(str(i) for i in range(len(labels)))
  catalogue = Catalogue(
    class_names=synthetic.CLASSES,
    labels=labels,
    ids=names,
    patients=names,
    parts=('',) * len(names),
    pixel_hashes=names,
    mean_colours=np.zeros((len(names), 3)),
    fingerprint='',
    coverage=np.full(len(labels), np.nan),
    num_masks=0,
    num_multicolour_masks=0,
    mask_side=0,
  )
  return Dataset(jnp.asarray(np.stack(images)), jnp.asarray(labels)), catalogue


def draw(labels: np.ndarray) -> list[np.ndarray]:
  """Smears of labels, of twenty patients."""
  spec = synthetic_cells.SmearSpec(size=96)
  return [
    synthetic.render_image(jax.random.key(2), i, y, i % 20, spec=spec)[0]
    for i, y in enumerate(labels)
  ]


def probe(smears, protocol, fill='edge') -> float:
  data, catalogue = smears
  config = default.get_config()
  config.data.protocol, config.augment.fill = protocol, fill
  keys, spec, augmentation = build.inputs(config, 'classes')
  scores = [
    balancing_trace.balancing_trace(
      catalogue,
      data,
      spec=spec,
      augment=augmentation,
      keys=(keys.split, keys.copies, keys.train),
      seed=seed,
    )
    for seed in range(3)
  ]
  return float(np.mean(scores))


@pytest.mark.full
def test_the_default_protocol_leaves_no_trace_of_the_class(smears):
  # Chance is 0.25; three permutations of 340 labels have a deviation of 0.015.
  assert probe(smears, 'split_then_balance') < 0.31


@pytest.mark.full
def test_the_studys_protocol_marks_the_class(smears):
  """The same probe finds the trace where there is one: it can fail."""
  ours = probe(smears, 'split_then_balance', fill='constant')
  theirs = probe(smears, 'balance_then_split', fill='constant')
  assert theirs > 0.32
  assert theirs > ours + 0.04


@pytest.mark.full
def test_trace_features_see_traces():
  images = np.stack(draw(np.zeros(40, int)))
  keys = jax.random.split(jax.random.key(0), len(images))
  only_jpeg = functools.partial(
    augment.augment,
    brightness_delta=0,
    contrast_delta=0,
    rotation=0,
    jpeg_quality=(30, 30),
    flip_horizontal=False,
    flip_vertical=False,
  )
  coded = np.asarray(jax.vmap(only_jpeg)(keys, images))
  before, after = (balancing_trace.trace_features(x) for x in (images, coded))
  # Steps across the block grid stand out, in both directions.
  assert (after[:, 0] > before[:, 0] + 0.02).mean() > 0.9
  assert (after[:, 2] > before[:, 2] + 0.02).mean() > 0.9
