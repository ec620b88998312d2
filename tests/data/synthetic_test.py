"""Synthetic smears: the facts they copy, and that only shapes tell classes."""

import concurrent.futures
import os

import jax
import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.model_selection import GroupKFold

from leukemia_jax.audit import baselines
from leukemia_jax.data import synthetic, synthetic_cells

SPEC = synthetic_cells.SmearSpec()


@pytest.fixture(scope='module')
def cast():
  """A tenth of the study's images, with masks, labels and patients."""
  # Two patients a class would say little: the patients of twice the images.
  labels, patients = synthetic.assign_patients(0.25)
  labels, patients = labels[::2], patients[::2]
  key = jax.random.key(11)

  def render(i):
    return synthetic.render_image(
      key, i, int(labels[i]), int(patients[i]), spec=SPEC
    )

  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    images, masks = zip(*pool.map(render, range(len(labels))), strict=True)
  return np.stack(images), np.stack(masks), labels, patients


def test_cast_follows_the_studys_table():
  labels, patients = synthetic.assign_patients(1.0)
  assert np.bincount(labels).tolist() == [504, 985, 963, 804]
  people = [len(set(patients[labels == label])) for label in range(4)]
  assert people == [25, 20, 21, 23]
  assert len(set(patients)) == 89
  labels, patients = synthetic.assign_patients(0.001)
  assert len(labels) >= 4


def test_an_image_is_a_function_of_its_key():
  arguments = (jax.random.key(1), 5, 2, 3)
  one, mask = synthetic.render_image(*arguments, spec=SPEC)
  same, _ = synthetic.render_image(*arguments, spec=SPEC)
  other, _ = synthetic.render_image(jax.random.key(2), 5, 2, 3, spec=SPEC)
  np.testing.assert_array_equal(one, same)
  assert (one != other).mean() > 0.5
  assert one.shape == (224, 224, 3)
  assert mask.shape == (224, 224)
  assert set(np.unique(mask)) == {0, 1}


@pytest.mark.full
def test_other_sizes():
  spec = synthetic_cells.SmearSpec(size=96)
  image, mask = synthetic.render_image(jax.random.key(0), 0, 0, 0, spec=spec)
  assert image.shape == (96, 96, 3)
  assert 0 < mask.mean() < 0.5


@pytest.mark.full
def test_fields_look_like_the_published_ones(cast):
  images, masks, _, _ = cast
  ground = np.median(images.reshape(len(images), -1, 3), 1).mean(0)
  assert (ground > 215).all()
  white = images[masks > 0].mean(0)
  # About (155, 128, 245): red and green absorbed, blue hardly.
  np.testing.assert_allclose(white, (155, 128, 245), atol=30)
  counts = [ndimage.label(mask)[1] for mask in masks]
  assert 5 < np.mean(counts) < 25
  areas = masks.sum((1, 2)) / np.maximum(counts, 1)
  width = 2 * np.sqrt(areas.mean() / np.pi)
  assert 17 < width < 27


@pytest.mark.full
def test_mask_covers_the_dark_cells_alone(cast):
  images, masks, _, _ = cast
  green = images[..., 1].astype(float)
  inside = green[masks > 0].mean()
  outside = green[masks == 0].mean()
  assert inside < outside - 60


@pytest.mark.full
def test_coverage_has_one_distribution_in_every_class(cast):
  _, masks, labels, _ = cast
  share = masks.mean((1, 2))
  means = [share[labels == label].mean() for label in range(4)]
  assert max(means) - min(means) < 0.015
  for label in range(4):
    rest = share[labels != label]
    test = stats.ks_2samp(share[labels == label], rest)
    assert test.pvalue > 1e-3


@pytest.mark.full
def test_colour_does_not_tell_the_class(cast):
  images, _, labels, patients = cast
  features = baselines.colour_features(images)
  scores = [
    baselines.colour_accuracy(features, labels, train, test)
    for train, test in GroupKFold(5).split(images, labels, patients)
  ]
  assert np.mean(scores) < 0.40


@pytest.mark.full
def test_classes_differ_in_shape(cast):
  _, masks, labels, _ = cast
  sizes = []
  for label in range(4):
    areas = []
    for mask in masks[labels == label]:
      cells, count = ndimage.label(mask)
      areas += ndimage.sum_labels(mask, cells, range(1, count + 1)).tolist()
    sizes.append(np.median(areas))
  # Hematogones are the smallest cells, Pro-B blasts the largest.
  assert sizes == sorted(sizes)
  assert sizes[3] > 1.8 * sizes[0]


def test_centres_are_those_of_the_rendered_cells():
  key = jax.random.key(0)
  for i in range(4):
    _, mask = synthetic.render_image(key, i, i, i, spec=SPEC)
    centres = synthetic.cell_centres(key, i, i, spec=SPEC)
    parts, count = ndimage.label(mask)
    rows, columns = np.clip(np.round(centres).astype(int), 0, SPEC.size - 1).T
    # One cell each; these fields have none that touch.
    assert len(centres) == count
    assert sorted(parts[rows, columns]) == list(range(1, count + 1))
