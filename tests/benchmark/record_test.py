"""How turns are summed up."""

from leukemia_jax.benchmark import record


def test_a_ratio_is_of_turns_side_by_side():
  # A machine that is three times as fast in its second turn.
  assert record.to_ratio([2.0, 6.0, 2.0], [1.0, 3.0, 1.0]) == 2
  # Not 4 : 3, the medians'.
  assert record.to_ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0]) == 2
