"""The published figures."""

from leukemia_jax.study import published


def test_published_misprints_are_not_compared_with():
  figures = published.figures()
  assert 'test_loss' not in figures['NASNetLarge', 1, 0.01, 0.4]
  assert not figures['NASNetLarge', 1, 0.0001, 0.4]
  assert figures['InceptionResNetV2', 1, 0.0001, 0.0]['test_accuracy'] == 97.83
  assert sum(map(len, figures.values())) == 24 * 9 - 1 - 9
