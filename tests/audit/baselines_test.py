"""Baselines that look at no cell, and that balancing doesn't mark a class."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from leukemia_jax.configs import default

from leukemia_jax import build
from leukemia_jax.audit import baselines
from leukemia_jax.data import synthetic, synthetic_cells
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.transforms import augment


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
    baselines.balancing_trace(
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
  before, after = (baselines.trace_features(x) for x in (images, coded))
  # Steps across the block grid stand out, in both directions.
  assert (after[:, 0] > before[:, 0] + 0.02).mean() > 0.9
  assert (after[:, 2] > before[:, 2] + 0.02).mean() > 0.9


def test_colour_baseline_by_hand():
  rng = np.random.default_rng(0)
  labels = np.arange(40) % 2
  images = rng.integers(0, 50, (40, 8, 8, 3), dtype=np.uint8)
  images[labels == 1, ..., 0] += 100
  features = baselines.colour_features(images)
  np.testing.assert_allclose(features[3, :3], images[3].mean((0, 1)))
  np.testing.assert_allclose(features[3, 3:], images[3].std((0, 1)))
  train, test = np.arange(20), np.arange(20, 40)
  assert baselines.colour_accuracy(features, labels, train, test) == 1.0


def stained(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """A field whose cells are violet, more or less, on a pink ground."""
  rng = np.random.default_rng(seed)
  mask = rng.uniform(size=(20, 20)) < 0.3
  colours = np.where(mask[..., None], (130, 70, 200), (230, 190, 210))
  noise = rng.normal(0, 25, (20, 20, 3))
  return np.clip(colours + noise, 0, 255).astype(np.uint8), mask


def pooled_dice(pairs, rule) -> float:
  masks = [(m, baselines.apply_colour_rule(i, rule)) for i, m in pairs]
  both = sum((a & b).sum() for a, b in masks)
  return 2 * both / sum(a.sum() + b.sum() for a, b in masks)


def test_no_colour_rule_of_the_grid_is_better():
  pairs = [stained(seed) for seed in range(3)]
  rule = baselines.fit_colour_rule(iter(pairs))
  best = pooled_dice(pairs, rule)
  assert best > 0.95
  rng = np.random.default_rng(0)
  for _ in range(300):
    other = baselines.ColourRule(
      4 * int(rng.integers(64)),
      4 * int(rng.integers(1, 65)),
      8 * int(rng.integers(16)),
      8 * int(rng.integers(16)),
    )
    assert pooled_dice(pairs, other) <= best + 1e-9
  for field in ('hue', 'arc', 'saturation', 'value'):
    for change in (-8, 8):
      value = max(0, getattr(rule, field) + change)
      other = dataclasses.replace(rule, **{field: value})
      assert pooled_dice(pairs, other) <= best + 1e-9


def test_a_colour_rules_arc_goes_round_the_circle():
  image = np.array([[(255, 0, 10), (255, 10, 0), (0, 255, 0)]], np.uint8)
  rule = baselines.ColourRule(hue=240, arc=32, saturation=8, value=8)
  assert baselines.apply_colour_rule(image, rule).tolist() == [
    [True, True, False]
  ]
  assert (
    baselines.fit_colour_rule([(image, np.array([[1, 1, 0]], bool))]).arc < 200
  )
