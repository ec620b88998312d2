"""The programs of a config, compiled and timed as its commands run them."""

import io
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from leukemia_jax import build, devices, models
from leukemia_jax.benchmark.record import Machine, Program, Rate
from leukemia_jax.build import Inputs, Network
from leukemia_jax.data import decode, input_pipeline
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.parallel import in_order
from leukemia_jax.timing import measure_rate
from leukemia_jax.training import setup
from leukemia_jax.training.step import repeat_step
from leukemia_jax.transforms.preprocess import preprocess

# Of the made-up epoch.
_STEPS = 4


class Timed(NamedTuple):
  """Something that can be measured again and again.

  Attributes:
    turn: measures once: images a second.
    program: what is known of it but its rates; None of what is no program.
  """

  turn: Callable[[], float]
  program: Callable[[Rate, Machine], Program] | None = None


def _set(config: ConfigDict, count: int, masks: bool) -> Dataset:
  """Random images with labels, and masks if there are any."""
  size, rng = config.data.image_size, np.random.default_rng(0)
  images = rng.integers(0, 256, (count, size, size, 3), np.uint8)
  labels = rng.integers(0, 2, count, np.int32)
  cells = rng.integers(0, 2, (count, size, size, 1), np.uint8)
  return Dataset(
    jnp.asarray(images),
    jnp.asarray(labels),
    jnp.asarray(cells) if masks else None,
  )


def compile_program(
  function: Callable[..., Any],
  *args: Any,
  batch: int,
  at_once: int,
  **options: Any,
) -> tuple[Callable[..., Any], Callable[[Rate, Machine], Program]]:
  """Compiles a program, and says what it is once its rates are known."""
  started = time.perf_counter()
  lowered = jax.jit(function, **options).lower(*args)
  traced = time.perf_counter()
  compiled = lowered.compile()
  compile_seconds = time.perf_counter() - traced
  counted, done = lowered.cost_analysis(), compiled.cost_analysis()
  flops = float((counted or {}).get('flops', 0)) / batch
  moved = float((done or {}).get('bytes accessed', 0)) / batch
  memory = compiled.memory_analysis()

  def program(rate: Rate, machine: Machine) -> Program:
    return Program(
      trace_seconds=traced - started,
      compile_seconds=compile_seconds,
      batch=batch,
      at_once=at_once,
      images_per_second=rate,
      flops=flops,
      bytes=moved,
      temporary_bytes=memory.temp_size_in_bytes if memory else 0,
      share_of_products=flops * rate.median / machine.products,
      share_of_bytes=moved * rate.median / machine.bytes,
    )

  return compiled, program


def inference(config: ConfigDict, network: Network, inputs: Inputs) -> Timed:
  """A model's answers to images, in steps as predictions take them.

  Args:
    config: of the benchmark; `train.batch_size` is the most a step.
    network: the model.
    inputs: of the config.
  """
  batch, at_once = devices.step_batching(
    config.train.batch_size, devices.cpu_batch(config.model.dtype)
  )
  variables = models.with_rounded_kernels(
    network.model, setup.random_state(config, network, inputs).variables()
  )
  images = _set(config, batch, masks=False).images

  def answer(variables: Any, images: jax.Array) -> jax.Array:
    images = preprocess(images, network.preprocessing)
    logits: jax.Array = network.model.apply(variables, images, train=False)[0]
    return logits

  step, program = compile_program(
    answer, variables, images, batch=batch, at_once=at_once
  )
  calls = 4 * at_once

  def run() -> None:
    jobs = [lambda: np.asarray(step(variables, images))] * calls
    for _ in in_order(jobs, at_once, 2 * at_once):
      pass

  run()
  return Timed(lambda: measure_rate(run, calls * batch), program)


def training(config: ConfigDict, network: Network, inputs: Inputs) -> Timed:
  """The training step of a config, one a call.

  Args:
    config: of the benchmark.
    network: what learns.
    inputs: of the config.
  """
  batch = config.train.batch_size
  state = setup.random_state(config, network, inputs)
  learner = setup.learner(config, network, inputs, lambda counts: {})
  dataset = _set(config, _STEPS * batch, config.model.name in models.UNETS)
  indices = jnp.arange(_STEPS * batch).reshape(_STEPS, batch)
  args = (inputs.keys.train, dataset, indices, jnp.ones(indices.shape))
  compiled, program = compile_program(
    repeat_step(learner.train_step, 1),
    *(state, *args),
    batch=batch,
    at_once=1,
    donate_argnums=0,
    compiler_options=learner.compiler_options,
  )

  def run() -> None:
    nonlocal state
    state, metrics = compiled(state, *args)
    jax.block_until_ready(metrics)

  run()
  return Timed(lambda: measure_rate(run, batch), program)


def augmentation(config: ConfigDict, inputs: Inputs) -> Timed | None:
  """What happens to a training batch, alone; None if nothing does."""
  augment = input_pipeline.training_augment(inputs.spec, inputs.augment)
  if augment is None:
    return None
  batch = config.train.batch_size
  masks = config.model.name in models.UNETS
  dataset = _set(config, batch, masks)
  step = jax.jit(
    lambda dataset, key: dataset.augmented(
      augment, jax.random.split(key, batch)
    )
  )

  def run() -> None:
    jax.block_until_ready(step(dataset, inputs.keys.train))

  run()
  return Timed(lambda: measure_rate(run, batch))


def decoding(config: ConfigDict) -> Timed:
  """Reading JPEG files of twice the size, as for a new data set."""
  size = config.data.image_size
  rng, stream = np.random.default_rng(0), io.BytesIO()
  # Smooth, as photographs are.
  small = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
  small.resize((2 * size, 2 * size), Image.Resampling.BICUBIC).save(
    stream, 'JPEG', quality=90
  )
  options, content = build.decoding(config.data), stream.getvalue()

  def run() -> None:
    decode.read(content, size, options)

  run()
  return Timed(lambda: measure_rate(run, 1))
