"""What a classifier's page says of scores that say less than they seem to."""

import dataclasses

import pytest

from leukemia_jax.reporting import class_page, run_page
from leukemia_jax.workdir import result
from leukemia_jax.workdir.records import (
  ErrorOverDraws,
  Recalibration,
  Shortcut,
)

CAUTION = 'The score alone does not show that cells were looked at.'


@pytest.mark.parametrize(
  ('above', 'ends', 'is_doubtful'),
  [
    (0.2, [0.1, 0.3], False),
    (0.2, [-0.1, 0.5], True),
    # Nobody knows how far it may be by chance.
    (0.2, None, True),
    (-0.1, [-0.2, -0.05], True),
  ],
)
def test_who_is_not_surely_above_a_shortcut(trained, above, ends, is_doubtful):
  known = result.read(trained)
  shortcut = Shortcut('colour', 'forest', 0.6, above, ends)
  known = dataclasses.replace(
    known, baselines=dataclasses.replace(known.baselines, shortcut=shortcut)
  )
  assert (CAUTION in ' '.join(class_page.verdict(known))) == is_doubtful


def test_classes_without_test_images_are_named_first(trained):
  known = result.read(trained)
  assert 'No test image' not in class_page.verdict(known)[0]
  name, *_ = known.test.by_class
  none = dataclasses.replace(known.test.by_class[name], images=0)
  test = dataclasses.replace(
    known.test, by_class=known.test.by_class | {name: none}
  )
  first = class_page.verdict(dataclasses.replace(known, test=test))[0]
  assert f'No test image is of {name}: nothing is known' in first


@pytest.mark.parametrize(('local', 'helped'), [(0.05, True), (0.2, False)])
def test_a_temperature_that_did_not_help_is_not_advised(trained, local, helped):
  errors = [ErrorOverDraws(mean, [mean, mean]) for mean in (0.3, 0.1, local)]
  known = dataclasses.replace(
    result.read(trained),
    recalibration=Recalibration(8, 100, 1.5, [1.0, 2.0], *errors),
  )
  why, _ = run_page.next_command(known, trained)
  assert why.startswith('Use this temperature') == helped
