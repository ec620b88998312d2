"""Baselines that look at no cell."""

import dataclasses

import numpy as np

from leukemia_jax.audit import baselines


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
