"""Keras' layers of each model, in Keras' order, and our names of their weights.

Keras files name most layers by a count, or trust their order alone, and that
order is the one in which Keras sorts a model's graph. So the graphs are drawn
here, from the tables that the models are made of, and sorted by Keras' rule.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from leukemia_jax.models import Classifier, inception_resnet_v2, nasnet
from leukemia_jax.models.inception_resnet_v2 import InceptionResNetV2
from leukemia_jax.models.nasnet import NASNet
from leukemia_jax.models.unet import UNet

Path = tuple[str, ...]


class Layer(NamedTuple):
  """A Keras layer that has weights.

  Attributes:
    kind: its class in snake case, as Keras files spell it.
    name: its name in a new Keras session.
    weights: for each of its weights, in Keras' order, Keras' name of it and
      its path in our variables.
  """

  kind: str
  name: str
  weights: tuple[tuple[str, Path], ...]


def _linear(
  path: Path, name: str, *, bias: bool, kind: str = 'conv2d'
) -> Layer:
  roles = ('kernel', 'bias') if bias else ('kernel',)
  return Layer(kind, name, tuple((r, ('params', *path, r)) for r in roles))


def _norm(path: Path, name: str, *, gamma: bool) -> Layer:
  weights = (
    *((('gamma', ('params', *path, 'scale')),) if gamma else ()),
    ('beta', ('params', *path, 'bias')),
    ('moving_mean', ('batch_stats', *path, 'mean')),
    ('moving_variance', ('batch_stats', *path, 'var')),
  )
  return Layer('batch_normalization', name, weights)


class _Graph:
  """Keras' graph of layers: each call adds one and gives its number."""

  def __init__(self) -> None:
    self._layers: list[Layer | None] = []
    self._inputs: list[tuple[int, ...]] = []
    self._counts: dict[str, int] = {}

  def __call__(self, *inputs: int, layer: Layer | None = None) -> int:
    self._layers.append(layer)
    self._inputs.append(inputs)
    return len(self._layers) - 1

  def auto(self, kind: str) -> str:
    """The name that Keras gives to a layer without one."""
    count = self._counts.get(kind, 0)
    self._counts[kind] = count + 1
    return f'{kind}_{count}' if count else kind

  def sort(self) -> list[Layer]:
    """Layers with weights as in `model.layers`.

    Keras puts the layers that are farthest from the output first, and equally
    far ones in the order in which a depth-first search from the output meets
    them.
    """
    depths = [0] * len(self._layers)
    for i in reversed(range(len(depths))):
      for j in self._inputs[i]:
        depths[j] = max(depths[j], depths[i] + 1)
    met: dict[int, int] = {}
    waiting = [len(self._layers) - 1]
    while waiting:
      i = waiting.pop()
      if i not in met:
        met[i] = len(met)
        waiting += reversed(self._inputs[i])
    order = sorted(met, key=lambda i: (-depths[i], met[i]))
    layers = (self._layers[i] for i in order)
    return [layer for layer in layers if layer is not None]


def _inception_resnet_v2(
  graph: _Graph, x: int, model: InceptionResNetV2
) -> int:
  def step(x: int, path: str) -> int:
    named = path == 'conv_7b'
    conv = path if named else graph.auto('conv2d')
    layer = _linear(('backbone', path, 'conv'), conv, bias=False)
    x = graph(x, layer=layer)
    norm = f'{path}_bn' if named else graph.auto('batch_normalization')
    x = graph(x, layer=_norm(('backbone', path, 'norm'), norm, gamma=False))
    return graph(x)

  def branches(x: int, name: str, table: Iterable[Any]) -> list[int]:
    ends = []
    for b, branch in enumerate(table):
      y = x
      for i in range(len(branch)):
        y = step(y, f'{name}_branch_{b}_{i}')
      ends.append(y)
    return ends

  def residuals(x: int, stage: str, table: Iterable[Any], count: int) -> int:
    for i in range(1, count + 1):
      mixed = graph(*branches(x, f'{stage}_{i}', table))
      path = ('backbone', f'{stage}_{i}_out')
      layer = _linear(path, f'{stage}_{i}_conv', bias=True)
      x = graph(x, graph(mixed, layer=layer))
      if (stage, i) != ('block8', count):
        x = graph(x)
    return x

  tables = inception_resnet_v2
  for i in range(5):
    x = step(x, f'stem_{i}')
    if i in (2, 4):
      x = graph(x)
  ends = branches(x, 'mixed_5b', tables.MIXED_5B)
  x = graph(*ends, step(graph(x), 'mixed_5b_pool'))
  x = residuals(x, 'block35', tables.BLOCK35, model.blocks[0])
  x = graph(*branches(x, 'mixed_6a', tables.MIXED_6A), graph(x))
  x = residuals(x, 'block17', tables.BLOCK17, model.blocks[1])
  x = graph(*branches(x, 'mixed_7a', tables.MIXED_7A), graph(x))
  x = residuals(x, 'block8', tables.BLOCK8, model.blocks[2])
  return step(x, 'conv_7b')


def _nasnet_cell(
  graph: _Graph,
  inputs: tuple[int, int],
  cell: nasnet.Cell,
  path: Path,
  weights: dict[str, Any],
  block: str,
) -> int:
  """A cell that Keras calls `block`; `weights` tell how it adjusts sizes."""
  last, before = inputs
  halves = cell.strides == 2
  kind = 'reduction' if halves else 'normal'

  def conv(x: int, role: str, name: str) -> int:
    layer = _linear((*path, role), f'{name}_{block}', bias=False)
    return graph(x, layer=layer)

  def norm(x: int, role: Path, name: str) -> int:
    return graph(x, layer=_norm((*path, *role), f'{name}_{block}', gamma=True))

  def separable(x: int, side: str, number: int, padded: bool) -> int:
    role = f'{side}_{number}'
    # Keras' own slip: the fifth sum's left branch is called the fourth's.
    name = 'left4' if halves and role == 'left_5' else f'{side}{number}'
    for i in (1, 2):
      x = graph(x)
      if i == 1 and padded:
        x = graph(x)
      weights = tuple(
        (f'{step}_kernel', ('params', *path, role, f'{step}_{i}', 'kernel'))
        for step in ('depthwise', 'pointwise')
      )
      name_in_keras = f'separable_conv_{i}_{kind}_{name}_{block}'
      x = graph(x, layer=Layer('separable_conv2d', name_in_keras, weights))
      name_of_norm = f'separable_conv_{i}_bn_{kind}_{name}'
      x = norm(x, (role, f'norm_{i}'), name_of_norm)
    return x

  if 'adjust_conv_1' in weights:
    before = graph(before)
    first = conv(graph(before), 'adjust_conv_1', 'adjust_conv_1')
    # Padded, cropped and pooled.
    second = graph(graph(graph(before)))
    second = conv(second, 'adjust_conv_2', 'adjust_conv_2')
    before = norm(graph(first, second), ('adjust_norm',), 'adjust_bn')
  elif 'adjust_conv' in weights:
    before = conv(graph(before), 'adjust_conv', 'adjust_conv_projection')
    before = norm(before, ('adjust_norm',), 'adjust_bn')
  last = conv(graph(last), 'conv', f'{kind}_conv_1')
  last = norm(last, ('norm',), f'{kind}_bn_1')
  values: dict[str | int, int] = {'before': before, 'last': last}
  padded_last = graph(last) if halves else last
  for i, pair in enumerate(cell.sums):
    parts = []
    for side, (operation, x) in zip(('left', 'right'), pair, strict=True):
      padded = halves and not isinstance(x, int)
      if operation == 'identity':
        parts.append(values[x])
      elif operation.startswith('separable'):
        parts.append(separable(values[x], side, i + 1, padded))
      else:
        parts.append(graph(padded_last if padded else values[x]))
    values[i] = graph(*parts)
  return graph(*(values[x] for x in cell.output))


def _nasnet(graph: _Graph, x: int, model: NASNet, weights: dict) -> int:
  blocks = model.blocks
  layer = _linear(('backbone', 'stem_conv'), 'stem_conv1', bias=False)
  x = graph(x, layer=layer)
  layer = _norm(('backbone', 'stem_norm'), 'stem_bn1', gamma=True)
  last = before = graph(x, layer=layer)
  for name, cell, _ in nasnet.cells(blocks):
    kind, _, number = name.partition('_')
    block = name
    if kind == 'normal':
      stage, i = map(int, number.split('_'))
      block = str(sum(blocks[:stage]) + (stage > 0) + i)
    elif kind == 'reduction':
      block = f'reduce_{sum(blocks[: int(number)])}'
    path = ('backbone', name)
    output = _nasnet_cell(
      graph, (last, before), cell, path, weights[name], block
    )
    if not (kind == 'reduction' and model.skip_reduction):
      before = last
    last = output
  return graph(last)


def _unet(graph: _Graph, x: int, model: UNet) -> int:
  """Keras' U-Net with activations inside its convolutions."""

  def conv(x: int, path: str, kind: str = 'conv2d') -> int:
    layer = _linear((path,), graph.auto(kind), bias=True, kind=kind)
    return graph(x, layer=layer)

  def double(x: int, name: str) -> int:
    return conv(conv(x, f'{name}_conv_1'), f'{name}_conv_2')

  skips = []
  for level in range(model.depth):
    x = double(x, f'down_{level}')
    skips.append(x)
    x = graph(x)
  x = double(x, 'bottleneck')
  deeper = None
  for level in reversed(range(model.depth)):
    skip = skips[level]
    if model.fpn and level:
      name = f'pyramid_{level}'
      skip = conv(skip, f'{name}_skip')
      if deeper is not None:
        skip = graph(skip, conv(graph(deeper), f'{name}_deeper'))
      skip = deeper = conv(skip, f'{name}_out')
    x = conv(x, f'up_{level}', kind='conv2d_transpose')
    x = double(graph(x, skip), f'up_{level}')
  return conv(x, 'logits') if model.num_classes else x


def of_model(model: Classifier | UNet, params: dict[str, Any]) -> list[Layer]:
  """Keras' layers that have weights, in the order of its `model.layers`.

  Args:
    model: from `models.create`, with Keras' top or none.
    params: its 'params'; only their names are looked at.

  Returns:
    The layers.
  """
  graph = _Graph()
  x = graph()
  if isinstance(model, UNet):
    _unet(graph, x, model)
    return graph.sort()
  if isinstance(model.backbone, NASNet):
    x = _nasnet(graph, x, model.backbone, params['backbone'])
  else:
    x = _inception_resnet_v2(graph, x, model.backbone)
  if model.num_classes:
    layer = _linear(('logits',), 'predictions', bias=True, kind='dense')
    graph(graph(x), layer=layer)
  return graph.sort()
