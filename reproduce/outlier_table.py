"""Ways to tell images that a classifier was not trained on, as a table."""

import pathlib

from leukemia_jax.reporting import pages
from reproduce.stored import read

_LAYERS = {'first_stage': 'first stage', 'last': 'last'}


def outliers(_: pathlib.Path) -> str:
  """Area under the curve for each kind of image, by way and layer."""
  stored = read('outliers')
  kinds = [kind for kind in stored['images'] if kind != 'test']
  cells = []
  for name, own in stored['ways'].items():
    way, _, layer = name.partition('.')
    areas = [pages.number(own['roc_auc'][kind], 3) for kind in kinds]
    alarms = pages.percent(own['false_alarms'])
    words = way.replace('_', ' ')
    cells.append([words, _LAYERS.get(layer, 'logits'), *areas, alarms])
  titles = [kind.replace('_', ' ') for kind in kinds]
  return pages.table(['way', 'layer', *titles, 'test images flagged, %'], cells)
