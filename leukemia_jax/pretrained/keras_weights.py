"""Keras' weights to variables and back, with nothing left to chance."""

import io
import pathlib
from collections import Counter
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from leukemia_jax import files, models
from leukemia_jax.errors import InputError
from leukemia_jax.pretrained import keras_files, keras_layers
from leukemia_jax.pretrained.keras_files import Contents
from leukemia_jax.pretrained.keras_layers import Layer, Path

# How many names of a kind an error prints; it carries all of them.
_NAMES_SHOWN = 20
# How many characters of a name.
_NAME_SHOWN = 200
# Any size that all models take: shapes of weights do not depend on it.
_IMAGE_SIZE = 96


class WeightsError(InputError):
  """A file's weights are not those of the model.

  Attributes:
    missing: weights that the file lacks, by Keras' name and ours.
    extra: weights in the file that the model has not.
    misshapen: weights of another shape or type than the model's.
  """

  def __init__(
    self,
    path: pathlib.Path,
    name: str,
    missing: list[str],
    extra: list[str],
    misshapen: list[str],
  ):
    self.missing, self.extra, self.misshapen = missing, extra, misshapen
    lines = [f'{path} does not hold the weights of {name}:']
    for kind, names in (
      ('missing', missing),
      ('extra', extra),
      ('misshapen', misshapen),
    ):
      # A file may hold any name: no control codes, no page of text.
      lines += [
        f'  {kind}: {ascii(text)[1:-1][:_NAME_SHOWN]}'
        for text in names[:_NAMES_SHOWN]
      ]
      if len(names) > _NAMES_SHOWN:
        lines.append(f'  and {len(names) - _NAMES_SHOWN} more are {kind}')
    lines.append('Was it saved from this model, with this head?')
    super().__init__('\n'.join(lines))


class _Weight(NamedTuple):
  """A weight of a Keras layer: its role there, our path and shape of it."""

  role: str
  path: Path
  shape: tuple[int, ...]

  def both_names(self, theirs: str) -> str:
    """Both names."""
    return f'{theirs} (ours: {"/".join(self.path)})'


_Plan = list[tuple[Layer, list[_Weight]]]


def _plan(name: str, num_classes: int, **fields: Any) -> _Plan:
  """The layers that Keras' model has, with the weights that we want of each."""
  head = {'include_top': True} if name in models.BACKBONES else {}
  model = models.create(name, num_classes=num_classes, **head, **fields)
  images = jnp.zeros((1, _IMAGE_SIZE, _IMAGE_SIZE, 3))
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  leaves = traverse_util.flatten_dict(shapes)
  return [
    (layer, [_Weight(role, at, leaves[at].shape) for role, at in layer.weights])
    for layer in keras_layers.of_model(model, shapes['params'])
  ]


class _Match(NamedTuple):
  """Which array of a file is which weight, and what has no counterpart."""

  pairs: list[tuple[_Weight, str]]
  missing: list[str]
  extra: list[str]


def _stored_keys(plan: _Plan) -> list[str]:
  """Where Keras 3 keeps each layer's weights: by class, counted in order."""
  counts: Counter[str] = Counter()
  keys = []
  for layer, _ in plan:
    count = counts[layer.kind]
    counts[layer.kind] += 1
    keys.append(f'layers/{layer.kind}{f"_{count}" if count else ""}/vars')
  return keys


def _match_stored(contents: Contents, plan: _Plan) -> _Match:
  """Matches what Keras 3 stores."""
  match = _Match([], [], [])
  for key, (layer, weights) in zip(_stored_keys(plan), plan, strict=True):
    for i, weight in enumerate(weights):
      stored = f'{key}/{i}'
      if stored in contents.arrays:
        match.pairs.append((weight, stored))
      else:
        theirs = f'{stored} ({layer.name}/{weight.role})'
        match.missing.append(weight.both_names(theirs))
  known = {key for _, key in match.pairs}
  # A dropout's random state is no weight.
  match.extra.extend(
    key
    for key in contents.arrays
    if key not in known and 'seed_generator' not in key.split('/')
  )
  return match


def _match_legacy(contents: Contents, plan: _Plan) -> _Match:
  """Matches what Keras 2 stored, and Keras 3 still can.

  Layers go by their order, as in Keras: counted names differ from session to
  session. But a name that Keras gives to one layer alone must be at its place.
  """
  match = _Match([], [], [])
  listed = contents.listed or []
  short = [name.removeprefix('model_weights/') for name, _ in listed]
  ours = {layer.name for layer, _ in plan}
  if len(listed) != len(plan):
    match.missing.extend(
      w.both_names(f'{layer.name}/{w.role}')
      for layer, weights in plan
      for w in weights
      if layer.name not in short
    )
    match.extra.extend(f'layer {name}' for name in short if name not in ours)
    if not (match.missing or match.extra):
      match.missing.append(f'{len(plan)} layers with weights')
      match.extra.append(f'{len(listed)} layers with weights')
    return match
  fixed = {x.name for x, _ in plan if not x.name.startswith(x.kind)}
  for (layer, weights), name, (_, stored) in zip(
    plan, short, listed, strict=True
  ):
    keys = {k.rpartition('/')[2].partition(':')[0]: k for k in stored}
    in_place = name == layer.name or name not in fixed
    for weight in weights:
      key = keys.get(weight.role, f'{name}/{weight.role}')
      if in_place and key in contents.arrays:
        match.pairs.append((weight, key))
      else:
        where = '' if in_place else f'{layer.name}/{weight.role} where '
        match.missing.append(weight.both_names(where + key))
  known = {key for _, key in match.pairs}
  match.extra.extend(key for key in contents.arrays if key not in known)
  return match


def _inner_network(contents: Contents, num_layers: int) -> str:
  """The layer of a file that holds a whole network, if one does."""
  for name, stored in contents.listed or ():
    layers = {key.rpartition('/')[0] for key in stored}
    if len(layers) > num_layers // 2 > 1:
      return name.removeprefix('model_weights/')
  return ''


def load_weights(
  path: str | pathlib.Path, name: str, **fields: Any
) -> dict[str, Any]:
  """Reads a Keras weights file, whole or not at all.

  Args:
    path: a legacy `.h5` (weights or whole model), `.weights.h5` or `.keras`
      file. The backbones may have their top, of any number of classes, or none.
      A U-Net of one's own must keep activations inside its convolutions.
    name: one of `models.NAMES`.
    **fields: where the file's model is not the published one: `blocks` and
      `width` of a backbone, `width`, `depth` and `num_classes` of a U-Net.

  Returns:
    'params' and 'batch_stats' of `models.create(name, num_classes=...)`,
    float32 arrays: with `num_classes=0` for a backbone without top, with that
    of the file and `include_top=True` for one with it, 1 for a U-Net.

  Raises:
    WeightsError: weights are missing, extra or misshapen; names all of them.
    InputError: the file can't be read, or is no Keras file.
  """
  path = pathlib.Path(path)
  with keras_files.open_file(path) as file:
    with keras_files.damage_named(path):
      contents = keras_files.list_contents(path, file)
      if not contents.arrays or contents.listed == []:
        raise InputError(f'{path} is an HDF5 file, but not one of Keras')
      if name in models.BACKBONES:
        fields['num_classes'] = keras_files.count_classes(path, contents)
    plan = _plan(name, **{'num_classes': 1, **fields})
    match = (_match_stored if contents.listed is None else _match_legacy)(
      contents, plan
    )
    with keras_files.damage_named(path):
      flaws = [
        f'{weight.both_names(key)}: {flaw}'
        for weight, key in match.pairs
        if (flaw := keras_files.flaw(contents.arrays[key], weight.shape))
      ]
      if inner := _inner_network(contents, len(plan)):
        raise InputError(
          f'{path}: the network is one layer, {inner!r}, of another model in '
          f"this file. Save it alone: model.get_layer('{inner}')"
          ".save_weights('x.weights.h5')"
        )
      if match.missing or match.extra or flaws:
        raise WeightsError(path, name, match.missing, match.extra, flaws)
      if len({key for _, key in match.pairs}) != len(match.pairs):
        raise InputError(f'{path} gives one array to two weights')
      leaves: dict[Path, np.ndarray] = {}
      for weight, key in match.pairs:
        value = contents.arrays[key].astype(np.float32)[()]
        if not np.isfinite(value).all():
          raise InputError(f'{path} has values at {key} that are not finite')
        leaves[weight.path] = value
  return {'params': {}, 'batch_stats': {}} | traverse_util.unflatten_dict(
    leaves
  )


def export_weights(
  variables: dict[str, Any], path: str | pathlib.Path, name: str, **fields: Any
) -> None:
  """Writes a weights file that Keras' model of the same name loads.

  Args:
    variables: a model's 'params' and 'batch_stats', with Keras' top or none.
      The study's head has no counterpart in Keras: give the backbone alone.
    path: ends in `.weights.h5` (Keras 3) or `.h5` (legacy).
    name: one of `models.NAMES`.
    **fields: as in `load_weights`, except `num_classes`.

  Raises:
    InputError: the variables are not the model's, or not finite, or the suffix
      is another.
  """
  path = pathlib.Path(path)
  if path.suffix != '.h5':
    raise InputError(
      f"{path} must end in .weights.h5 or .h5: a .keras file holds Keras' own "
      'description of the model too'
    )
  leaves = traverse_util.flatten_dict(variables)
  for at, leaf in leaves.items():
    leaves[at] = np.asarray(leaf, np.float32)
    if not np.isfinite(leaves[at]).all():
      raise InputError(f'{"/".join(at)} has values that are not finite')
  bias = leaves.get(('params', 'logits', 'bias'))
  plan = _plan(name, 0 if bias is None else len(bias), **fields)
  wanted = {w.path: w.shape for _, weights in plan for w in weights}
  mismatched = [
    '/'.join(at)
    for at in sorted(wanted.keys() | leaves.keys())
    if at not in leaves or wanted.get(at) != leaves[at].shape
  ]
  if mismatched:
    raise InputError(
      f"the variables are not those of Keras' {name}: {len(mismatched)} are "
      f'missing, extra or misshapen, as {", ".join(mismatched[:_NAMES_SHOWN])}'
    )
  buffer = io.BytesIO()
  with h5py.File(buffer, 'w') as file:
    if path.name.endswith('.weights.h5'):
      for key, (_, weights) in zip(_stored_keys(plan), plan, strict=True):
        for i, weight in enumerate(weights):
          file[f'{key}/{i}'] = leaves[weight.path]
    else:
      keras_files.put_names(
        file, 'layer_names', [layer.name for layer, _ in plan]
      )
      for layer, weights in plan:
        group = file.create_group(layer.name)
        names = [f'{layer.name}/{weight.role}:0' for weight in weights]
        keras_files.put_names(group, 'weight_names', names)
        for key, weight in zip(names, weights, strict=True):
          group[key] = leaves[weight.path]
  files.write(path, buffer.getvalue())
