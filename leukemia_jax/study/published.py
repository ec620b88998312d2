"""The published study's printed figures, to stand beside a run's own."""

import csv
import importlib.resources
import io

from leukemia_jax.data import synthetic

# A row that is a copy of another, and a test loss that repeats the accuracy.
_COPIED = ('NASNetLarge', 1, 0.0001, 0.4)
_MISPRINTED = {('NASNetLarge', 1, 0.01, 0.4): ('test_loss',)}
# Soft Dice and soft IoU on the test part, and what they are of.
SOFT_CONDITIONS = '224 px, masks by grey>128'
SOFT_SCORES = {'unet': (0.9184, 0.7241), 'unet_fpn': (0.9199, 0.7238)}
# The set that all figures are of: images by class.
IMAGES = dict(zip(synthetic.CLASSES, synthetic.STUDY_IMAGES, strict=True))
# What the classifiers' figures are of.
CONDITIONS = {
  'weights': 'imagenet',
  'width': 1.0,
  'image_size': 224,
  'dtype': 'mixed float16',
  'preprocess': 'unit',
  'loss': 'keras_clipped',
  'protocol': 'balance_then_split',
}


def figures() -> dict[tuple[str, int, float, float], dict[str, float]]:
  """The study's printed figures, as they stand in its tables.

  Returns:
    Figures by column, by model, option, rate and dropout, without those that
    are plainly misprinted.
  """
  file = importlib.resources.files('leukemia_jax.study') / 'published.csv'
  every = {}
  for row in csv.DictReader(io.StringIO(file.read_text())):
    key = (
      row.pop('model'),
      int(row.pop('loading_option')),
      float(row.pop('learning_rate')),
      float(row.pop('dropout')),
    )
    misprinted = row if key == _COPIED else _MISPRINTED.get(key, ())
    every[key] = {
      name: float(value)
      for name, value in row.items()
      if name not in misprinted
    }
  return every
