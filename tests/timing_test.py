"""Images a second of a call."""

from leukemia_jax import timing


def test_turns_count_images(monkeypatch):
  seconds = [0.0]
  monkeypatch.setattr(timing.time, 'perf_counter', lambda: seconds[0])

  def call(taken):
    seconds[0] += taken

  assert timing.measure_rate(lambda: call(0.25), 5) == 5 / 0.25
  # Two calls at least, however long they take.
  before = seconds[0]
  assert timing.measure_rate(lambda: call(30), 5) == 5 / 30
  assert seconds[0] - before == 60
