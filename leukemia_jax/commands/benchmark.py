"""--mode=benchmark: how fast a config runs here, and beside what."""

import functools
import importlib.metadata
import pathlib
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from leukemia_jax import build, devices, files, models, tasks
from leukemia_jax.benchmark import machine, peers, programs
from leukemia_jax.benchmark.peers import Turn
from leukemia_jax.benchmark.programs import Timed
from leukemia_jax.benchmark.record import Benchmark, to_rate, to_ratio
from leukemia_jax.errors import InputError
from leukemia_jax.lock import lock_run
from leukemia_jax.reporting import benchmark_page
from leukemia_jax.training import initial_weights
from leukemia_jax.workdir import claim, result

# Classes of the made-up images.
_CLASSES = 4
_TURNS = 5
_COMPARED = ('inference', 'training')


def run(
  config: ConfigDict, workdir: pathlib.Path, compare: Sequence[str]
) -> None:
  """Measures a config's programs on made-up images.

  Args:
    config: the config; nothing of its data is read.
    workdir: where benchmark.json, .md, .html and roofline.svg go.
    compare: libraries that are measured too, see `peers.names`; turn by turn
      with ours, so that all see the same machine.

  Raises:
    InputError: a library isn't known, or has no model of that size.
  """
  config = initial_weights.resolve_auto(config)
  _check(config, compare)
  claim.check(workdir, 'benchmark', config, compare=list(compare))
  with lock_run(workdir):
    claim.claim(workdir, 'benchmark', config, compare=list(compare))
    record = _measure(config, list(compare))
    files.write_json(
      workdir / 'benchmark.json',
      {'format': claim.FORMAT} | result.to_json(record),
    )
    path = benchmark_page.write(workdir, record)
  print(f'{benchmark_page.summary(record)} See {path}')


def _check(config: ConfigDict, compare: Sequence[str]) -> None:
  """Refuses what can't be compared."""
  peers.names(compare)
  model = config.model
  size = models.published_size(model.name)
  own = models.Size(model.width, tuple(model.blocks), model.depth)
  altered = model.batch_norm or model.remat or config.train.freeze_backbone
  if config.train.accumulate > 1:
    # XLA counts what a loop does once.
    raise InputError(
      f'config.train.accumulate={config.train.accumulate}: what a step in '
      'pieces does is not counted; give config.train.accumulate=1'
    )
  if compare and (size != own or altered):
    raise InputError(
      f'--compare={",".join(compare)}: other libraries have published sizes '
      'alone; give --config=configs/inception_resnet_v2.py, or '
      f'configs/unet.py:study, and config.model as there, not {model.name} of '
      f'width {model.width}, depth {own.depth}, blocks {own.blocks}, '
      f'batch_norm={model.batch_norm}, remat={model.remat} and '
      f'config.train.freeze_backbone={config.train.freeze_backbone}'
    )


def _measure(config: ConfigDict, compare: list[str]) -> Benchmark:
  """Takes turns of everything."""
  task = tasks.for_model(config.model.name)
  inputs = build.inputs(config, task.targets)
  network = tasks.make_network(task, config, task.num_outputs(_CLASSES))
  limits = machine.measure(config.model.dtype)
  own: dict[str, Timed | None] = {
    'inference': programs.inference(config, network, inputs),
    'training': programs.training(config, network, inputs),
    'augmentation': programs.augmentation(config, inputs),
    'decoding': programs.decoding(config),
  }
  size, batch = config.data.image_size, config.train.batch_size
  with peers.running(compare, config.model.name, size, batch) as others:
    running, missing = others
    calls: dict[Turn, Callable[[], float]] = {}
    for what, timed in own.items():
      if timed:
        calls[Turn(what)] = timed.turn
      if what in _COMPARED:
        # Next to ours: a processor's speed changes meanwhile.
        for name, peer in running.items():
          calls[Turn(what, name)] = functools.partial(peer.turn, what)
    taken, ended = peers.take_turns(calls, _TURNS)
    versions = {'jax': importlib.metadata.version('jax')}
    for peer in running.values():
      versions |= peer.versions
  rates = {turn: to_rate(values) for turn, values in taken.items()}
  compared = {
    what: {
      turn.name: rate
      for turn, rate in rates.items()
      if turn.name and turn.what == what
    }
    for what in _COMPARED
  }
  parts = {
    what: timed.program(rates[Turn(what)], limits)
    for what, timed in own.items()
    if timed and timed.program
  }
  return Benchmark(
    device=devices.describe(),
    versions=versions,
    model=config.model.name,
    image_size=size,
    dtype=config.model.dtype,
    machine=limits,
    inference=parts['inference'],
    training=parts['training'],
    augmentation=rates.get(Turn('augmentation')),
    decoding=rates[Turn('decoding')],
    peak_memory_bytes=result.peak_memory_bytes(),
    compared=compared,
    ratios={
      what: {
        name: to_ratio(taken[Turn(what)], taken[Turn(what, name)])
        for name in by_name
      }
      for what, by_name in compared.items()
    },
    missing=missing | ended,
  )
