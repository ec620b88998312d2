"""Scores of masks against scikit-learn, SciPy and counting by hand."""

import numpy as np
import pytest
from drawn_masks import EMPTY, HALF_EMPTY, PAIRS, blobs, discs
from scipy.spatial import distance
from sklearn import metrics as sklearn

from leukemia_jax.metrics import segmentation


@pytest.mark.parametrize('pair', [*PAIRS, *HALF_EMPTY, (EMPTY, EMPTY)])
def test_overlap_is_scikit_learns(pair):
  truth, predicted = (mask.ravel() for mask in pair)
  got = segmentation.overlap(segmentation.counts(*pair))
  expected = {
    'accuracy': sklearn.accuracy_score(truth, predicted),
    'precision': sklearn.precision_score(truth, predicted, zero_division=1),
    'recall': sklearn.recall_score(truth, predicted, zero_division=1),
    'iou': sklearn.jaccard_score(truth, predicted, zero_division=1),
    'dice': sklearn.f1_score(truth, predicted, zero_division=1),
  }
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    assert got[name] == pytest.approx(value, abs=1e-12), name


def test_pooled_is_all_pixels_together_and_mean_is_of_images():
  pairs = [*PAIRS, *HALF_EMPTY]
  truth, predicted = (np.stack(masks) for masks in zip(*pairs, strict=True))
  got = segmentation.pooled(segmentation.counts(truth, predicted))
  assert got.images == len(pairs)
  flat = truth.ravel(), predicted.ravel()
  assert got.dice == pytest.approx(sklearn.f1_score(*flat), abs=1e-12)
  assert got.iou == pytest.approx(sklearn.jaccard_score(*flat), abs=1e-12)
  each = [
    sklearn.f1_score(t.ravel(), c.ravel(), zero_division=1) for t, c in pairs
  ]
  assert got.mean_dice == pytest.approx(np.mean(each), abs=1e-12)


def border_points(mask: np.ndarray) -> np.ndarray:
  """Pixels with a 4-neighbour that is ground, or none; by looking at each."""
  points = []
  for y, x in zip(*np.nonzero(mask), strict=True):
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
      inside = 0 <= y + dy < mask.shape[0] and 0 <= x + dx < mask.shape[1]
      if not inside or not mask[y + dy, x + dx]:
        points.append((y, x))
        break
  return np.array(points)


@pytest.mark.parametrize('pair', PAIRS)
def test_border_scores_are_those_of_all_pairs_of_points(pair):
  truth, predicted = (border_points(mask) for mask in pair)
  table = distance.cdist(truth, predicted)
  of_truth, of_called = table.min(1), table.min(0)
  f1, hausdorff = segmentation.border_scores(*pair)
  recall, precision = ((d <= 2).mean() for d in (of_truth, of_called))
  total = precision + recall
  assert f1 == pytest.approx(2 * precision * recall / total if total else 0)
  expected = max(np.percentile(of_truth, 95), np.percentile(of_called, 95))
  assert hausdorff == pytest.approx(expected)
  # The 100 % distance is SciPy's.
  furthest = max(d.max() for d in segmentation.border_distances(*pair))
  both = (truth, predicted), (predicted, truth)
  assert furthest == pytest.approx(
    max(distance.directed_hausdorff(*p)[0] for p in both)
  )


def test_border_scores_of_empty_masks():
  f1, distance = segmentation.border_scores(EMPTY, EMPTY)
  assert f1 == 1 and np.isnan(distance)
  for pair in HALF_EMPTY:
    f1, distance = segmentation.border_scores(*pair)
    assert f1 == 0 and np.isnan(distance)


def test_summary_pools_cells_and_averages_the_rest():
  truth = np.stack([discs((30, 30), (80, 80)), discs((30, 30))])
  predicted = np.stack([discs((30, 30)), discs((30, 31), (80, 80), (30, 80))])
  got = scored(truth, predicted)
  assert (got.images, got.cells) == (2, 3)
  # Two true positives, two false positives, one false negative.
  assert got.cell_f1 == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
  assert got.cell_count_error == pytest.approx((1 + 2) / 2)
  borders = [
    segmentation.border_scores(*pair)
    for pair in zip(truth, predicted, strict=True)
  ]
  f1, distance = np.mean(borders, 0)
  assert got.border_f1 == pytest.approx(f1)
  assert got.hausdorff_95 == pytest.approx(distance)
  assert got.one_mask_empty == 0


def scored(truth: np.ndarray, predicted: np.ndarray) -> segmentation.MaskScores:
  images = [
    segmentation.image_scores(*pair, smallest=4)
    for pair in zip(truth, predicted, strict=True)
  ]
  return segmentation.summary(segmentation.counts(truth, predicted), images)


def test_distances_are_of_pairs_with_cells_and_others_are_counted():
  cell, empty = discs((30, 30)), np.zeros((112, 112), bool)
  truth, predicted = (
    np.stack([cell, cell, empty]),
    np.stack([cell, empty, empty]),
  )
  got = scored(truth, predicted)
  assert got.hausdorff_95 == 0 and got.one_mask_empty == 1
  assert got.border_f1 == pytest.approx((1 + 0 + 1) / 3)
  nothing = scored(truth[1:], predicted[1:])
  assert nothing.hausdorff_95 is None and nothing.one_mask_empty == 1


def test_soft_forms_are_the_studys():
  rng = np.random.default_rng(0)
  truth = np.stack([blobs(i) for i in range(13)])
  probability = rng.uniform(size=truth.shape).astype(np.float32)
  sums = [
    segmentation.soft_sums(truth[i : i + 4], probability[i : i + 4])
    for i in range(0, 13, 4)
  ]
  got = segmentation.soft_scores(np.concatenate(sums))

  def dice(t, p):
    return (2 * (t * p).sum() + 1) / (t.sum() + p.sum() + 1)

  def iou(t, p):
    return ((t * p).sum() + 1) / (t.sum() + p.sum() - (t * p).sum() + 1)

  pairs = list(zip(truth.astype(float), probability.astype(float), strict=True))
  first, last = pairs[:10], pairs[10:]
  expected = np.mean([dice(*np.stack(p, 1)) for p in (first, last)])
  assert got.dice == pytest.approx(expected, rel=1e-6)
  assert got.iou == pytest.approx(np.mean([iou(*p) for p in pairs]), rel=1e-6)


def test_the_best_threshold():
  truth = blobs(5)
  probability = np.where(truth, 0.62, 0.38)
  predicted = probability > segmentation.THRESHOLDS[:, None, None]
  counted = segmentation.counts(truth[None], predicted)
  # 0.4 .. 0.6 are all perfect: the middle one.
  best = segmentation.best_threshold(counted)
  assert segmentation.THRESHOLDS[best] == pytest.approx(0.5)


def test_pixel_confusion_is_scikit_learns():
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 2, (5, 6, 7, 1)).astype(np.float32)
  masks = rng.integers(0, 2, logits.shape).astype(np.uint8)
  masks[0], masks[1] = 0, 1
  weights = np.array([1, 1, 0, 1, 0], np.float32)
  got = segmentation.pixel_confusion(logits, masks, weights)
  chosen = weights > 0
  counts = sklearn.confusion_matrix(
    masks[chosen].ravel(), logits[chosen].ravel() > 0
  )
  np.testing.assert_allclose(got, counts / masks[0].size, rtol=1e-5)
  dice = sklearn.f1_score(masks[chosen].ravel(), logits[chosen].ravel() > 0)
  assert segmentation.dice(got) == pytest.approx(dice, rel=1e-5)
  assert segmentation.dice(np.array([[3.0, 0.0], [0.0, 0.0]])) == 1.0
