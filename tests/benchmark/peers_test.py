"""Other libraries' models, in processes of their own."""

import io
import subprocess
import sys

import pytest

from leukemia_jax.benchmark import peers
from leukemia_jax.benchmark.peers import Peer, Turn
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
  assert peer.process.poll() is not None


def test_one_that_ends_is_left_out():
  # As one that runs out of memory in its second turn.
  script = 'input(); print(\'{"images_per_second": 3}\'); input(); import os; '
  script += 'os.kill(os.getpid(), 9)'
  with subprocess.Popen(
    [sys.executable, '-uc', script],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    peer = Peer(process, io.StringIO(), {})
    calls = {
      Turn('inference'): lambda: 5.0,
      Turn('inference', 'it'): lambda: peer.turn('inference'),
      Turn('training', 'it'): lambda: peer.turn('training'),
    }
    rates, ended = peers.take_turns(calls, 2)
  assert rates == {Turn('inference'): [5.0, 5.0]}
  assert 'status -9' in ended['it']


def test_one_that_ended_between_turns_ends_no_other():
  with subprocess.Popen(
    [sys.executable, '-c', ''],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    process.wait()
    errors = io.StringIO('Traceback:\nImportError: no timm\n')
    with pytest.raises(peers.Ended, match='status 0: ImportError: no timm'):
      Peer(process, errors, {}).turn('inference')


def test_libraries_and_their_forms_have_names():
  assert peers.names(['timm_bf16', 'keras']) == [
    *('keras_jax', 'keras_torch', 'timm_bf16')
  ]
  with pytest.raises(InputError, match='flax: there are keras, timm, torch'):
    peers.names(['flax'])
