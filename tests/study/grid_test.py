"""The grid: as the published tables number it."""

from leukemia_jax.configs import default

from leukemia_jax import models
from leukemia_jax.study import grid, published


def test_rows_are_numbered_as_the_published_table():
  rows = grid.grid(default.get_config().study)
  assert [row.number for row in rows] == list(range(48))
  expected = list(published.figures())
  ours = [
    (models.TITLES[r.model], r.option, r.learning_rate, r.dropout_rate)
    for r in rows
    if r.option == 1
  ]
  assert ours == expected
