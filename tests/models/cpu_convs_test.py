"""Convolutions and their gradients against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from leukemia_jax.models import cpu_convs, layers

CASES = [
  # kernel, channels, features, height and width, strides, padding
  ((1, 1), 7, 5, (6, 4), 1, 'SAME'),
  ((3, 3), 3, 8, (9, 12), 2, 'VALID'),
  ((3, 3), 6, 4, (8, 7), 1, 'SAME'),
  ((3, 3), 6, 4, (8, 7), 2, 'VALID'),
  ((5, 5), 4, 3, (5, 9), 1, 'SAME'),
  ((1, 7), 5, 6, (4, 9), 1, 'SAME'),
  ((7, 1), 5, 6, (9, 4), 1, 'SAME'),
  ((2, 2), 5, 8, (4, 3), 1, ((1, 0), (1, 0))),
]


def rounded(x):
  return x.astype(jnp.bfloat16).astype(jnp.float32)


def drawn(size, channels, features, side, strides, padding):
  """Images, a kernel, zeros about them as numbers, and XLA's convolution."""
  keys = jax.random.split(jax.random.key(0))
  x = jax.random.normal(keys[0], (2, *side, channels))
  kernel = jax.random.normal(keys[1], (*size, channels, features))
  if isinstance(padding, str):
    pads = lax.padtype_to_pads(side, size, (strides, strides), padding)
    padding = tuple(pads)

  def exact(x, kernel):
    return lax.conv_general_dilated(
      x,
      kernel,
      (strides, strides),
      padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision='highest',
    )

  return x, kernel, padding, exact


@pytest.mark.parametrize(
  ('size', 'channels', 'features', 'side', 'strides', 'padding'),
  [
    *[case for case in CASES if case[0] != (1, 1)],
    # Few and many channels, small and large images.
    ((3, 3), 20, 21, (8, 7), 1, 'SAME'),
    ((3, 3), 21, 20, (8, 7), 1, 'SAME'),
    ((3, 3), 96, 4, (9, 9), 2, 'VALID'),
    ((3, 3), 20, 24, (60, 60), 1, 'SAME'),
    # Pairs of pixels.
    ((3, 3), 8, 5, (56, 58), 1, 'SAME'),
    ((1, 3), 3, 8, (57, 60), 1, ((2, 0), (1, 3))),
    # A kernel's gradient as that of the convolution back.
    ((3, 3), 16, 8, (9, 8), 1, 'SAME'),
    ((2, 3), 9, 4, (8, 9), 1, ((0, 1), (1, 0))),
    ((3, 3), 16, 8, (9, 8), 2, 'SAME'),
  ],
)
def test_convolution_and_its_gradients(
  size, channels, features, side, strides, padding
):
  x, kernel, padding, exact = drawn(
    size, channels, features, side, strides, padding
  )
  expected, back = jax.vjp(exact, x, kernel)
  got, our_back = jax.vjp(
    lambda x, kernel: cpu_convs.conv(x, kernel, strides, padding), x, kernel
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
  g = jax.random.normal(jax.random.key(1), got.shape)
  for mine, theirs in zip(our_back(g), back(g), strict=True):
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(mine / scale, theirs / scale, atol=1e-5)


@pytest.mark.parametrize(
  ('kernel', 'pixels', 'pays'),
  [
    ((3, 3, 80, 192), 52 * 52, True),
    ((3, 3, 96, 96), 25 * 25, True),
    ((2, 2, 16, 32), 56 * 56, True),
    ((3, 3, 64, 64), 28 * 28, False),
    ((3, 3, 32, 64), 109 * 109, False),
    ((1, 1, 192, 384), 12 * 12, False),
  ],
)
def test_form_of_the_kernels_gradient_by_shape(kernel, pixels, pays):
  side = int(pixels**0.5)
  x = jax.ShapeDtypeStruct((1, side, side, kernel[2]), jnp.float32)
  pads = tuple((size // 2, (size - 1) // 2) for size in kernel[:2])
  text = str(
    jax.make_jaxpr(jax.grad(lambda k, x: cpu_convs.conv(x, k, 1, pads).sum()))(
      jax.ShapeDtypeStruct(kernel, jnp.float32), x
    )
  )
  assert text.count('dot_general') == (kernel[0] * kernel[1] if pays else 0)


@pytest.mark.parametrize(
  ('kernel', 'side', 'strides', 'pays'),
  [
    ((3, 3, 3, 8), (112, 112), 1, True),
    ((3, 3, 8, 8), (56, 56), 1, True),
    ((3, 3, 8, 8), (112, 111), 1, False),
    ((3, 3, 8, 8), (28, 28), 1, False),
    ((3, 3, 8, 8), (112, 112), 2, False),
    ((3, 3, 16, 8), (112, 112), 1, False),
  ],
)
def test_pairs_of_pixels_by_shape(kernel, side, strides, pays):
  text = str(
    jax.make_jaxpr(
      lambda x, k: cpu_convs.conv(x, k, strides, ((1, 1), (1, 1)))
    )(
      jax.ShapeDtypeStruct((1, *side, kernel[2]), jnp.float32),
      jax.ShapeDtypeStruct(kernel, jnp.float32),
    )
  )
  assert (f'f32[3,2,{2 * kernel[2]},{2 * kernel[3]}]' in text) == pays


@pytest.mark.parametrize(
  ('size', 'channels', 'features', 'side', 'strides', 'padding'), CASES
)
def test_products_are_the_convolution_of_rounded_values(
  size, channels, features, side, strides, padding
):
  x, kernel, padding, exact = drawn(
    size, channels, features, side, strides, padding
  )

  def ours(x, kernel):
    return cpu_convs.product_conv(x, kernel, strides, padding)

  expected, back = jax.vjp(exact, rounded(x), rounded(kernel))
  got, our_back = jax.vjp(ours, x, kernel)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
  g = jax.random.normal(jax.random.key(1), got.shape)
  for mine, theirs in zip(our_back(g), back(rounded(g)), strict=True):
    assert mine.dtype == jnp.float32
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_gradients_have_the_dtypes_of_what_they_are_of(dtype):
  x, kernel = jnp.ones((1, 3, 3, 2), dtype), jnp.ones((1, 1, 2, 2))
  y, back = jax.vjp(
    lambda x, kernel: cpu_convs.product_conv(x, kernel, 1, ((0, 0),) * 2),
    x,
    kernel,
  )
  dx, dkernel = back(y)
  assert dx.dtype == dtype
  assert dkernel.dtype == jnp.float32


def test_joined_maps_are_rounded_and_their_gradients_parted():
  rng = np.random.default_rng(0)
  maps = [
    jnp.asarray(rng.standard_normal((2, 3, 5, channels)), dtype)
    for channels, dtype in ((1, jnp.float32), (4, jnp.bfloat16), (2, 'float32'))
  ]
  g = jnp.asarray(rng.standard_normal((2, 3, 5, 7)), jnp.bfloat16)

  def joined(maps):
    return layers.concatenate(maps, jnp.bfloat16, train=False)

  def plain(maps):
    return jnp.concatenate(maps, -1).astype(jnp.bfloat16)

  @functools.partial(jax.jit, static_argnums=0)
  def forward_and_back(join, maps, g):
    result, backward = jax.vjp(join, maps)
    return [result, *backward(g)[0]]

  ours, theirs = (forward_and_back(join, maps, g) for join in (joined, plain))
  for got, wanted in zip(ours, theirs, strict=True):
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def test_joined_maps_stay_as_they_are_in_training():
  maps = [jnp.full((1, 2, 2, 1), 1 / 3), jnp.full((1, 2, 2, 2), 1 / 7)]
  joined = layers.concatenate(maps, jnp.bfloat16, train=True)
  np.testing.assert_array_equal(joined, jnp.concatenate(maps, -1))


def test_second_derivatives_are_refused():
  x, kernel = jnp.ones((1, 3, 3, 2)), jnp.ones((1, 1, 2, 2))

  def slope(kernel):
    def loss(kernel):
      y = cpu_convs.product_conv(x, kernel, 1, ((0, 0),) * 2)
      return jnp.square(y).sum()

    return jax.grad(loss)(kernel).sum()

  with pytest.raises(NotImplementedError, match='second derivatives'):
    jax.grad(slope)(kernel)


@pytest.mark.parametrize('train', [False, True])
def test_maps_are_rounded_between_layers_in_inference_alone(train):
  maps = layers.map_dtype(jnp.bfloat16, train=train)
  assert maps == (jnp.float32 if train else jnp.bfloat16)
  assert layers.map_dtype(jnp.float32, train=train) == jnp.float32
  with layers.plain_forms():
    assert layers.map_dtype(jnp.bfloat16, train=train) == jnp.bfloat16


@pytest.mark.parametrize(
  'make',
  [
    lambda dtype: layers.Conv(4, (3, 3), use_bias=True, dtype=dtype),
    lambda dtype: layers.Conv(4, (1, 1), dtype=dtype),
    lambda dtype: layers.TransposedConv(4, dtype),
  ],
)
def test_layers_are_those_of_float32_within_bfloat16(make):
  x = jax.random.normal(jax.random.key(0), (2, 6, 5, 16))
  variables = jax.jit(make(jnp.float32).init)(jax.random.key(1), x)

  def run(dtype):
    def loss(variables, x):
      y = make(dtype).apply(variables, x).astype(jnp.float32)
      return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

    # Jitted: each operation alone would be compiled.
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, y), grads = run(variables, x)
    return [y, *jax.tree.leaves(grads)]

  def is_convolved():
    layer = make(jnp.bfloat16)
    traced = jax.make_jaxpr(lambda x: layer.apply(variables, x))(x)
    return 'conv_general_dilated' in str(traced)

  exact, ours = run(jnp.float32), run(jnp.bfloat16)
  assert not is_convolved()
  with layers.plain_forms():
    plain = run(jnp.bfloat16)
    assert is_convolved()
  for theirs, mine, other in zip(exact, ours, plain, strict=True):
    error = np.abs(mine - theirs).max()
    # bfloat16 has eight binary digits; the plain form may also sum in it, or,
    # by processor, in float32 in an order of its own.
    assert error <= 2**-8 * np.abs(theirs).max()
    assert error <= (1 + 2**-12) * np.abs(other - theirs).max()
