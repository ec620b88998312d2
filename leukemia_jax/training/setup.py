"""What a training run starts with: its steps, its schedule, its first state."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build
from leukemia_jax.build import Inputs, Network
from leukemia_jax.data import input_pipeline
from leukemia_jax.evaluation.eval_step import make_eval_step
from leukemia_jax.training import initial_weights
from leukemia_jax.training.loop import Learner, Schedule
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.plateau_and_stopping import Rules
from leukemia_jax.training.state import TrainState, init_state
from leukemia_jax.training.step import compiler_options, make_train_step
from leukemia_jax.workdir import LATEST, checkpoint


def schedule(config: ConfigDict) -> Schedule:
  """Takes how long to train from a config."""
  train = config.train
  # Never a loop over steps on a CPU: gradients of convolutions crawl in it.
  steps_per_call = train.steps_per_call
  if config.data.stream or jax.default_backend() == 'cpu':
    steps_per_call = 1
  rules = Rules(
    train.plateau_factor,
    train.plateau_patience,
    train.stop_patience,
    train.epochs if train.decay == 'cosine' else 0,
  )
  return Schedule(
    train.epochs,
    train.batch_size,
    build.images_at_once(train),
    train.checkpoint_steps,
    steps_per_call,
    rules,
  )


def learner(
  config: ConfigDict,
  network: Network,
  inputs: Inputs,
  extra_scores: Callable[[np.ndarray], dict[str, float]],
) -> Learner:
  """Makes the steps of a run.

  Args:
    config: the config.
    network: what learns.
    inputs: of the run.
    extra_scores: see `Learner`.

  Returns:
    What the loop calls.
  """
  train = config.train
  train_step = make_train_step(
    network,
    tx=make_optimizer(train.freeze_backbone),
    augment=input_pipeline.training_augment(inputs.spec, inputs.augment),
    accumulate=train.accumulate,
  )
  return Learner(
    train_step,
    make_eval_step(network),
    network.num_classes,
    extra_scores,
    compiler_options(config.model.name, train.accumulate),
  )


def random_state(
  config: ConfigDict, network: Network, inputs: Inputs
) -> TrainState:
  """A run's state of random weights.

  Args:
    config: the config.
    network: what learns.
    inputs: of the run.

  Returns:
    The state.
  """
  size = config.data.image_size
  return init_state(
    inputs.keys.init,
    network.model,
    make_optimizer(config.train.freeze_backbone),
    shape=(size, size, 3),
    learning_rate=config.train.learning_rate,
  )


def first_state(
  config: ConfigDict,
  network: Network,
  inputs: Inputs,
  class_names: tuple[str, ...],
  workdir: pathlib.Path,
) -> TrainState:
  """A run's state before its first step.

  Args:
    config: the config.
    network: what learns.
    inputs: of the run.
    class_names: of the set.
    workdir: of the run; if it holds a checkpoint, that one counts, and weights
      are not read again.

  Returns:
    The state.

  Raises:
    InputError: the weights can't be had, or are another model's.
  """
  state = random_state(config, network, inputs)
  if checkpoint.is_empty(workdir / LATEST):
    state = initial_weights.initialize(state, config, class_names)
  return state
