"""Features of frozen backbones: what they are, and how they are kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from leukemia_jax import devices, models
from leukemia_jax.errors import InputError
from leukemia_jax.study import features

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
  maps, _ = jax.jit(lambda x: model.apply(variables, x, train=False))(
    pixels / np.float32(255)
  )
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


@pytest.mark.full
def test_other_weights_pixels_or_scales_are_others(backbone, tmp_path):
  made, _ = backbone
  pixels = images(8)
  extract(made, pixels, tmp_path)
  changed = pixels.copy()
  changed[3, 5, 5, 0] ^= 1
  for other, what in (
    (made, changed),
    (made._replace(fingerprint='other weights'), pixels),
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
    monkeypatch.setattr(devices, 'step_batching', lambda *_, n=at_once: (2, n))
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


def test_the_cache_follows_the_code_and_not_its_words(tmp_path):
  code = '"""A."""\n\n\ndef f(x):\n  """B."""\n  return x + 1  # c\n'
  path = tmp_path / 'module.py'

  def digest(text: str) -> str:
    path.write_text(text)
    return features._code(path)

  before = digest(code)
  assert digest(code.replace('A.', 'Z.').replace('B.', '')) == before
  assert digest(code.replace('# c', '# other words')) == before
  assert digest(code.replace('+ 1', '+ 2')) != before
