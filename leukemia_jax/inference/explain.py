"""Where a classifier looks, and whether it really does.

Pure functions of (variables, images). Heat is that of one class, 0 and above.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from leukemia_jax import models
from leukemia_jax.models.layers import FIRST_STAGE, FIRST_STAGE_STRIDE
from leukemia_jax.transforms import colour
from leukemia_jax.transforms.preprocess import preprocess

# Maps float images of 0..255, (batch, height, width, 3), to logits.
Logits = Callable[[jax.Array], jax.Array]


def logits_of(
  model: models.Classifier, variables: Any, preprocessing: str
) -> Logits:
  """A classifier as a function of images alone.

  Args:
    model: the classifier.
    variables: its own.
    preprocessing: see `transforms.preprocess`.

  Returns:
    Maps images, 0..255, float (batch, height, width, 3), to logits.
  """

  def logits(images: jax.Array) -> jax.Array:
    scaled = preprocess(images, preprocessing)
    return model.apply(variables, scaled, train=False)[0]

  return logits


def hires_cam(
  model: models.Classifier,
  variables: Any,
  images: jax.Array,
  labels: jax.Array,
  *,
  preprocessing: str,
) -> jax.Array:
  """HiResCAM after the backbone's first stage.

  Grad-CAM (Selvaraju et al., ICCV 2017) averages gradients over an image, which
  smears heat over all that looks alike; HiResCAM (Draelos and Carin,
  arXiv:2011.08891) takes them pixel by pixel. Later stages of small images are
  a few pixels wide; the first still tells cells apart, and the network's rest
  is in the gradient.

  Args:
    model: the classifier.
    variables: its own.
    images: uint8, shape (batch, height, width, 3).
    labels: int, shape (batch,): of which class.
    preprocessing: see `transforms.preprocess`.

  Returns:
    float32, shape (batch, height, width): 0..1, the largest of each image 1
    unless all are 0.
  """
  scaled = preprocess(images, preprocessing)

  def score(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    shifted = {**variables, 'perturbations': {'backbone': {FIRST_STAGE: shift}}}
    (logits, _), taps = model.apply(
      shifted, scaled, train=False, mutable=['intermediates']
    )
    (features,) = taps['intermediates']['backbone'][FIRST_STAGE]
    own = jnp.take_along_axis(logits, labels[:, None], 1)
    return own.sum(), features

  _, taps = jax.eval_shape(
    lambda: model.apply(
      variables, scaled, train=False, mutable=['intermediates']
    )
  )
  (shape,) = taps['intermediates']['backbone'][FIRST_STAGE]
  gradient, features = jax.grad(score, has_aux=True)(
    jnp.zeros(shape.shape, shape.dtype)
  )
  heat = (gradient * features).astype(jnp.float32).sum(-1)
  # Each pixel of the feature map where it looks: its borders see less.
  stride = FIRST_STAGE_STRIDE
  centres = [model.backbone.first_centre(side) for side in images.shape[1:3]]
  heat = jax.image.scale_and_translate(
    jax.nn.relu(heat),
    images.shape[:3],
    (1, 2),
    scale=jnp.full(2, float(stride)),
    translation=jnp.array(centres) + 0.5 - stride / 2,
    method='linear',
  )
  return _to_unit(heat)


def integrated_gradients(
  logits: Logits, images: jax.Array, labels: jax.Array, *, steps: int = 32
) -> jax.Array:
  """Integrated gradients (Sundararajan et al., ICML 2017).

  The path leads from an image of the background's colour to the image; what it
  adds to the class' logit is the sum of all pixels, in the limit of many steps.
  It compiles one step, so call it outside of `jax.jit`.

  Args:
    logits: from `logits_of`.
    images: uint8, shape (batch, height, width, 3).
    labels: int, shape (batch,): of which class.
    steps: points on the path, at the middle of as many pieces.

  Returns:
    float32, shape (batch, height, width, 3), of both signs.
  """
  target = images.astype(jnp.float32)
  light = jax.vmap(colour.background_colour)(images)
  empty = jnp.broadcast_to(light[:, None, None], target.shape)

  @jax.jit
  def gradient(values: jax.Array) -> jax.Array:
    return jax.grad(
      lambda x: jnp.take_along_axis(logits(x), labels[:, None], 1).sum()
    )(values)

  # No compiled loop: gradients of convolutions crawl in it on a CPU.
  total = jnp.zeros_like(target)
  for i in range(steps):
    share = (i + 0.5) / steps
    total += gradient(empty + share * (target - empty))
  return (target - empty) * total / steps


def curve(
  logits: Logits,
  images: jax.Array,
  labels: jax.Array,
  heat: jax.Array,
  *,
  steps: int = 16,
  insert: bool = False,
) -> jax.Array:
  """What taking the hottest pixels away does (Petsiuk et al., BMVC 2018).

  Args:
    logits: from `logits_of`.
    images: uint8, shape (batch, height, width, 3).
    labels: int, shape (batch,): of which class.
    heat: float, shape (batch, height, width).
    steps: pieces that the pixels are cut into, the hottest first.
    insert: whether an empty image gets them, instead of the image losing them.

  Returns:
    float32, shape (batch, steps + 1): the class' probability after each piece,
    from none to all. Pixels that are gone have the background's colour.
  """
  batch, height, width = heat.shape
  ranks = jnp.argsort(jnp.argsort(-heat.reshape(batch, -1), -1), -1)
  ranks = ranks.reshape(batch, height, width, 1)
  empty = jax.vmap(colour.background_colour)(images)[:, None, None]
  target = images.astype(jnp.float32)

  def probability(i: jax.Array) -> jax.Array:
    taken = ranks < i * height * width / steps
    values = jnp.where(taken == insert, target, empty)
    shares = jax.nn.softmax(logits(values))
    return jnp.take_along_axis(shares, labels[:, None], 1)[:, 0]

  return jax.lax.map(probability, jnp.arange(steps + 1)).T


def random_heat(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
  """Heat that knows nothing, as smooth as that of `hires_cam`.

  Args:
    key: PRNG key.
    shape: (batch, height, width).

  Returns:
    float32 of that shape, 0..1.
  """
  coarse = (shape[0], -(-shape[1] // 8), -(-shape[2] // 8))
  drawn = jax.random.uniform(key, coarse)
  return jax.image.resize(drawn, shape, 'linear')


def concentration(heat: jax.Array, mask: jax.Array) -> jax.Array:
  """Share of heat that lies on cells, in units of the cells' share of the area.

  Args:
    heat: float, shape (batch, height, width), 0 and above.
    mask: bool, of the same shape.

  Returns:
    float32, shape (batch,): 1 if heat doesn't care for cells; nan without heat
    or cells.
  """
  cells = mask.astype(jnp.float32)
  on_cells = (heat * cells).sum((1, 2)) / heat.sum((1, 2))
  return on_cells / cells.mean((1, 2))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
  """An image under its heat.

  Args:
    image: uint8, shape (height, width, 3).
    heat: float, shape (height, width), 0..1.

  Returns:
    uint8 of the image's shape: grey where it is cold, coloured where it is hot.
  """
  import matplotlib

  colours = matplotlib.colormaps['inferno'](heat)[..., :3] * 255
  grey = np.repeat(image.mean(-1, keepdims=True), 3, -1)
  share = np.clip(0.15 + heat[..., None], 0, 0.75)
  return np.round((1 - share) * grey + share * colours).astype(np.uint8)


def _to_unit(heat: jax.Array) -> jax.Array:
  largest = heat.max((1, 2), keepdims=True)
  return heat / jnp.where(largest > 0, largest, 1)
