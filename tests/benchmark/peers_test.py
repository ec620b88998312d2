"""Other libraries' models, in processes of their own."""

import pytest

from leukemia_jax.benchmark import peers
from leukemia_jax.errors import InputError


def test_what_is_not_there_is_said():
  with peers.running(['timm'], 'nasnet_mobile', 64, 1) as (running, missing):
    assert not running
    assert missing == dict.fromkeys(
      ('timm_fp32', 'timm_bf16'), 'timm has no nasnet_mobile'
    )


def test_scripts_lie_in_a_clone(monkeypatch, tmp_path):
  monkeypatch.setattr(peers, '_FOLDER', tmp_path / 'none')
  with (
    pytest.raises(InputError, match='--compare=keras needs .*clone'),
    peers.running(['keras'], 'nasnet_mobile', 64, 1),
  ):
    pass


@pytest.mark.full
def test_keras_answers_and_is_ended():
  with peers.running(['keras'], 'nasnet_mobile', 64, 2) as (running, missing):
    assert missing.keys() | running.keys() == {'keras_jax', 'keras_torch'}
    peer = running['keras_jax']
    assert 'keras' in peer.versions
    assert peer.turn('inference') > 0
    # As one that runs out of memory.
    peer.process.kill()
    with pytest.raises(InputError, match=r'speed_of_keras.*with status -9'):
      peer.turn('inference')
  with peers.running(['keras'], 'nasnet_mobile', 64, 2) as (running, _):
    process = running['keras_jax'].process
  assert process.poll() is not None
