"""Measures whether explanations lie on cells, and whether they are faithful.

    python -m reproduce.measure_explanations --run=runs/first

takes the finished run of the README's first command and draws fields of new
patients with their exact cells. Heat of HiResCAM and of integrated
gradients is compared with heat that knows nothing: by the share that lies on
cells, and by how fast the predicted class loses its probability when the
hottest pixels go first (deletion), or gains it when they come first
(insertion). Writes results/explanations.json; six minutes on two cores.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from leukemia_jax import build, progress
from leukemia_jax.data import decode
from leukemia_jax.inference import explain
from leukemia_jax.metrics import bootstrap
from leukemia_jax.workdir import saved
from reproduce import drawn_fields
from reproduce.stored import measure_run

_BATCH, _RANDOM = 32, 4
# Of each class: what ten leave open, forty tell.
_PATIENTS = 40

Curve = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _make_curves(logits: explain.Logits) -> dict[str, Curve]:
  """Both curves, compiled."""
  return {
    name: jax.jit(functools.partial(explain.curve, logits, insert=insert))
    for name, insert in (('deletion', False), ('insertion', True))
  }


def _scores(
  curves: dict[str, Curve],
  images: jax.Array,
  labels: jax.Array,
  heat: jax.Array,
  cells: jax.Array,
) -> dict[str, np.ndarray]:
  """Of each image of a batch: areas under both curves, and where heat lies."""
  areas = {
    name: np.asarray(curve(images, labels, heat)).mean(1)
    for name, curve in curves.items()
  }
  lies = np.asarray(explain.concentration(heat, cells))
  return areas | {'concentration': lies}


def measure(run: pathlib.Path) -> dict[str, Any]:
  """Explains fields by a run's network."""
  trained = saved.load_trained(run)
  config, variables = trained.config, trained.variables
  fields = drawn_fields.of_new_patients(_PATIENTS)
  size, kind = config.data.image_size, config.model.preprocess
  model = build.create_model(config, trained.result.model.num_outputs)
  logits = jax.jit(explain.logits_of(model, variables, kind))
  curves = _make_curves(logits)
  hires_cam = jax.jit(
    lambda images, labels: explain.hires_cam(
      model, variables, images, labels, preprocessing=kind
    )
  )
  rows: dict[str, dict[str, list[np.ndarray]]] = {}
  for first in progress.track(
    range(0, len(fields.images), _BATCH),
    'Explaining',
    -(-len(fields.images) // _BATCH),
  ):
    # One shape for all batches; what is there twice doesn't count twice.
    places = np.resize(np.arange(first, len(fields.images))[:_BATCH], _BATCH)
    count = min(_BATCH, len(fields.images) - first)
    images = jnp.asarray(
      np.stack(
        [
          decode.to_size(Image.fromarray(fields.images[i]), size)
          for i in places
        ]
      )
    )
    cells = jnp.asarray(
      np.stack(
        [
          np.asarray(Image.fromarray(fields.cells[i] > 0).resize((size, size)))
          for i in places
        ]
      )
    )
    labels = logits(images.astype(jnp.float32)).argmax(-1)
    gradients = explain.integrated_gradients(logits, images, labels)
    heats = {
      'hires_cam': hires_cam(images, labels),
      'integrated_gradients': jnp.abs(gradients).sum(-1),
    }
    for draw in range(_RANDOM):
      key = jax.random.fold_in(jax.random.key(draw), first)
      heats[f'random_{draw}'] = explain.random_heat(key, images.shape[:3])
    for name, heat in heats.items():
      for score, values in _scores(curves, images, labels, heat, cells).items():
        rows.setdefault(name, {}).setdefault(score, []).append(values[:count])
  values = {
    name: {score: np.concatenate(parts) for score, parts in own.items()}
    for name, own in rows.items()
  }
  nothing = {
    score: np.mean([values[f'random_{i}'][score] for i in range(_RANDOM)], 0)
    for score in values['hires_cam']
  }
  return {
    'command': 'python -m reproduce.measure_explanations --run=runs/first',
    'images': len(fields.images),
    'patients': len(np.unique(fields.patients)),
    'ways': {
      name: _compare(values[name], nothing, fields)
      for name in ('hires_cam', 'integrated_gradients')
    },
  }


def _compare(
  own: dict[str, np.ndarray],
  nothing: dict[str, np.ndarray],
  fields: drawn_fields.Fields,
) -> dict[str, Any]:
  """Means over images, with intervals over patients."""
  groups = bootstrap.make_groups(fields.patients, fields.labels)
  groups = groups.of_one_stratum()
  columns = {
    'concentration': own['concentration'],
    'random_minus_deletion': nothing['deletion'] - own['deletion'],
    'insertion_minus_random': own['insertion'] - nothing['insertion'],
  }

  def score(times: np.ndarray) -> dict[str, np.ndarray]:
    weight = times[:, groups.of_image]
    return {
      name: (weight * values).sum(1) / weight.sum(1)
      for name, values in columns.items()
    }

  means, ends = bootstrap.score_with_intervals(
    np.random.default_rng(0), groups, score, not_shares=tuple(columns)
  )
  return {
    name: {'mean': value, 'interval_95': ends[name]}
    for name, value in means.items()
  }


if __name__ == '__main__':
  measure_run(__doc__, 'explanations', measure)
