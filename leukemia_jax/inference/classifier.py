"""A trained classifier, or several, and what they say of new images."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, devices, models
from leukemia_jax.errors import InputError
from leukemia_jax.inference import explain
from leukemia_jax.metrics import calibration, conformal, outliers
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.metrics.outliers import Detector
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.colour import Removal
from leukemia_jax.transforms.preprocess import preprocess
from leukemia_jax.workdir import calibration_file, limits_file, result
from leukemia_jax.workdir.saved import Trained

# What is said against an answer, and if nothing is.
UNLIKE, UNCERTAIN, OK = 'unlike the training images', 'uncertain', 'ok'


class Classifier(NamedTuple):
  """A trained classifier at work.

  Attributes:
    class_names: of its classes.
    image_size: side of the images that it takes, px.
    variables: its weights, kernels rounded to what it computes in.
    step: maps (variables, uint8 images) to softmax probabilities, float32
      (batch, classes), and features, float32 (batch, channels); compiled.
    heat: maps (variables, uint8 images, int labels) to where the network sees
      that class, float32 (batch, height, width); see `explain.hires_cam`.
    temperature: what logits are divided by.
    detector: says how far an image is from the training images.
    farthest: distance above which an image is unlike them.
    least: probability from which on a class is possible.
    cpu_batch: most images of a step on a CPU.
    removal: what the images that it was trained on lack.
  """

  class_names: tuple[str, ...]
  image_size: int
  variables: Any
  step: Callable[[Any, Any], tuple[jax.Array, jax.Array]]
  heat: Callable[[Any, Any, Any], jax.Array]
  temperature: float
  detector: Detector
  farthest: float
  least: float
  cpu_batch: int = 2
  removal: Removal = Removal()

  @property
  def view(self) -> tuple[int, Removal]:
    """What decides how an image is scaled for it."""
    return self.image_size, self.removal


class Answers(NamedTuple):
  """What classifiers say of n images.

  Attributes:
    probabilities: float64, shape (n, classes), calibrated.
    entropy: float64, shape (n,), of these, nats.
    unlike: bool, shape (n,): unlike the training images.
    uncertain: bool, shape (n,): several classes are possible.
  """

  probabilities: np.ndarray
  entropy: np.ndarray
  unlike: np.ndarray
  uncertain: np.ndarray

  def flags(self) -> list[str]:
    """What is said against each answer, joined by ';'; OK for nothing."""
    return [
      ';'.join([UNLIKE] * bool(a) + [UNCERTAIN] * bool(b)) or OK
      for a, b in zip(self.unlike, self.uncertain, strict=True)
    ]


def make(
  trained: Trained,
  workdir: pathlib.Path,
  rates: Rates,
  calibrated_in: pathlib.Path | None = None,
  compile_network: Callable[..., Any] = jax.jit,
) -> Classifier:
  """Makes a classifier of a finished run.

  Args:
    trained: the run.
    workdir: of the run.
    rates: that thresholds are chosen by.
    calibrated_in: workdir of an evaluation whose temperature takes the place of
      the run's.
    compile_network: maps the network, a function of variables and images, to
      what runs it.

  Returns:
    The classifier.

  Raises:
    InputError: its limits or the calibration can't be read, or it needs masks.
  """
  config, finished = trained.config, trained.result
  if config.data.neutral_background:
    raise InputError(
      f'{workdir} was trained with config.data.neutral_background=True, on '
      'images whose masks are known; new images have none'
    )
  temperature, _ = result.fitted_temperature(finished, workdir)
  if calibrated_in:
    local = calibration_file.read(calibrated_in, finished.parameters_sha256)
    temperature = local.temperature
  limits = limits_file.read(workdir)
  model = build.create_model(config, finished.model.num_outputs)
  assert isinstance(model, models.Classifier)
  step, heat = _make_steps(model, config, compile_network)
  return Classifier(
    tuple(finished.data.classes),
    config.data.image_size,
    models.with_rounded_kernels(model, trained.variables),
    step,
    heat,
    temperature,
    limits.detector,
    *conformal.thresholds(
      *limits.validation, temperature=temperature, rates=rates
    ),
    devices.cpu_batch(config.model.dtype),
    build.removal(config.data),
  )


def _make_steps(
  model: models.Classifier,
  config: ConfigDict,
  compile_network: Callable[..., Any],
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """`step` and `heat` of a classifier."""
  removal = build.removal(config.data)
  kind = config.model.preprocess

  @compile_network
  def network(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features = models.apply_with_features(
      model, variables, preprocess(images, kind)
    )
    return jax.nn.softmax(logits), features

  @jax.jit
  def explained(
    variables: Any, images: jax.Array, labels: jax.Array
  ) -> jax.Array:
    return explain.hires_cam(
      model, variables, images, labels, preprocessing=kind
    )

  def step(variables: Any, images: Any) -> tuple[jax.Array, jax.Array]:
    images = colour.remove_all(images, None, removal)
    probabilities, features = network(variables, images)
    return probabilities, features

  def heat(variables: Any, images: Any, labels: Any) -> jax.Array:
    images = colour.remove_all(images, None, removal)
    return explained(variables, images, labels)

  return step, heat


def check_alike(
  classifiers: Sequence[Classifier], names: Sequence[str]
) -> None:
  """Refuses classifiers whose answers can't be averaged.

  Args:
    classifiers: of an ensemble.
    names: of their workdirs.

  Raises:
    InputError: their classes differ.
  """
  for own, name in zip(classifiers, names, strict=True):
    if own.class_names != classifiers[0].class_names:
      raise InputError(
        f'--checkpoint={name} knows the classes {", ".join(own.class_names)}, '
        f'and {names[0]} {", ".join(classifiers[0].class_names)}: models of '
        'other classes cannot be averaged'
      )


def answer(
  classifiers: Sequence[Classifier],
  outputs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Answers:
  """Joins what classifiers say of n images.

  Args:
    classifiers: one or more, of the same classes.
    outputs: of their steps: probabilities and features.

  Returns:
    The mean of their calibrated probabilities. An image is unlike the training
    images if, on average, its distances are beyond the classifiers' limits; a
    class is possible from the mean of their least probabilities on.
  """
  said = [
    calibration.with_temperature(probabilities, own.temperature)
    for own, (probabilities, _) in zip(classifiers, outputs, strict=True)
  ]
  beyond = [
    outliers.distances(own.detector, features) / own.farthest
    for own, (_, features) in zip(classifiers, outputs, strict=True)
  ]
  mean = np.mean(said, 0)
  least = float(np.mean([own.least for own in classifiers]))
  positive = np.where(mean > 0, mean, 1)
  return Answers(
    mean,
    -(mean * np.log(positive)).sum(1),
    np.mean(beyond, 0) > 1,
    conformal.sets(mean, least).sum(1) > 1,
  )
