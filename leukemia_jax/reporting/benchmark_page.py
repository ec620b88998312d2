"""The page of a benchmark."""

import pathlib

import matplotlib.figure
import numpy as np

from leukemia_jax.benchmark.record import Benchmark, Program, Rate
from leukemia_jax.reporting import figures, pages

_ROOFLINE = 'roofline.svg'


def summary(benchmark: Benchmark) -> str:
  """Both rates in one sentence."""
  return (
    f'{benchmark.model}, {benchmark.image_size} px, {benchmark.dtype}: '
    f'{_speed(benchmark.inference.images_per_second.median)} images/s in '
    f'inference, {_speed(benchmark.training.images_per_second.median)} in '
    'training.'
  )


def _speed(images: float) -> str:
  return f'{images:,.0f}' if images >= 100 else f'{images:.3g}'


def _rate(rate: Rate) -> str:
  lowest, highest = _speed(rate.lowest), _speed(rate.highest)
  return f'{_speed(rate.median)} ({lowest} to {highest})'


def _program(name: str, program: Program) -> list[str]:
  steps = f'{program.batch}'
  if program.at_once > 1:
    steps = f'{program.at_once} x {program.batch}'
  return [
    name,
    steps,
    _rate(program.images_per_second),
    pages.duration(program.trace_seconds),
    pages.duration(program.compile_seconds),
    f'{program.flops / 1e9:.3g}',
    pages.percent(program.share_of_products),
    pages.percent(program.share_of_bytes),
    pages.size(program.temporary_bytes),
  ]


def _roofline(benchmark: Benchmark) -> bytes:
  """Both programs under the machine's two limits, as SVG."""
  figure = matplotlib.figure.Figure(figsize=(6, 4), layout='constrained')
  axes = figure.subplots()
  machine = benchmark.machine
  intensities = np.geomspace(0.1, 1e4, 200)
  limit = np.minimum(machine.products, intensities * machine.bytes)
  axes.loglog(intensities, limit / 1e9, color='grey', label='limit')
  for name in ('inference', 'training'):
    program: Program = getattr(benchmark, name)
    if program.bytes and program.flops:
      speed = program.flops * program.images_per_second.median
      axes.plot(
        program.flops / program.bytes, speed / 1e9, marker='o', label=name
      )
  axes.set(
    title='Roofline',
    xlabel='operations per byte moved',
    ylabel='billion operations a second',
  )
  axes.grid(alpha=0.3)
  axes.legend(fontsize=8)
  return figures.svg(figure)


def write(workdir: pathlib.Path, benchmark: Benchmark) -> pathlib.Path:
  """Writes benchmark.md, benchmark.html and roofline.svg.

  Args:
    workdir: where they go.
    benchmark: what was measured.

  Returns:
    The path of benchmark.md.
  """
  rest = [('decoding', benchmark.decoding)]
  if benchmark.augmentation:
    rest.append(('augmentation', benchmark.augmentation))
  compared = [
    [
      what,
      name.replace('_', ' '),
      _rate(rate),
      f'{benchmark.ratios[what][name]:.2f}',
    ]
    for what, by_name in benchmark.compared.items()
    for name, rate in by_name.items()
  ]
  context = {
    'benchmark': benchmark,
    'summary': summary(benchmark),
    'programs': [
      _program('inference', benchmark.inference),
      _program('training', benchmark.training),
    ],
    'rest': [[name, _rate(rate)] for name, rate in rest],
    'compared': compared,
    'roofline': _ROOFLINE,
  }
  return pages.write(
    workdir,
    'benchmark.md',
    context,
    {_ROOFLINE: _roofline(benchmark)},
    name='benchmark',
  )
