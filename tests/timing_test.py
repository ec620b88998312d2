"""Images a second of a call."""

from leukemia_jax import timing


def test_turns_count_images(monkeypatch):
  monkeypatch.setattr(timing, '_TURN_SECONDS', 0.0)
  calls = []
  rate = timing.measure_rate(lambda: calls.append(0), 5)
  assert len(calls) == timing.FEWEST_CALLS
  assert rate > 0
