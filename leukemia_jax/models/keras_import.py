"""Keras' weight files to variables and back, with nothing left to chance.

Three formats are read: the legacy `.h5` of the published ImageNet weights,
`.weights.h5` and `.keras` of Keras 3. Keras itself is not needed; nothing is
unpickled or unpacked; links out of a file are not followed.
"""

import contextlib
import io
import pathlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import models, workdir
from leukemia_jax.errors import InputError
from leukemia_jax.models import keras_layers
from leukemia_jax.models.keras_layers import Layer, Path

_WEIGHTS_IN_ARCHIVE = 'model.weights.h5'
# Several times the largest model's weights and optimizer.
_MOST_BYTES = 4 * 2**30
# More groups and arrays, or groups in groups, than any Keras file has.
_MOST_NODES, _MOST_DEEP = 50_000, 12
# What an HDF5 attribute can hold; longer lists are cut into numbered ones.
_ATTRIBUTE_BYTES = 64_512
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

  def called(self, theirs: str) -> str:
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
  leaves = _flat(shapes)
  return [
    (layer, [_Weight(role, at, leaves[at].shape) for role, at in layer.weights])
    for layer in keras_layers.of_model(model, shapes['params'])
  ]


def _flat(tree: Any) -> dict[Path, Any]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {tuple(key.key for key in path): leaf for path, leaf in leaves}


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
  """Turns what libraries raise over a damaged file into one error.

  Damage shows as almost any exception, from where it happens to lie.
  """
  try:
    yield
  except InputError:
    raise
  except (BlockingIOError, PermissionError) as error:
    raise InputError(f'{path} cannot be opened: {error}') from error
  except (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
  ) as error:
    raise InputError(
      f'{path} is cut off or damaged ({type(error).__name__}: {error}): fetch '
      'or save it again'
    ) from error


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[h5py.File]:
  """The HDF5 file at a path, or in the archive there."""
  if not path.is_file():
    raise InputError(f'{path}: there is no such weights file')
  with _damage_named(path):
    source: pathlib.Path | io.BytesIO = path
    # HDF5 first: its numbers may hold what looks like a zip's end.
    if h5py.is_hdf5(path):
      pass
    elif zipfile.is_zipfile(path):
      source = io.BytesIO(_archived(path))
    elif path.suffix == '.keras':
      raise InputError(f'{path} is cut off, or no .keras file: save it again')
    else:
      with path.open('rb') as stream:
        start = stream.read(16)
      raise InputError(
        f'{path} is no HDF5 file (it begins with {start!r}): give a .h5, '
        '.weights.h5 or .keras file of Keras'
      )
    file = h5py.File(source, 'r')
  with file:
    yield file


def _archived(path: pathlib.Path) -> bytes:
  """The weights in a .keras archive, read without unpacking it."""
  with zipfile.ZipFile(path) as archive:
    entries = archive.infolist()
    for entry in entries:
      name = entry.filename.replace('\\', '/')
      if name.startswith('/') or ':' in name or '..' in name.split('/'):
        raise InputError(
          f'{path} has the entry {entry.filename!r}, which points out of the '
          'archive: it is not from Keras and not to be trusted'
        )
    found = [e for e in entries if e.filename == _WEIGHTS_IN_ARCHIVE]
    if len(found) != 1:
      raise InputError(
        f'{path} must hold {_WEIGHTS_IN_ARCHIVE} once, not {len(found)} '
        'times: it is no .keras file'
      )
    size = found[0].file_size
    if found[0].compress_type != zipfile.ZIP_STORED or size > _MOST_BYTES:
      raise InputError(
        f'{path} would unpack to {size:,} bytes: Keras does not compress '
        f'weights, and no model has over {_MOST_BYTES:,}, so it is not to be '
        'trusted'
      )
    with archive.open(found[0]) as stream:
      return stream.read(size)


class _Contents(NamedTuple):
  """What a file holds.

  Attributes:
    arrays: by path; those of an optimizer are left out.
    listed: of a legacy file its layers with weights, and their names, in order;
      of Keras 3's None.
  """

  arrays: dict[str, h5py.Dataset]
  listed: list[tuple[str, list[str]]] | None


def _walk(path: pathlib.Path, file: h5py.File) -> dict[str, Any]:
  """A file's own groups and arrays by path; links are not followed."""
  found: dict[str, Any] = {}
  waiting: list[tuple[str, h5py.Group]] = [('', file)]
  while waiting:
    prefix, group = waiting.pop()
    if len(found) + len(group) > _MOST_NODES or prefix.count('/') > _MOST_DEEP:
      raise InputError(
        f'{path} holds more, or deeper, than weights: it is not from Keras '
        'and not to be trusted'
      )
    for name in group:
      if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        continue
      node = group[name]
      found[prefix + name] = node
      if isinstance(node, h5py.Group):
        waiting.append((f'{prefix}{name}/', node))
  return found


def _contents(path: pathlib.Path, file: h5py.File) -> _Contents:
  """Lists a file, without reading an array."""
  nodes = _walk(path, file)
  arrays = {k: n for k, n in nodes.items() if isinstance(n, h5py.Dataset)}
  if 'layers' in nodes:
    return _Contents(
      {k: n for k, n in arrays.items() if k.startswith('layers/')}, None
    )
  # A whole model's file holds an optimizer's state beside its weights.
  whole = isinstance(nodes.get('model_weights'), h5py.Group)
  root = 'model_weights/' if whole else ''
  listed = []
  names = _names(nodes['model_weights'] if whole else file, 'layer_names')
  if len(set(names)) != len(names):
    twice = Counter(names).most_common(1)[0][0]
    raise InputError(f'{path}: the layer {twice[:80]!r} is listed twice')
  for name in names:
    group = nodes.get(root + name)
    weights = _names(group, 'weight_names') if group is not None else []
    if weights:
      listed.append((root + name, [f'{root}{name}/{w}' for w in weights]))
  return _Contents(
    {
      k: n
      for k, n in arrays.items()
      if k.startswith(root) and not k.startswith('optimizer_weights/')
    },
    listed,
  )


def _names(group: h5py.Group, key: str) -> list[str]:
  """A list of texts that Keras may have cut into numbered attributes."""
  if key in group.attrs:
    parts = [group.attrs[key]]
  else:
    parts = []
    while f'{key}{len(parts)}' in group.attrs:
      parts.append(group.attrs[f'{key}{len(parts)}'])
  return [
    text.decode() if isinstance(text, bytes) else str(text)
    for part in parts
    for text in np.ravel(part)
  ]


class _Match(NamedTuple):
  """Which array of a file is which weight, and what has no counterpart."""

  found: list[tuple[_Weight, str]]
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


def _match_stored(contents: _Contents, plan: _Plan) -> _Match:
  """Matches what Keras 3 stores."""
  match = _Match([], [], [])
  for key, (layer, weights) in zip(_stored_keys(plan), plan, strict=True):
    for i, weight in enumerate(weights):
      stored = f'{key}/{i}'
      if stored in contents.arrays:
        match.found.append((weight, stored))
      else:
        theirs = f'{stored} ({layer.name}/{weight.role})'
        match.missing.append(weight.called(theirs))
  known = {key for _, key in match.found}
  # A dropout's random state is no weight.
  match.extra.extend(
    key
    for key in contents.arrays
    if key not in known and 'seed_generator' not in key.split('/')
  )
  return match


def _match_legacy(contents: _Contents, plan: _Plan) -> _Match:
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
      w.called(f'{layer.name}/{w.role}')
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
        match.found.append((weight, key))
      else:
        where = '' if in_place else f'{layer.name}/{weight.role} where '
        match.missing.append(weight.called(where + key))
  known = {key for _, key in match.found}
  match.extra.extend(key for key in contents.arrays if key not in known)
  return match


def _classes(path: pathlib.Path, contents: _Contents) -> int:
  """The number of classes of a file's top; 0 if it has none."""
  nested = [
    key
    for key in contents.arrays
    if key.startswith(('layers/functional', 'layers/sequential'))
  ]
  if nested:
    raise InputError(
      f'{path} holds a model inside another ({nested[0]}): save the inner one '
      'alone'
    )
  tops = [a.shape[1] for a in contents.arrays.values() if a.ndim == 2]
  if len(tops) > 1:
    raise InputError(
      f'{path} has a head of {len(tops)} dense layers, which is not that of '
      'Keras: save the backbone alone'
    )
  return tops[0] if tops else 0


def _flaw(array: h5py.Dataset, shape: tuple[int, ...]) -> str:
  """Why an array can't be a weight of a shape; '' if it can."""
  if array.shape != shape or array.dtype.kind != 'f':
    return f'{array.dtype} {array.shape}, must be float {shape}'
  if array.is_virtual or array.external or array.chunks:
    return 'in pieces, compressed or elsewhere, which Keras never writes'
  if array.id.get_storage_size() != array.size * array.dtype.itemsize:
    return 'declared but not written'
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
  with _opened(path) as file:
    with _damage_named(path):
      contents = _contents(path, file)
      if not contents.arrays or contents.listed == []:
        raise InputError(f'{path} is an HDF5 file, but not one of Keras')
      if name in models.BACKBONES:
        fields['num_classes'] = _classes(path, contents)
    plan = _plan(name, **{'num_classes': 1, **fields})
    match = (_match_stored if contents.listed is None else _match_legacy)(
      contents, plan
    )
    with _damage_named(path):
      flaws = [
        f'{weight.called(key)}: {flaw}'
        for weight, key in match.found
        if (flaw := _flaw(contents.arrays[key], weight.shape))
      ]
      if match.missing or match.extra or flaws:
        raise WeightsError(path, name, match.missing, match.extra, flaws)
      if len({key for _, key in match.found}) != len(match.found):
        raise InputError(f'{path} gives one array to two weights')
      variables: dict[str, Any] = {'params': {}, 'batch_stats': {}}
      for weight, key in match.found:
        value = contents.arrays[key].astype(np.float32)[()]
        if not np.isfinite(value).all():
          raise InputError(f'{path} has values at {key} that are not finite')
        tree = variables
        for part in weight.path[:-1]:
          tree = tree.setdefault(part, {})
        tree[weight.path[-1]] = value
  return variables


def export_weights(
  variables: dict[str, Any], path: str | pathlib.Path, name: str, **fields: Any
) -> None:
  """Writes a weights file that Keras' model of the same name loads.

  Args:
    variables: a model's 'params' and 'batch_stats', with Keras' top or none.
      The study's head has no counterpart in Keras: give the backbone alone.
    path: ends in `.weights.h5` (Keras 3) or `.h5` (legacy).
    name: one of `models.NAMES`.
    **fields: as in `load_weights`, but for `num_classes`.

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
  leaves = _flat(variables)
  for at, leaf in leaves.items():
    leaves[at] = np.asarray(leaf, np.float32)
    if not np.isfinite(leaves[at]).all():
      raise InputError(f'{"/".join(at)} has values that are not finite')
  bias = leaves.get(('params', 'logits', 'bias'))
  plan = _plan(name, 0 if bias is None else len(bias), **fields)
  wanted = {w.path: w.shape for _, weights in plan for w in weights}
  wrong = [
    '/'.join(at)
    for at in sorted(wanted.keys() | leaves.keys())
    if at not in leaves or wanted.get(at) != leaves[at].shape
  ]
  if wrong:
    raise InputError(
      f"the variables are not those of Keras' {name}: {len(wrong)} are "
      f'missing, extra or misshapen, as {", ".join(wrong[:_NAMES_SHOWN])}'
    )
  buffer = io.BytesIO()
  with h5py.File(buffer, 'w') as file:
    if path.name.endswith('.weights.h5'):
      for key, (_, weights) in zip(_stored_keys(plan), plan, strict=True):
        for i, weight in enumerate(weights):
          file[f'{key}/{i}'] = leaves[weight.path]
    else:
      _put_names(file, 'layer_names', [layer.name for layer, _ in plan])
      for layer, weights in plan:
        group = file.create_group(layer.name)
        names = [f'{layer.name}/{weight.role}:0' for weight in weights]
        _put_names(group, 'weight_names', names)
        for key, weight in zip(names, weights, strict=True):
          group[key] = leaves[weight.path]
  workdir.write(path, buffer.getvalue())


def _put_names(group: h5py.Group, key: str, names: list[str]) -> None:
  """What `_names` reads."""
  data = np.array([name.encode() for name in names])
  parts = np.array_split(data, -(-data.nbytes // _ATTRIBUTE_BYTES))
  for i, part in enumerate(parts):
    group.attrs[key if len(parts) == 1 else f'{key}{i}'] = part
