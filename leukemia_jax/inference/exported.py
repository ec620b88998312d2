"""Trained models as files that run without this package.

`model.stablehlo` holds everything from uint8 pixels on: what is taken out of
images, scaling, the network, the temperature or the threshold. It is read by
`jax.export.deserialize`. `model.onnx` holds the same for other programs.
"""

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from PIL import Image

from leukemia_jax.data import decode, synthetic, synthetic_cells
from leukemia_jax.errors import InputError
from leukemia_jax.inference.classifier import Classifier
from leukemia_jax.inference.segmenter import Segmenter
from leukemia_jax.models import layers
from leukemia_jax.timing import measure_rate

# Processors that a model is stored for, by JAX' names.
PLATFORMS = ('cpu', 'cuda')
INPUT = 'images'
_OPSET = 21
# Largest difference to the model itself that is accepted.
_TOLERANCE = 1e-4
# Images that it is looked for on.
_COMPARED = 8

Function = Callable[[Any], tuple[jax.Array, jax.Array]]
Runner = Callable[[np.ndarray], Sequence[Any]]


class Portable(NamedTuple):
  """A model as one function of images alone.

  Attributes:
    function: maps uint8 images of shape (batch, size, size, 3) to the outputs.
    size: side of these images, px.
    outputs: what each output is, by name.
  """

  function: Function
  size: int
  outputs: dict[str, str]


def of_classifier(own: Classifier) -> Portable:
  """A classifier with its temperature and its limit inside.

  Args:
    own: the classifier.

  Returns:
    Its function, to probabilities, float32 (batch, classes), and distances,
    float32 (batch,), above 1 for images unlike the training images.
  """
  means = own.detector.means.astype(np.float32)
  # A root of the precision: float32 does for a sum of squares. Channels that
  # never fire make it singular.
  values, vectors = np.linalg.eigh(own.detector.precision)
  root = vectors * np.sqrt(np.maximum(values, 0)) / own.farthest
  root = root.astype(np.float32)

  def function(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    probabilities, features = own.step(own.variables, images)
    logits = jnp.log(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny))
    away = features[:, None] - means[None]
    squared = jnp.square(jnp.einsum('bkc,cd->bkd', away, root)).sum(-1)
    return (
      jax.nn.softmax(logits / own.temperature),
      jnp.sqrt(squared.min(-1)),
    )

  return Portable(
    function,
    own.image_size,
    {
      'probabilities': 'float32 (batch, classes), calibrated',
      'distance': 'float32 (batch,), above 1: unlike the training images',
    },
  )


def of_segmenter(own: Segmenter) -> Portable:
  """A segmenter with its threshold inside.

  Args:
    own: the segmenter.

  Returns:
    Its function, to probabilities of cells, float32 (batch, size, size), and
    masks, bool of the same shape.
  """

  def function(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    probabilities = own.step(own.variables, images)
    return probabilities, probabilities > own.threshold

  return Portable(
    function,
    own.image_size,
    {
      'probabilities': 'float32 (batch, size, size), of white cells',
      'masks': 'bool (batch, size, size), above the threshold',
    },
  )


def to_stablehlo(portable: Portable) -> bytes:
  """A model as JAX stores it, for any batch size and each of `PLATFORMS`."""
  shape = export.symbolic_shape(f'batch, {portable.size}, {portable.size}, 3')
  images = jax.ShapeDtypeStruct(shape, jnp.uint8)
  make = export.export(jax.jit(portable.function), platforms=PLATFORMS)
  return bytes(make(images).serialize())


def run_stablehlo(content: bytes) -> Runner:
  """The function that `to_stablehlo` stored."""
  return jax.jit(export.deserialize(bytearray(content)).call)


def to_onnx(portable: Portable) -> bytes:
  """A model as ONNX, for any batch size.

  Layers stand in their plain forms there, not in those that are faster on one
  processor.

  Args:
    portable: the model.

  Returns:
    The file.

  Raises:
    ImportError: jax2onnx or onnxruntime is not installed.
  """
  import jax2onnx

  size = portable.size
  # The converter's own optimiser takes time by the square of the graph, many
  # minutes for NASNetLarge, and `_simplified` does in seconds what it does.
  as_converted = mock.patch(
    'jax2onnx.converter.conversion_api.optimize_graph',
    lambda model: model,
    create=True,
  )
  # Compiled functions within would become functions of the graph, which the
  # converter can't read from JAX 0.11 on.
  with as_converted, layers.plain_forms(), jax.disable_jit():
    model = jax2onnx.to_onnx(
      portable.function,
      [jax.ShapeDtypeStruct(('batch', size, size, 3), jnp.uint8)],
      opset=_OPSET,
      input_names=[INPUT],
      output_names=list(portable.outputs),
    )
  # Notes on shapes, some of them of another layout than the arrays.
  del model.graph.value_info[:]
  return _simplified(model.SerializeToString())


def _simplified(content: bytes) -> bytes:
  """A graph as ONNX Runtime simplifies it, in standard operators alone.

  Turns from one layout to another cancel, and what scales a convolution's
  answer becomes part of its kernel.
  """
  import onnx
  import onnxruntime

  options = onnxruntime.SessionOptions()
  # Errors alone: it tells of each constant that it leaves away.
  options.log_severity_level = 3
  options.graph_optimization_level = (
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
  )
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, 'model.onnx')
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(content, options)
    model = onnx.load(path)
  # It names all domains of operators that it knows.
  standard = [own for own in model.opset_import if not own.domain]
  del model.opset_import[:]
  model.opset_import.extend(standard)
  return bytes(model.SerializeToString())


def run_onnx(content: bytes) -> Runner:
  """The function that `to_onnx` stored, in onnxruntime."""
  import onnxruntime

  session = onnxruntime.InferenceSession(content)
  return lambda images: session.run(None, {INPUT: images})


def smears(size: int) -> np.ndarray:
  """Synthetic smears that stored models are run on, uint8."""
  drawn = (
    synthetic.render_image(
      jax.random.key(0), i, i % 4, i, spec=synthetic_cells.SmearSpec()
    )
    for i in range(_COMPARED)
  )
  return np.stack(
    [decode.to_size(Image.fromarray(image), size) for image, _ in drawn]
  )


class Check(NamedTuple):
  """What running a stored model says.

  Attributes:
    largest_difference: to the floating-point outputs of the model itself.
    images_per_second: in batches of eight, on this machine.
  """

  largest_difference: float
  images_per_second: float


def check(stored: Runner, portable: Portable, name: str) -> Check:
  """Runs a stored model, and compares it with the model itself.

  Args:
    stored: from `run_stablehlo` or `run_onnx`.
    portable: the model itself.
    name: of the file.

  Returns:
    What that says.

  Raises:
    InputError: their outputs differ.
  """
  images = smears(portable.size)
  pairs = zip(stored(images), portable.function(images), strict=True)
  # NumPy's largest of what holds nan is nan, and that is refused too.
  difference = float(
    np.max(
      [
        np.abs(np.asarray(first) - np.asarray(second)).max()
        for first, second in pairs
        if np.asarray(second).dtype != bool
      ]
    )
  )
  if not difference <= _TOLERANCE:
    raise InputError(
      f'{name} differs from the model by {difference:.2g} on synthetic smears '
      f'(accepted: {_TOLERANCE:g}): it is not written'
    )
  return Check(difference, images_per_second(stored, images))


def images_per_second(function: Runner, images: np.ndarray) -> float:
  """How fast a compiled function is."""

  def call() -> None:
    np.asarray(function(images)[0])

  # The first one compiles.
  call()
  return measure_rate(call, len(images))
