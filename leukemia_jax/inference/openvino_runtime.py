"""Networks that OpenVINO runs, in bfloat16 where the processor is fast at it.

It is an extra: pip install 'leukemia_jax[openvino]'. Its answers are a model's
within the rounding of bfloat16, and its own are the same each time.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from leukemia_jax.errors import InputError
from leukemia_jax.inference import exported
from leukemia_jax.inference.classifier import Classifier
from leukemia_jax.inference.exported import Portable
from leukemia_jax.inference.segmenter import Segmenter


def of_classifier(own: Classifier) -> Classifier:
  """A classifier whose step OpenVINO runs.

  Args:
    own: the classifier, in float32.

  Returns:
    The same but for `step`, whose first call for a shape of images converts
    the network, and which takes no other variables than the classifier's.

  Raises:
    InputError: the extra isn't installed.
  """
  run = _runner(
    lambda images: own.step(own.variables, images),
    ('probabilities', 'features'),
  )
  return own._replace(step=lambda _, images: run(images))


def of_segmenter(own: Segmenter) -> Segmenter:
  """A segmenter whose step OpenVINO runs; see `of_classifier`."""
  portable = exported.of_segmenter(own)
  run = _runner(portable.function, tuple(portable.outputs))
  return own._replace(step=lambda _, images: run(images)[0])


def _runner(
  function: exported.Function, outputs: Sequence[str]
) -> Callable[[np.ndarray], tuple[Any, ...]]:
  """A function of uint8 images, shape (batch, size, size, 3), in OpenVINO."""
  openvino = _openvino()
  core = openvino.Core()

  @functools.cache
  def compiled(shape: tuple[int, ...]) -> Any:
    portable = Portable(function, shape[1], dict.fromkeys(outputs, ''))
    network = core.read_model(exported.to_onnx(portable))
    network.reshape(list(shape))
    # Threads ask side by side: a core for each of them.
    return core.compile_model(network, 'CPU', {'NUM_STREAMS': os.cpu_count()})

  def run(images: np.ndarray) -> tuple[Any, ...]:
    request = compiled(images.shape).create_infer_request()
    answers = request.infer([images])
    return tuple(answers[name] for name in outputs)

  return run


def _openvino() -> Any:
  """The library, kept from reporting to its makers that it was imported."""
  sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
  try:
    import jax2onnx  # noqa: F401
    import openvino
  except ImportError:
    raise InputError(
      "--runtime=openvino needs: pip install 'leukemia_jax[openvino]'"
    ) from None
  return openvino
