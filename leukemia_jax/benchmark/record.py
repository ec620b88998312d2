"""What a benchmark measures, as stored in benchmark.json."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Rate:
  """Images a second in turns of one measurement.

  Attributes:
    median: over the turns.
    lowest: of them.
    highest: of them.
  """

  median: float
  lowest: float
  highest: float


def to_rate(turns: Sequence[float]) -> Rate:
  """Sums up turns."""
  return Rate(float(np.median(turns)), min(turns), max(turns))


def to_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
  """Ours to theirs, turn by turn: the median."""
  return float(np.median(np.divide(ours, theirs)))


@dataclasses.dataclass(frozen=True)
class Machine:
  """What the machine can do at most, measured in the same run.

  Attributes:
    products: floating-point operations a second of a large matrix product, in
      the config's dtype, summed in float32.
    bytes: read and written a second by a sum over large arrays.
  """

  products: float
  bytes: float


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program of a config.

  Attributes:
    trace_seconds: from Python to XLA's input.
    compile_seconds: from there to machine code, or to load what was stored.
    batch: images a call.
    at_once: calls side by side.
    images_per_second: of the program.
    flops: floating-point operations an image, as XLA counts them before it
      compiles; 0 if it doesn't.
    bytes: read and written an image, as XLA counts them in what it compiled; on
      a CPU without those of its calls to libraries.
    temporary_bytes: of a call, beside what it is given.
    share_of_products: of the machine's.
    share_of_bytes: likewise.
  """

  trace_seconds: float
  compile_seconds: float
  batch: int
  at_once: int
  images_per_second: Rate
  flops: float
  bytes: float
  temporary_bytes: int
  share_of_products: float
  share_of_bytes: float


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """The whole.

  Attributes:
    device: in words.
    versions: of jax and of the compared libraries, by name.
    model: its name.
    image_size: px.
    dtype: of the computation, the numerator of every ratio.
    machine: its limits.
    inference: of the model.
    training: the step: gather, augment, gradient, update.
    augmentation: of a batch alone; None where nothing is augmented.
    decoding: of JPEG files twice as large, in one thread.
    peak_memory_bytes: of this process.
    compared: rates by name of the other ('timm_bf16'), by 'inference' and
      'training'.
    ratios: ours to theirs, by 'inference' and 'training', by name: medians over
      turns, each of them next to ours.
    missing: why one that was asked for is not there, by name.
  """

  device: str
  versions: dict[str, str]
  model: str
  image_size: int
  dtype: str
  machine: Machine
  inference: Program
  training: Program
  augmentation: Rate | None
  decoding: Rate
  peak_memory_bytes: int | None
  compared: dict[str, dict[str, Rate]]
  ratios: dict[str, dict[str, float]]
  missing: dict[str, str]
