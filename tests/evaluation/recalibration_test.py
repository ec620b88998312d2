"""A temperature from a few images: what it mends, and what it is scored on."""

import jax
import numpy as np
import pytest
from scipy import special

from leukemia_jax.evaluation import recalibration
from leukemia_jax.evaluation.assessment import IntervalGroups, Outcomes
from leukemia_jax.metrics import bootstrap


def drawn(count=600, too_sure=4.0, num_groups=600):
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 1.5, (count, 3))
  probabilities = special.softmax(logits, 1)
  truth = (rng.random((count, 1)) > probabilities.cumsum(1)).sum(1)
  groups = bootstrap.make_groups(np.arange(count) % num_groups, truth)
  over = IntervalGroups(groups, 'patient', jax.random.key(0))
  said = special.softmax(logits * too_sure, 1)
  predicted, losses = said.argmax(1), np.zeros(count)
  return Outcomes(truth, predicted, said, losses, 1.2, 50), over


def test_a_few_images_mend_what_a_far_temperature_does_not():
  outcomes, over = drawn()
  record, chosen = recalibration.recalibrate(
    jax.random.key(1), outcomes, over, 64
  )
  low, high = record.temperatures
  assert low < 4 < high and low < record.temperature < high
  assert record.raw.mean > record.home.mean > 2.5 * record.local.mean
  assert record.local.middle_95[0] < record.local.mean
  assert len(set(chosen.tolist())) == 64
  again = recalibration.recalibrate(jax.random.key(1), outcomes, over, 64)
  assert again[0] == record
  more, _ = recalibration.recalibrate(jax.random.key(1), outcomes, over, 300)
  low_of_more, high_of_more = more.temperatures
  assert high_of_more - low_of_more < high - low


def test_groups_that_were_drawn_from_are_not_scored():
  outcomes, over = drawn(num_groups=4)
  # 600 images of four patients: every draw of 64 knows all of them.
  got = recalibration.recalibrate(jax.random.key(1), outcomes, over, 64)
  assert got is None
  # Of one image, the other three patients are scored.
  record, _ = recalibration.recalibrate(jax.random.key(1), outcomes, over, 1)
  assert record.images == 1


def test_without_a_temperature_of_the_training_run():
  outcomes, over = drawn()
  record, _ = recalibration.recalibrate(
    jax.random.key(1), outcomes._replace(temperature=None), over, 32
  )
  assert record.home == record.raw
  assert record.raw.mean == pytest.approx(0.3, abs=0.1)
