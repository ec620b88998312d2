"""Weight files that are damaged, of others, or none; and what is exported."""

import zipfile

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from keras_reference import SMALL_NASNET

from leukemia_jax import models
from leukemia_jax.errors import InputError
from leukemia_jax.pretrained import keras_weights

TINY = {'width': 1 / 64, 'depth': 1}


@pytest.fixture(params=['.h5', '.weights.h5', '.keras'])
def tiny(request, tmp_path):
  """A sound file of each format, its variables, and a way to edit it."""
  model = models.create('unet', num_classes=1, **TINY)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
  )
  variables = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  archived = request.param == '.keras'
  inner = tmp_path / ('model.weights.h5' if archived else f'w{request.param}')
  keras_weights.export_weights(variables, inner, 'unet', **TINY)
  path = tmp_path / 'w.keras' if archived else inner

  def edit(change=lambda file: None, entries=()):
    with h5py.File(inner, 'a') as file:
      change(file)
    if archived:
      with zipfile.ZipFile(path, 'w') as archive:
        archive.write(inner, inner.name)
        for entry in entries:
          archive.writestr(entry, b'')

  edit()
  return path, variables, edit


def tiny_key(file: h5py.File) -> str:
  """The first convolution's kernel."""
  return (
    'layers/conv2d/vars/0' if 'layers' in file else 'conv2d/conv2d/kernel:0'
  )


def load(path):
  return keras_weights.load_weights(path, 'unet', **TINY)


def test_tiny_is_sound(tiny):
  path, variables, _ = tiny
  got = load(path)
  assert got['batch_stats'] == {}
  jax.tree.map(
    np.testing.assert_array_equal, got['params'], variables['params']
  )


def test_a_tensor_missing(tiny):
  path, _, edit = tiny
  edit(lambda file: file.__delitem__(tiny_key(file)))
  with pytest.raises(keras_weights.WeightsError) as caught:
    load(path)
  (line,) = caught.value.missing
  assert 'conv2d' in line and 'down_0_conv_1/kernel' in line
  assert 'kernel' in str(caught.value) and str(path) in str(caught.value)
  assert not caught.value.extra and not caught.value.misshapen


def test_a_tensor_renamed(tiny):
  path, _, edit = tiny
  edit(lambda file: file.move(tiny_key(file), tiny_key(file) + '9'))
  with pytest.raises(keras_weights.WeightsError) as caught:
    load(path)
  assert len(caught.value.missing) == len(caught.value.extra) == 1
  assert 'down_0_conv_1/kernel' in caught.value.missing[0]
  assert caught.value.extra[0].endswith('09')


@pytest.mark.parametrize('kind', ['shape', 'type'])
def test_a_tensor_misshapen(tiny, kind):
  path, _, edit = tiny

  def change(file):
    key = tiny_key(file)
    value = file[key][()]
    del file[key]
    file[key] = value[:2] if kind == 'shape' else value.astype(int)

  edit(change)
  with pytest.raises(keras_weights.WeightsError) as caught:
    load(path)
  (line,) = caught.value.misshapen
  assert 'down_0_conv_1/kernel' in line and 'must be float (3, 3, 3, 1)' in line


def test_a_value_that_is_not_finite(tiny):
  path, _, edit = tiny
  edit(
    lambda file: file[tiny_key(file)].write_direct(
      np.full((3, 3, 3, 1), np.nan, np.float32)
    )
  )
  with pytest.raises(InputError, match='not finite'):
    load(path)


def test_another_models_file(tiny):
  path, _, _ = tiny
  with pytest.raises(keras_weights.WeightsError, match=r'and \d+ more'):
    keras_weights.load_weights(path, 'nasnet_mobile', **SMALL_NASNET)
  with pytest.raises(keras_weights.WeightsError, match='extra|missing'):
    keras_weights.load_weights(path, 'unet', width=1 / 64, depth=2)


def test_a_file_cut_off(tiny):
  path, _, _ = tiny
  path.write_bytes(path.read_bytes()[:-3000])
  with pytest.raises(InputError, match='cut off'):
    load(path)


def test_a_link_out_of_the_file_is_not_followed(tiny, tmp_path):
  path, variables, edit = tiny
  value = variables['params']['down_0_conv_1']['kernel']
  with h5py.File(tmp_path / 'other.h5', 'w') as other:
    other['x'] = value

  def change(file):
    key = tiny_key(file)
    del file[key]
    file[key] = h5py.ExternalLink(str(tmp_path / 'other.h5'), 'x')

  edit(change)
  with pytest.raises(keras_weights.WeightsError, match='missing'):
    load(path)


@pytest.mark.parametrize(
  'entry', ['../evil', '/etc/evil', 'a/../../evil', r'..\\evil', 'C:evil']
)
def test_an_archive_that_points_out_of_itself(tmp_path, entry):
  path = tmp_path / 'w.keras'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('model.weights.h5', b'')
    archive.writestr(entry, b'')
  with pytest.raises(InputError, match='points out of the archive'):
    load(path)


def test_an_archive_that_swells(tmp_path):
  path = tmp_path / 'w.keras'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('model.weights.h5', bytes(10**7))
  with pytest.raises(InputError, match='would unpack to 10,000,000 bytes'):
    load(path)


@pytest.mark.parametrize(
  ('name', 'content', 'words'),
  [
    ('w.h5', b'just a text', "no HDF5 file .it begins with b'just a text'"),
    ('w.h5', b'', 'no HDF5 file'),
    ('w.keras', b'just a text', r'no \.keras file'),
    ('missing.h5', None, 'no such weights file'),
  ],
)
def test_files_that_are_none(tmp_path, name, content, words):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=words):
    load(tmp_path / name)


def test_hdf5_and_zip_files_of_others(tmp_path):
  with h5py.File(tmp_path / 'w.h5', 'w') as file:
    file['x'] = np.zeros(3)
  with pytest.raises(InputError, match='not one of Keras'):
    load(tmp_path / 'w.h5')
  with zipfile.ZipFile(tmp_path / 'w.keras', 'w') as archive:
    archive.writestr('config.json', '{}')
  with pytest.raises(InputError, match='must hold model.weights.h5 once'):
    load(tmp_path / 'w.keras')


@pytest.mark.parametrize('target', ['group', 'path'])
def test_groups_in_other_files_are_not_looked_at(tmp_path, target):
  model, rng = models.create('unet', num_classes=1, **TINY), np.random
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
  )
  variables = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  other, path = tmp_path / 'other.h5', tmp_path / 'w.h5'
  keras_weights.export_weights(variables, other, 'unet', **TINY)
  with h5py.File(path, 'w') as file:
    if target == 'group':
      file['model_weights'] = h5py.ExternalLink('other.h5', '/')
    else:
      file['ext'] = h5py.ExternalLink('other.h5', '/')
      file.attrs['layer_names'] = [b'ext/conv2d']
  with pytest.raises(InputError, match='not one of Keras'):
    load(path)


def test_arrays_that_no_layer_lists(tiny):
  path, _, edit = tiny

  def change(file):
    name = 'layers/conv2d/a_seed_generator' if 'layers' in file else 'evil/w'
    file[name] = np.zeros(3)

  edit(change)
  with pytest.raises(keras_weights.WeightsError) as caught:
    load(path)
  assert len(caught.value.extra) == 1 and not caught.value.missing


@pytest.mark.parametrize('tiny', ['.h5'], indirect=True)
def test_an_array_that_two_weights_share(tiny):
  path, _, edit = tiny

  def change(file):
    layers = file.attrs['layer_names'].tolist()
    layers[1] = b'conv2d/conv2d'
    file.attrs['layer_names'] = layers
    group = file['conv2d/conv2d']
    file.move('conv2d_1/conv2d_1/kernel:0', 'conv2d/conv2d/own/kernel:0')
    del file['conv2d_1']
    group.attrs['weight_names'] = [b'own/kernel:0', b'bias:0']

  edit(change)
  with pytest.raises(InputError, match='one array to two weights'):
    load(path)


def test_names_of_a_file_are_printed_as_text(tiny):
  path, _, edit = tiny
  name = '\x1b[2J' + 'x' * 5000
  root = 'layers/' if path.name != 'w.h5' else ''
  edit(lambda file: file.create_dataset(f'{root}{name}', data=np.zeros(3)))
  with pytest.raises(keras_weights.WeightsError) as caught:
    load(path)
  assert '\x1b' not in str(caught.value) and len(str(caught.value)) < 1000
  assert name in caught.value.extra[0]


def test_a_file_that_may_not_be_opened(tiny, monkeypatch):
  path, _, _ = tiny

  def refuse(*_, **__):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr(h5py, 'File', refuse)
  with pytest.raises(InputError, match=r'cannot be opened.*Permission denied'):
    load(path)


@pytest.mark.parametrize('tiny', ['.h5'], indirect=True)
def test_a_layer_listed_twice(tiny):
  path, _, edit = tiny

  def change(file):
    names = file.attrs['layer_names']
    names[2] = names[1]
    file.attrs['layer_names'] = names

  edit(change)
  with pytest.raises(InputError, match='listed twice'):
    load(path)


def test_an_array_in_compressed_pieces(tiny):
  path, _, edit = tiny

  def change(file):
    key = tiny_key(file)
    value = file[key][()]
    del file[key]
    file.create_dataset(key, data=value, compression='gzip')

  edit(change)
  with pytest.raises(keras_weights.WeightsError, match='in pieces'):
    load(path)


def test_an_array_that_was_never_written(tiny):
  path, _, edit = tiny

  def change(file):
    key = tiny_key(file)
    del file[key]
    file.create_dataset(key, (3, 3, 3, 1), 'f4', fillvalue=7)

  edit(change)
  with pytest.raises(keras_weights.WeightsError, match='not written'):
    load(path)


def test_groups_without_end(tiny):
  path, _, edit = tiny

  def change(file):
    group = file['layers'] if 'layers' in file else file
    group['again'] = group

  edit(change)
  with pytest.raises(InputError, match='not to be trusted'):
    load(path)


def test_any_damage_is_named(tiny):
  path, variables, _ = tiny
  sound = path.read_bytes()
  rng = np.random.default_rng(0)
  for _ in range(60):
    damaged = bytearray(sound)
    for at in rng.integers(0, len(sound), rng.integers(1, 12)):
      damaged[at] = rng.integers(256)
    path.write_bytes(damaged)
    try:
      got = load(path)
    except InputError:
      continue
    assert jax.tree.map(np.shape, got['params']) == jax.tree.map(
      np.shape, variables['params']
    )


def test_heads_of_ones_own(tmp_path):
  path = tmp_path / 'w.weights.h5'
  for nested, words in ((False, '2 dense layers'), (True, 'inside another')):
    with h5py.File(path, 'w') as file:
      for name in ('dense', 'dense_1'):
        layer = 'functional/layers/' if nested else ''
        file[f'layers/{layer}{name}/vars/0'] = np.zeros((3, 2))
    with pytest.raises(InputError, match=words):
      keras_weights.load_weights(path, 'nasnet_mobile')


def test_export_takes_any_float_and_nothing_that_is_not_finite(tmp_path, tiny):
  _, variables, _ = tiny
  low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), variables)
  keras_weights.export_weights(low, tmp_path / 'o.h5', 'unet', **TINY)
  got = load(tmp_path / 'o.h5')
  jax.tree.map(np.testing.assert_array_equal, got['params'], low['params'])
  bad = jax.tree.map(lambda leaf: leaf * np.nan, variables)
  with pytest.raises(InputError, match='not finite'):
    keras_weights.export_weights(bad, tmp_path / 'p.h5', 'unet', **TINY)


def test_export_refuses_what_keras_lacks(tmp_path, tiny):
  _, variables, _ = tiny
  out = tmp_path / 'out.h5'
  with pytest.raises(InputError, match=r'must end in \.weights\.h5'):
    keras_weights.export_weights(
      variables, tmp_path / 'o.keras', 'unet', **TINY
    )
  params = variables['params'] | {'hidden': {'kernel': np.zeros((2, 2))}}
  with pytest.raises(InputError, match='params/hidden/kernel'):
    keras_weights.export_weights({'params': params}, out, 'unet', **TINY)
  assert not out.exists()
