"""Fast forms of layers against the plain ones."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax.models import layers


@pytest.mark.parametrize('window', [2, 3])
@pytest.mark.parametrize(
  'shape', [(2, 9, 9, 4), (1, 12, 7, 3), (1, 3, 4, 1), (2, 8, 6, 3)]
)
def test_max_pool_with_equal_pixels(shape, window):
  # Whole numbers: every sum is exact, and many pixels of a window are equal.
  x = jax.random.randint(jax.random.key(0), shape, 0, 4).astype(jnp.float32)

  def plain(x):
    return nn.max_pool(x, (window, window), (2, 2), 'VALID')

  def ours(x):
    return layers.max_pool(x, window)

  np.testing.assert_array_equal(ours(x), plain(x))
  weight = jnp.arange(plain(x).size).reshape(plain(x).shape)

  def gradient(pool):
    return jax.jit(jax.grad(lambda x: (pool(x) * weight).sum()))(x)

  np.testing.assert_array_equal(gradient(ours), gradient(plain))


def test_max_pool_keeps_what_is_no_number():
  x = jnp.ones((1, 4, 4, 1)).at[0, 1, 1, 0].set(jnp.nan)
  y, _ = jax.vjp(lambda x: layers.max_pool(x, 2), x)
  np.testing.assert_array_equal(jnp.isnan(y).ravel(), [True] + 3 * [False])


@pytest.mark.parametrize('window', [2, 3])
def test_max_pool_of_bfloat16(window):
  # All of them: both zeros, infinities, and every NaN.
  bits = np.random.default_rng(0).permutation(2**16).astype(np.uint16)
  x = jax.lax.bitcast_convert_type(bits.reshape(4, 64, 64, 4), jnp.bfloat16)
  windows = np.lib.stride_tricks.sliding_window_view(
    np.float32(x), (window, window), (1, 2)
  )
  np.testing.assert_array_equal(
    np.float32(layers.max_pool(x, window)),
    windows[:, ::2, ::2].max((-2, -1)),
  )


@pytest.mark.parametrize('use_bias', [True, False])
def test_pointwise_convolution(use_bias):
  x = jax.random.normal(jax.random.key(0), (2, 5, 6, 7))
  fast = layers.Conv(4, (1, 1), use_bias=use_bias)
  variables = fast.init(jax.random.key(1), x)
  plain = nn.Conv(4, (1, 1), use_bias=use_bias)
  np.testing.assert_allclose(
    fast.apply(variables, x), plain.apply(variables, x), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('shape', [(2, 5, 7, 3), (1, 1, 2, 4), (2, 1, 1, 2)])
def test_average_pool_does_not_count_padding(shape):
  def plain(x):
    return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)

  x = jax.random.normal(jax.random.key(0), shape)
  np.testing.assert_allclose(
    layers.average_pool_3x3(x), plain(x), rtol=1e-5, atol=1e-6
  )
  fast, slow = (
    jax.jit(jax.grad(lambda x, pool=pool: jnp.square(pool(x)).sum()))(x)
    for pool in (layers.average_pool_3x3, plain)
  )
  np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('strides', [1, 2])
def test_average_pool_rounds_once(strides):
  x = 3 + jax.random.normal(jax.random.key(0), (2, 9, 9, 64))
  x = x.astype(jnp.bfloat16)
  exact = nn.avg_pool(
    np.asarray(x, np.float32), (3, 3), (strides, strides), 'VALID'
  )
  averages = layers.average_windows(x, strides, 'VALID')
  np.testing.assert_array_equal(averages, exact.astype(jnp.bfloat16))
  if strides == 1:
    with layers.plain_forms():
      inside = layers.average_pool_3x3(x)[:, 1:-1, 1:-1]
    np.testing.assert_array_equal(inside, averages)


@pytest.mark.parametrize('height', [7, 8])
@pytest.mark.parametrize(
  ('size', 'strides', 'padding'),
  [
    (3, 1, ((1, 1), (1, 1))),
    (5, 2, ((1, 2), (2, 2))),
    (7, 2, ((3, 3), (2, 3))),
    (3, 2, ((0, 0), (0, 1))),
  ],
)
def test_depthwise_convolution(height, size, strides, padding):
  x = jax.random.normal(jax.random.key(0), (2, height, 9, 4))
  conv = layers.DepthwiseConv(size, strides, padding)
  variables = conv.init(jax.random.key(1), x)
  plain = nn.Conv(
    4,
    (size, size),
    strides,
    padding,
    feature_group_count=4,
    use_bias=False,
  )

  def ours(params, x):
    return conv.apply({'params': params}, x)

  def theirs(params, x):
    kernel = params['kernel'].swapaxes(2, 3)
    return plain.apply({'params': {'kernel': kernel}}, x)

  params = variables['params']
  close = dict(rtol=1e-5, atol=1e-5)

  @functools.partial(jax.jit, static_argnums=0)
  def both(f, params, x):
    y, back = jax.vjp(f, params, x)
    return y, back(jnp.cos(y))

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **close),
    both(ours, params, x),
    both(theirs, params, x),
  )


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_depthwise_convolution_sums_in_float32(dtype):
  x = jax.random.normal(jax.random.key(0), (2, 14, 14, 8), dtype)
  kernel = jax.random.normal(jax.random.key(1), (7, 7, 8, 1), dtype)
  conv = layers.DepthwiseConv(7, 1, ((3, 3), (3, 3)), dtype)
  exact = layers.DepthwiseConv(7, 1, ((3, 3), (3, 3)))

  def run(conv, kernel, x, g):
    def apply(kernel, x):
      return conv.apply({'params': {'kernel': kernel}}, x)

    y, back = jax.vjp(apply, kernel, x)
    return y, *back(g)

  g = jax.random.normal(jax.random.key(2), x.shape, dtype)
  got = run(conv, kernel, x, g)
  wide = (values.astype(jnp.float32) for values in (kernel, x, g))
  for mine, expected in zip(got, run(exact, *wide), strict=True):
    assert mine.dtype == dtype
    # Rounded once: the nearest of its kind.
    np.testing.assert_array_equal(mine, expected.astype(dtype))


def test_double_precision_keeps_its_digits():
  with jax.enable_x64(True):
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3), jnp.float64)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 1), jnp.float64)
    conv = layers.DepthwiseConv(3, 1, ((1, 1), (1, 1)), jnp.float64)

    @jax.jit
    def total(kernel, x):
      y = conv.apply({'params': {'kernel': kernel}}, x)
      return jnp.sin(layers.average_pool_3x3(y)).sum()

    step, at = 1e-6, (1, 2, 0, 0)
    slope = (
      total(kernel.at[at].add(step), x) - total(kernel.at[at].add(-step), x)
    ) / (2 * step)
    gradient = jax.grad(total)(kernel, x)[at]
    np.testing.assert_allclose(gradient, slope, rtol=1e-7)


@pytest.mark.parametrize('shape', [(2, 5, 7, 3), (1, 1, 1, 2), (3, 4, 1, 6)])
def test_transposed_convolution(shape):
  x = jax.random.normal(jax.random.key(0), shape)
  ours = layers.TransposedConv(4)
  plain = nn.ConvTranspose(4, (3, 3), (2, 2), transpose_kernel=True)
  variables = ours.init(jax.random.key(1), x)
  bias = jax.random.normal(jax.random.key(2), (4,))
  variables = {'params': {**variables['params'], 'bias': bias}}

  @functools.partial(jax.jit, static_argnums=0)
  def run(module, variables, x):
    y, back = jax.vjp(module.apply, variables, x)
    return y, back(jnp.sin(y))

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    run(ours, variables, x),
    run(plain, variables, x),
  )


@pytest.mark.parametrize(
  'layer',
  [
    lambda x: layers.max_pool(x, 3),
    layers.average_pool_3x3,
    lambda x: layers._depthwise(x, jnp.ones((3, 3, 2, 1)), 2, ((1, 1),) * 2),
  ],
  ids=['max', 'average', 'depthwise'],
)
def test_plain_forms_know_no_processor(layer):
  x = jax.random.normal(jax.random.key(0), (2, 9, 8, 2))
  chosen = layer(x)
  assert 'platform_index' in str(jax.make_jaxpr(layer)(x))
  with layers.plain_forms():
    assert 'platform_index' not in str(jax.make_jaxpr(layer)(x))
    np.testing.assert_allclose(layer(x), chosen, atol=1e-5)
  assert 'platform_index' in str(jax.make_jaxpr(layer)(x))


def test_a_dtype_may_be_given_by_its_name():
  x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
  answers = []
  for dtype in ('bfloat16', jnp.bfloat16, jnp.dtype('bfloat16')):
    conv = layers.Conv(4, (3, 3), dtype=dtype)
    answers.append(conv.apply(conv.init(jax.random.key(1), x), x))
  assert {own.dtype for own in answers} == {answers[1].dtype}
  for own in answers:
    np.testing.assert_array_equal(own, answers[1])
