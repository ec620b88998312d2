"""The best of the shortcuts, on a run's own parts."""

from typing import NamedTuple

import jax
import numpy as np

from leukemia_jax.audit import probes, properties

# Of the forests.
_SEED = 0


class BestShortcut(NamedTuple):
  """What simple properties alone would have predicted.

  Attributes:
    name: of the property, see `properties.OF_PIXELS`, or 'together'.
    model: 'forest' or 'neighbours'.
    labels: int, of the test part's images.
  """

  name: str
  model: str
  labels: np.ndarray


def best_shortcut(
  images: jax.Array,
  labels: np.ndarray,
  train: np.ndarray,
  validation: np.ndarray,
  test: np.ndarray,
) -> BestShortcut:
  """Trains every probe as a network is trained: on a part, chosen by another.

  Args:
    images: uint8, shape (n, size, size, 3).
    labels: int, shape (n,).
    train: int array, indices of the training part.
    validation: likewise; its balanced accuracy chooses one probe.
    test: likewise.

  Returns:
    What the chosen probe predicts.
  """
  from sklearn.metrics import balanced_accuracy_score

  measured = properties.measure(images)
  measured['together'] = probes.join(
    [measured[name] for name in properties.OUTSIDE_CELLS]
  )
  best = -1.0
  for name, values in measured.items():
    for kind, model in probes.models(_SEED, len(train)).items():
      model.fit(values[train], labels[train])
      score = balanced_accuracy_score(
        labels[validation], model.predict(values[validation])
      )
      if score > best:
        best = score
        chosen = BestShortcut(name, kind, model.predict(values[test]))
  return chosen
