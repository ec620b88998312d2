"""Networks that OpenVINO runs in the place of JAX.

It is an extra: pip install 'leukemia_jax[openvino]'. Answers are a float32
model's within the rounding of the dtype that OpenVINO computes in.
"""

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from leukemia_jax import parallel
from leukemia_jax.errors import InputError
from leukemia_jax.inference import exported
from leukemia_jax.inference.exported import Portable

# Images of a step, with one for each core: measured for InceptionResNetV2.
BATCH = 8
# OpenVINO's names.
_PRECISIONS = {'float32': 'f32', 'bfloat16': 'bf16'}
# The converter changes JAX while it works.
_CONVERTING = threading.Lock()

# Maps (variables, uint8 images) to arrays.
Network = Callable[[Any, Any], tuple[Any, ...]]


def compile_network(network: Network, *, dtype: str) -> Network:
  """A network as OpenVINO runs it.

  Args:
    network: maps (variables, uint8 images of shape (batch, size, size, 3)) to
      a tuple of arrays, in float32.
    dtype: 'float32' or 'bfloat16', that OpenVINO computes in.

  Returns:
    The same function, from threads too. Its first call for a shape of images
    converts it, with the variables of that call: it takes no others. What JAX
    had compiled is compiled anew after that.

  Raises:
    InputError: the extra isn't installed; the function raises it where the
      network can't be converted.
  """
  openvino = _openvino()
  # Its bindings set themselves up at the first array, and where two threads
  # come first each waits for the other, for ever.
  _ = openvino.Tensor(np.zeros(1)).data
  core = openvino.Core()
  options = {
    'INFERENCE_PRECISION_HINT': _PRECISIONS[dtype],
    # Threads ask side by side: a core for each of them.
    'NUM_STREAMS': parallel.cores(),
  }
  programs: dict[tuple[int, ...], Any] = {}

  def convert(variables: Any, shape: tuple[int, ...]) -> Any:
    function = functools.partial(network, variables)
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    outputs = [
      f'output_{i}' for i in range(len(jax.eval_shape(function, images)))
    ]
    portable = Portable(function, shape[1], dict.fromkeys(outputs, ''))
    try:
      converted = core.read_model(exported.to_onnx(portable))
      converted.reshape(list(shape))
      return core.compile_model(converted, 'CPU', options)
    except Exception as error:
      # Converters raise many kinds on what they don't know.
      raise InputError(
        f'the network cannot be converted for OpenVINO: {error!r}; leave '
        '--runtime away'
      ) from None

  def run(variables: Any, images: Any) -> tuple[Any, ...]:
    images = np.asarray(images)
    with _CONVERTING:
      if images.shape not in programs:
        programs[images.shape] = convert(variables, images.shape)
    answers = programs[images.shape].infer_new_request([images])
    return tuple(answers.values())

  return run


def _openvino() -> Any:
  """The library, kept from reporting to its makers that it is imported."""
  hidden = 'openvino_telemetry' not in sys.modules
  if hidden:
    sys.modules['openvino_telemetry'] = None  # type: ignore[assignment]
  try:
    import jax2onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import openvino
  except ModuleNotFoundError as error:
    raise InputError(
      f"OpenVINO needs: pip install 'leukemia_jax[openvino]' ({error})"
    ) from None
  finally:
    if hidden:
      del sys.modules['openvino_telemetry']
  return openvino
