"""Measures ways to tell images that a classifier was not trained on.

    python -m reproduce.measure_outliers --run=runs/first

takes the finished run of the README's first command, draws the fields of its
test part again, makes six kinds of other images of them (`unlike_images`), and
compares eight ways at two layers of the network. Thresholds are those of 5 %
false alarms on the validation part. Writes results/outliers.json; two minutes
on two cores.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image
from scipy import special
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from leukemia_jax import build, models
from leukemia_jax.data import (
  decode,
  input_pipeline,
  synthetic,
  synthetic_cells,
)
from leukemia_jax.metrics import conformal, outliers
from leukemia_jax.models.layers import FIRST_STAGE
from leukemia_jax.transforms.preprocess import preprocess
from leukemia_jax.workdir import saved
from leukemia_jax.workdir.saved import Trained
from reproduce import unlike_images
from reproduce.stored import measure_run

LAYERS = ('first_stage', 'last')
_FALSE_ALARMS = 0.05
_BATCH = 32
# Maps training features and labels to a function that says how far features
# are.
Fit = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


class Looks(NamedTuple):
  """What a network makes of n images: logits, and features by layer."""

  logits: np.ndarray
  first_stage: np.ndarray
  last: np.ndarray


def _one_gaussian(features: np.ndarray, _: np.ndarray) -> Any:
  fitted = LedoitWolf().fit(features)
  return lambda own: np.sqrt(fitted.mahalanobis(own))


def _classes(features: np.ndarray, labels: np.ndarray) -> Any:
  detector = outliers.fit(features, labels)
  return lambda own: outliers.distances(detector, own)


def _neighbours(features: np.ndarray, _: np.ndarray) -> Any:
  fitted = NearestNeighbors(n_neighbors=5).fit(features)
  return lambda own: fitted.kneighbors(own)[0][:, -1]


def _mixture(features: np.ndarray, _: np.ndarray) -> Any:
  reduced = PCA(0.95, whiten=True, random_state=0).fit(features)
  fitted = GaussianMixture(4, covariance_type='diag', random_state=0)
  fitted.fit(reduced.transform(features))
  return lambda own: -fitted.score_samples(reduced.transform(own))


def _isolation(features: np.ndarray, _: np.ndarray) -> Any:
  fitted = IsolationForest(random_state=0).fit(features)
  return lambda own: -fitted.score_samples(own)


def _local(features: np.ndarray, _: np.ndarray) -> Any:
  fitted = LocalOutlierFactor(20, novelty=True).fit(features)
  return lambda own: -fitted.score_samples(own)


def _residual(features: np.ndarray, _: np.ndarray) -> Any:
  fitted = PCA(0.95, random_state=0).fit(features)

  def distance(own: np.ndarray) -> np.ndarray:
    again = fitted.inverse_transform(fitted.transform(own))
    return ((own - again) ** 2).sum(1)

  return distance


WAYS: dict[str, Fit] = {
  'mahalanobis_by_class': _classes,
  'mahalanobis': _one_gaussian,
  'fifth_neighbour': _neighbours,
  'gaussian_mixture': _mixture,
  'isolation_forest': _isolation,
  'local_outlier_factor': _local,
  'pca_residual': _residual,
}
ENERGY = 'energy'


def _make_look(trained: Trained) -> Callable[[np.ndarray], Looks]:
  config = trained.config
  model = build.create_model(config, trained.result.model.num_outputs)

  @jax.jit
  def step(variables: Any, images: jax.Array) -> tuple[jax.Array, ...]:
    scaled = preprocess(images, config.model.preprocess)
    (logits, named), taps = model.apply(
      variables, scaled, train=False, mutable=['intermediates']
    )
    (first,) = taps['intermediates']['backbone'][FIRST_STAGE]
    return logits, models.pool(first), models.pool(named['features'])

  def look(images: np.ndarray) -> Looks:
    parts = []
    for at in range(0, len(images), _BATCH):
      batch = images[at : at + _BATCH]
      filled = np.resize(batch, (_BATCH, *batch.shape[1:]))
      arrays = step(trained.variables, filled)
      parts.append([np.asarray(array)[: len(batch)] for array in arrays])
    return Looks(*(np.concatenate(own) for own in zip(*parts, strict=True)))

  return look


def _other_images(
  paths: list[str], labels: np.ndarray, seed: int
) -> dict[str, list[np.ndarray]]:
  """The kinds, made of fields that are drawn again."""
  key, spec = jax.random.key(seed), synthetic_cells.SmearSpec()
  fields, masks = [], []
  for path, label in zip(paths, labels, strict=True):
    *_, patient, number = pathlib.PurePosixPath(path).stem.split('-')
    image, mask = synthetic.render_image(
      key, int(number), int(label), int(patient), spec=spec
    )
    fields.append(image)
    masks.append(mask > 0)
  stack, cells = np.stack(fields), np.stack(masks)
  rng = np.random.default_rng(0)
  return {
    'single_cells': unlike_images.single_cells(stack, cells, rng),
    'other_stain': unlike_images.other_stain(stack, rng),
    'half_scale': unlike_images.half_scale(stack, rng),
    'defocused': unlike_images.defocused(stack, rng),
    'photographs': unlike_images.photographs(rng),
    'blank': unlike_images.blank(stack, rng),
  }


def _score(
  distance: Callable[[Looks], np.ndarray],
  validation: Looks,
  test: Looks,
  kinds: dict[str, Looks],
) -> dict[str, Any]:
  """Areas under curves, and what is flagged."""
  limit = conformal.upper_quantile(distance(validation), 1 - _FALSE_ALARMS)
  own = distance(test)
  far = {kind: distance(looks) for kind, looks in kinds.items()}
  truth = {
    kind: np.repeat([0, 1], [len(own), len(values)])
    for kind, values in far.items()
  }
  return {
    'false_alarms': float((own > limit).mean()),
    'roc_auc': {
      kind: float(roc_auc_score(truth[kind], np.concatenate([own, values])))
      for kind, values in far.items()
    },
    'flagged': {
      kind: float((values > limit).mean()) for kind, values in far.items()
    },
  }


def measure(run: pathlib.Path) -> dict[str, Any]:
  """Compares all ways on the images of a run."""
  trained = saved.load_trained(run)
  config = trained.config
  loaded, catalogue = input_pipeline.load(build.inputs(config, 'classes').spec)
  split = saved.read_split(run).split
  parts = [np.unique(part[:, 0]) for part in split]
  images, labels = np.asarray(loaded.images), np.asarray(loaded.labels)
  look = _make_look(trained)
  train, validation, test = (look(images[part]) for part in parts)
  others = _other_images(
    [catalogue.ids[i] for i in parts[2]],
    labels[parts[2]],
    config.synthetic.seed,
  )
  size = config.data.image_size
  kinds = {
    kind: look(
      np.stack([decode.to_size(Image.fromarray(own), size) for own in made_of])
    )
    for kind, made_of in others.items()
  }
  ways: dict[str, Any] = {}
  for layer in LAYERS:
    features = getattr(train, layer)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    for name, fit in WAYS.items():
      fitted = fit((features - mean) / deviation, labels[parts[0]])

      def distance(
        looks: Looks, fitted=fitted, layer=layer, mean=mean, size=deviation
      ) -> np.ndarray:
        return fitted((getattr(looks, layer) - mean) / size)

      ways[f'{name}.{layer}'] = _score(distance, validation, test, kinds)
  ways[ENERGY] = _score(
    lambda looks: -special.logsumexp(looks.logits, 1), validation, test, kinds
  )
  return {
    'command': 'python -m reproduce.measure_outliers --run=runs/first',
    'false_alarms': _FALSE_ALARMS,
    'images': {'test': len(parts[2])}
    | {kind: len(own) for kind, own in others.items()},
    'ways': ways,
  }


if __name__ == '__main__':
  measure_run(__doc__, 'outliers', measure)
