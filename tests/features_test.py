"""Features of frozen backbones: what they are, and how they are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax import features, models
from leukemia_jax.errors import InputError

FIELDS = {'width': 0.05, 'blocks': (1, 1, 1)}
SIZE = 75


def images(count: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def model():
  return models.create('inception_resnet_v2', num_classes=0, **FIELDS)


@pytest.fixture(scope='module')
def variables(model):
  draw = jax.jit(
    lambda key: model.init(key, images(1) / 255.0, train=False),
    compiler_options={'xla_backend_optimization_level': 0},
  )
  return draw(jax.random.key(0))


@pytest.fixture
def backbone(model, variables):
  """A backbone that counts how often its weights are loaded."""
  calls = []

  def load():
    calls.append(1)
    return variables

  made = features.Backbone(model, 'unit', 'some weights', load)
  return made, calls


def extract(backbone, pixels, cache, batch_size=16):
  return features.extract(backbone, pixels, cache=cache, batch_size=batch_size)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
  monkeypatch.setattr(features, 'SHARD', 8)


def test_features_are_the_pooled_map(backbone, model, variables, tmp_path):
  pixels = images(19)
  got = extract(backbone[0], pixels, tmp_path, batch_size=4)
  maps, _ = model.apply(variables, pixels / np.float32(255), train=False)
  expected = np.asarray(maps).mean((1, 2))
  assert got.features.shape == expected.shape and got.computed == 19
  assert got.features.dtype == np.float32
  np.testing.assert_allclose(got.features, expected, rtol=1e-4, atol=1e-5)


def test_what_is_cached_is_not_computed_again(backbone, tmp_path):
  made, calls = backbone
  pixels = images(20)
  first = extract(made, pixels, tmp_path)
  again = extract(made, pixels, tmp_path)
  assert (first.computed, again.computed, len(calls)) == (20, 0, 1)
  np.testing.assert_array_equal(first.features, again.features)
  # Two of three shards are there for the images with one more at their end.
  more = np.concatenate([pixels, images(1, seed=1)])
  grown = extract(made, more, tmp_path)
  assert grown.computed == 5
  np.testing.assert_array_equal(grown.features[:16], first.features[:16])


def test_other_weights_pixels_or_scales_are_others(backbone, tmp_path):
  made, _ = backbone
  pixels = images(8)
  extract(made, pixels, tmp_path)
  changed = pixels.copy()
  changed[3, 5, 5, 0] ^= 1
  for other, what in (
    (made, changed),
    (made._replace(identity='other weights'), pixels),
    (made._replace(preprocessing='backbone'), pixels),
    (made, pixels[:, ::-1]),
    (
      made._replace(
        model=models.create(
          'inception_resnet_v2',
          num_classes=0,
          **FIELDS,
          dtype=jnp.dtype('bfloat16'),
        )
      ),
      pixels,
    ),
  ):
    assert extract(other, what, tmp_path).computed == 8
  # Of another batch size the last bits may be others.
  assert extract(made, pixels, tmp_path, batch_size=1).computed == 8
  assert extract(made, pixels, tmp_path).computed == 0


def test_steps_at_once_change_no_bit(backbone, tmp_path, monkeypatch):
  pixels = images(23)
  made = []
  for at_once in (1, 4):
    monkeypatch.setattr(features, '_pace', lambda _, n=at_once: (2, n))
    made.append(extract(backbone[0], pixels, tmp_path / str(at_once)))
  assert [m.computed for m in made] == [23, 23]
  np.testing.assert_array_equal(made[0].features, made[1].features)


def test_features_that_are_not_finite_are_refused(
  backbone, variables, tmp_path
):
  broken = jax.tree.map(lambda leaf: leaf * np.nan, variables)
  made = backbone[0]._replace(load=lambda: broken)
  with pytest.raises(InputError, match='not finite'):
    extract(made, images(3), tmp_path)
  assert not list(tmp_path.glob('*.features'))


@pytest.mark.parametrize('damage', ['flip', 'cut', 'empty', 'text'])
def test_a_damaged_shard_is_computed_again(backbone, tmp_path, capsys, damage):
  made, _ = backbone
  pixels = images(24)
  first = extract(made, pixels, tmp_path)
  path = sorted(tmp_path.glob('*.features'))[1]
  content = bytearray(path.read_bytes())
  content[-7] ^= 1
  path.write_bytes(
    {
      'flip': bytes(content),
      'cut': bytes(content[:-9]),
      'empty': b'',
      'text': b'not features at all' * 9,
    }[damage]
  )
  capsys.readouterr()
  again = extract(made, pixels, tmp_path)
  assert again.computed == 8
  assert f'{path} is damaged' in capsys.readouterr().out
  np.testing.assert_array_equal(again.features, first.features)
  assert extract(made, pixels, tmp_path).computed == 0


def test_calibrated_statistics_are_the_mean_of_the_batches(variables):
  still = models.create(
    'inception_resnet_v2', num_classes=0, **FIELDS, momentum=0.0
  )
  pixels = images(12)
  got = features.calibrate(
    still, variables, pixels, preprocessing='unit', batch_size=4
  )
  # By hand, of the first layer: a convolution, then the batch norm.
  kernel = variables['params']['backbone']['stem_0']['conv']['kernel']
  first = jax.lax.conv_general_dilated(
    pixels / np.float32(255),
    kernel,
    (2, 2),
    'VALID',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  batches = np.asarray(first).reshape(3, -1, first.shape[-1])
  norm = got['batch_stats']['backbone']['stem_0']['norm']
  np.testing.assert_allclose(norm['mean'], batches.mean((0, 1)), rtol=1e-3)
  np.testing.assert_allclose(norm['var'], batches.var(1).mean(0), rtol=1e-3)
  assert got['params'] is variables['params']


def test_calibrated_features_tell_images_apart(model, variables):
  rng = np.random.default_rng(0)
  # Smears of two looks, not noise: noise is alike after pooling.
  ground = rng.integers(80, 255, (16, 1, 1, 3))
  pixels = np.broadcast_to(ground, (16, SIZE, SIZE, 3)).astype(np.uint8).copy()
  pixels[:8, 20:50, 20:50] = (90, 60, 160)
  still = models.create(
    'inception_resnet_v2', num_classes=0, **FIELDS, momentum=0.0
  )
  got = features.calibrate(
    still, variables, pixels, preprocessing='unit', batch_size=8
  )
  step = features.make_step(apply_fn=model.apply, preprocessing='unit')

  def spread(variables):
    out = np.asarray(step(variables, pixels))
    return (out.std(0) / (np.abs(out).mean(0) + 1e-12)).mean()

  assert spread(got) > 3 * spread(variables)
