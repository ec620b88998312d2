"""--mode=serve: who may ask, and what is refused before a page is there."""

import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from command import refused, run
from conftest import ROOT

from leukemia_jax.commands import serve
from leukemia_jax.errors import InputError


@pytest.mark.parametrize('password', ['', 'too short'])
def test_others_need_a_password(monkeypatch, password):
  monkeypatch.setenv(serve.PASSWORD, password)
  with pytest.raises(InputError, match='12 characters or more'):
    serve.run({}, [], '0.0.0.0', 0)


def test_a_port_that_is_taken_is_named(tmp_path):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(InputError, match=f'--port={port}: Address already in'):
      serve.run({}, [tmp_path], '127.0.0.1', port)


def test_an_address_that_is_none_is_named(monkeypatch):
  monkeypatch.setenv(serve.PASSWORD, 'long enough, this')
  with pytest.raises(InputError, match='--host=nowhere.invalid'):
    serve.run({}, [], 'nowhere.invalid', 0)


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    ((), '--checkpoint=<workdir of a training run> go together'),
    (('--workdir=w', '--checkpoint=w'), '--mode=serve writes nothing'),
    (('--checkpoint={}/missing',), 'is no workdir of a finished run'),
  ],
  ids=['no run', 'a workdir', 'no such run'],
)
def test_flags_that_cannot_be_are_refused(tmp_path, flags, words):
  given = [flag.format(tmp_path) for flag in flags]
  assert words in refused(run('--mode=serve', '--port=0', *given))


@pytest.mark.full
def test_ctrl_c_ends_the_server_in_order(trained):
  process = subprocess.Popen(
    [
      sys.executable,
      'main.py',
      '--mode=serve',
      '--port=0',
      f'--checkpoint={trained}',
    ],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  while 'open http' not in (line := process.stdout.readline()):
    assert process.poll() is None, process.stderr.read()
  with urllib.request.urlopen(line.split()[1], timeout=60) as answer:
    assert answer.status == 200
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0 and 'stopped' not in out + err
