"""The tables of speed."""

import functools
import pathlib
import statistics
from collections.abc import Callable

import numpy as np

from leukemia_jax import models
from leukemia_jax.reporting import pages
from reproduce.stored import link, read

# Test accuracy of a head that has learnt.
_LEARNT = 0.9
# Columns, and their names beside one network or another.
_OTHERS = {
  ': PyTorch float32': ('timm_fp32', 'torch_fp32'),
  ': PyTorch bfloat16': ('timm_bf16', 'torch_bf16'),
  ': Keras on JAX': ('keras_jax',),
}
_COMMANDS = {'default': 'the default config', 'unet': 'configs/unet.py'}
# Of a start, s.
_SHARES = ('tracing', 'lowering', 'compiling or loading')
_MILLION = 10**6
_COSTS = {
  'seconds': 'an epoch, s',
  'step_seconds': 'a training step, s',
  'image_seconds': 'an image in training, s',
  'inference_seconds': 'an image in inference, s',
}
_RUNTIMES = {
  'jax_float32': 'JAX, float32',
  'jax_bfloat16': 'JAX, bfloat16',
  'onnxruntime': 'ONNX Runtime',
  'openvino': 'OpenVINO',
}


def speeds(page: pathlib.Path, file: str = 'speeds') -> str:
  """Images a second of each network, and their ratios to others'."""
  cells = []
  for name, measured in read(file).items():
    for what in ('inference', 'training'):
      rate = measured[what]['images_per_second']
      ratios = measured['ratios'][what]
      cells.append(
        [
          link(f'{file}.json', name, page),
          what,
          f'{rate["median"]:.1f} ({rate["lowest"]:.1f} to '
          f'{rate["highest"]:.1f})',
          *(
            ', '.join(f'{ratios[n]:.2f}' for n in names if n in ratios)
            for names in _OTHERS.values()
          ),
          pages.percent(measured[what]['share_of_products'], 0),
        ]
      )
  header = [
    'ours',
    '',
    'images/s (lowest to highest)',
    *_OTHERS,
    '% of a large product',
  ]
  return pages.table(header, cells)


def runs(page: pathlib.Path, file: str = 'runs') -> str:
  """Whole commands beside those of an older checkout."""
  cells = []
  for name, measured in read(file).items():
    seconds = measured['seconds']
    cells.append(
      [
        link(f'{file}.json', _COMMANDS[name], page),
        *(
          f'{statistics.median(own):.0f} ({min(own):.0f} to {max(own):.0f})'
          for own in (seconds['before'], seconds['after'])
        ),
        f'{measured["ratio"]:.2f}',
      ]
    )
  return pages.table(['command', 'before, s', 'after, s', 'ratio'], cells)


def without_matrix_units(
  page: pathlib.Path, file: str = 'without_matrix_units'
) -> str:
  """Networks beside those of an older checkout, where bfloat16 isn't fast."""
  cells = []
  for name, measured in read(file).items():
    row = [link(f'{file}.json', name, page)]
    for what in ('inference', 'training'):
      own = measured[what]
      row += [f'{own[which]["median"]:.1f}' for which in ('before', 'after')]
      row.append(f'{own["ratio"]:.2f}')
    cells.append([*row, measured['auto']])
  header = [
    'images/s',
    'inference, before',
    'after',
    'ratio',
    'training, before',
    'after',
    'ratio',
    '`auto`',
  ]
  return pages.table(header, cells)


def first_step(page: pathlib.Path, file: str = 'first_step') -> str:
  """How long a command takes to its first step, and what of that is JAX'."""
  cells = []
  for dtype, measured in read(file).items():
    for which in ('cold', 'warm'):
      own = measured[which]
      shares = own['of the step']
      cells.append(
        [
          link(f'{file}.json', f'{dtype}, {which}', page),
          f'{own["seconds"]:.0f}',
          *(f'{shares[name]:.1f}' for name in _SHARES),
        ]
      )
  header = ['cache of compiled programs', 'to the first step, s', *_SHARES]
  return pages.table(header, cells)


def growth(page: pathlib.Path) -> str:
  """Points of each cost, and the line through them."""
  cells = []
  for what, measured in read('growth').items():
    points = measured['points']
    at = ', '.join(f'{point[measured["by"]]:,}' for point in points)
    for cost, line in measured['lines'].items():
      unit, title = (
        (1e9, 'memory, GB') if 'memory' in cost else (1, _COSTS[cost])
      )
      cells.append(
        [
          link('growth.json', f'{what}: {at}', page),
          title,
          ', '.join(f'{point[cost] / unit:.3g}' for point in points),
          f'{line["fixed"] / unit:.2g} {line["slope"] / unit:+.2g} x',
          pages.percent(line['largest_error'], 0),
        ]
      )
  header = ['x', 'cost', 'measured', 'line', 'farthest from it, %']
  return pages.table(header, cells)


def million() -> dict[str, str]:
  """What a million images take on this machine, by the lines of `growth`."""
  measured = read('growth')

  def at_million(how: str, cost: str) -> float:
    line = measured[f'images {how}']['lines'][cost]
    return line['fixed'] + _MILLION * line['slope']

  streamed = measured['images streamed']['points']
  memory = at_million('held in memory', 'memory_bytes')
  numbers = {
    'memory held in memory': f'{memory / 1e9:.0f}',
    'most streamed': f'{max(p["memory_bytes"] for p in streamed) / 1e9:.1f}',
  }
  for how in ('held in memory', 'streamed'):
    numbers[f'hours {how}'] = f'{at_million(how, "seconds") / 3600:.1f}'
  full_size = read('speeds')['InceptionResNetV2, bfloat16, JAX 0.12']
  for what in ('training', 'inference'):
    rate = full_size[what]['images_per_second']['median']
    numbers[f'{what} at full size'] = f'{_MILLION / rate / 3600:.0f}'
  rate = read('predict')['default']['images_per_second']
  numbers['predicted'] = f'{_MILLION / rate / 3600:.1f}'
  return numbers


def runtimes(page: pathlib.Path, file: str = 'runtimes') -> str:
  """Networks in JAX, and as ONNX in others, images/s."""
  cells = []
  for name, measured in read(file).items():
    if 'images_per_second' in measured:
      rates = measured['images_per_second']
      network, _, version = name.partition(', ')
      title = f'{models.TITLES[network]}, {version}'
      cells.append(
        [
          link(f'{file}.json', title, page),
          *(f'{rates[which]:.1f}' for which in _RUNTIMES),
        ]
      )
  return pages.table(['images/s', *_RUNTIMES.values()], cells)


def agreement() -> dict[str, str]:
  """Whether a run's answers are the same in OpenVINO, by the newest JAX."""
  entries = read('runtimes')
  own = entries[max(name for name in entries if 'agreement' in name)]
  return {
    'images': str(own['images']),
    'classes': pages.percent(own['same_class'], 1),
    'flags': pages.percent(own['same_flags'], 1),
    'probability': f'{own["largest_probability"]:.2f}',
  }


def study_dtypes() -> dict[str, str]:
  """How far features in bfloat16 move the test accuracies of a study."""
  plain, small = (
    np.array(read(name)['test_accuracies'])
    for name in ('study_cost', 'study_cost_bfloat16')
  )
  moved = np.abs(small - plain)
  learnt = (plain >= _LEARNT) & (small >= _LEARNT)
  return {
    'heads': str(moved.size),
    'largest': pages.percent(moved.max(), 1),
    'median': pages.percent(float(np.median(moved)), 1),
    'learnt': str(learnt.sum()),
    'bound': pages.percent(_LEARNT, 0),
    'largest of learnt': pages.percent(moved[learnt].max(), 1),
  }


# Those that were measured on another processor too, in files of its own.
_ELSEWHERE: dict[str, Callable[..., str]] = {
  'speeds': speeds,
  'runs': runs,
  'without matrix units': without_matrix_units,
  'first step': first_step,
  'runtimes': runtimes,
}
TABLES: dict[str, Callable[[pathlib.Path], str]] = {
  **_ELSEWHERE,
  **{
    f'{name}, AMD EPYC': functools.partial(
      table, file=f'{name.replace(" ", "_")}_amd_epyc'
    )
    for name, table in _ELSEWHERE.items()
  },
  'growth': growth,
}
