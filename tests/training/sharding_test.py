"""Batches shared by several devices, and by several processes."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from command import SMALL, SMALL_UNET, refused, result, run
from conftest import ROOT

from leukemia_jax import sharding
from leukemia_jax.errors import InputError

# Augmentation that rounds to grey levels parts a pixel here and there between
# two programs; flips don't. Processes that share a training compile anew each
# time: a U-Net is quick.
FLAGS = [
  *SMALL_UNET,
  '--config.train.epochs=4',
  '--config.train.learning_rate=0.001',
  '--config.model.batch_norm=True',
  '--config.augment.rotation=0.0',
  '--config.augment.brightness_delta=0.0',
  '--config.augment.contrast_delta=0.0',
  '--config.augment.jpeg_quality=()',
]

full = pytest.mark.full


def test_too_many_devices_are_refused():
  there = len(jax.local_devices())
  with pytest.raises(InputError, match=r'config\.mesh\.devices'):
    sharding.make_mesh(there + 1, 32)


@pytest.mark.parametrize(
  'flags, error',
  [
    (['--config.mesh.devices=3'], 'config.mesh.devices=3: there is 1'),
    (['--process_id=0'], 'go together with --num_processes'),
    (['--num_processes=2', '--coordinator=here'], 'must be HOST:PORT'),
    (['--num_processes=2'], 'give --coordinator=HOST:PORT'),
    *(
      pytest.param(
        ['--mode=study', flag], 'together with --mode=train', marks=full
      )
      for flag in ('--config.mesh.devices=0', '--num_processes=2')
    ),
  ],
)
def test_what_cannot_be_shared_is_refused(tmp_path, flags, error):
  workdir = tmp_path / 'run'
  assert error in refused(run(f'--workdir={workdir}', *SMALL, *flags))
  assert not workdir.exists()


def simulate(count: int) -> dict[str, str]:
  """The environment of a process that sees so many devices."""
  flag = f'--xla_force_host_platform_device_count={count}'
  flags = f'{os.environ.get("XLA_FLAGS", "")} {flag}'
  return os.environ | {'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)}


def test_a_batch_that_cannot_be_shared_equally_is_refused():
  ask = 'from leukemia_jax import sharding; sharding.make_mesh({})'
  for arguments, words in (
    ('3, 32', 'batch_size=32 cannot be shared equally by 3 devices'),
    ('2, 32, 32', 'in 32 pieces cannot be shared equally by 2 devices'),
  ):
    done = subprocess.run(
      [sys.executable, '-c', ask.format(arguments)],
      cwd=ROOT,
      capture_output=True,
      text=True,
      env=simulate(3),
    )
    assert words in done.stderr


@full
@pytest.mark.parametrize('model', ['inception_resnet_v2', 'unet', 'unet_fpn'])
def test_eight_devices_train_as_one(model):
  done = subprocess.run(
    [sys.executable, str(ROOT / 'tests/training/eight_devices.py'), model],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env=simulate(8),
  )
  assert done.returncode == 0, done.stderr
  answer = json.loads(done.stdout)
  one, eight = (np.array(answer[name]) for name in ('one', 'eight'))
  assert abs(one[0] - eight[0]) <= 1e-6 * one[0]
  assert answer['gradient'] <= 1e-5
  np.testing.assert_allclose(one, eight, rtol=0, atol=1e-3 * one[0])


def start(
  workdir: pathlib.Path, count: int, *flags: str, differ: str = ''
) -> list[subprocess.Popen[str]]:
  """Starts the processes of one training."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  return [
    subprocess.Popen(
      [
        *(sys.executable, str(ROOT / 'main.py'), f'--workdir={workdir}'),
        *(*FLAGS, *flags, f'--num_processes={count}'),
        *(f'--coordinator=127.0.0.1:{port}', f'--process_id={i}'),
        *([differ] if differ and i else []),
      ],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(count)
  ]


def end(processes: list[subprocess.Popen[str]]) -> list[str]:
  """Waits for good ends; what each has said."""
  said = [process.communicate(timeout=500) for process in processes]
  for process, (_, errors) in zip(processes, said, strict=True):
    assert process.returncode == 0, errors
  return [printed for printed, _ in said]


def losses(workdir: pathlib.Path) -> np.ndarray:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return np.array([json.loads(line)['train_loss'] for line in lines])


def check_equal_but_for_rounding(first: pathlib.Path, second: pathlib.Path):
  one, other = losses(first), losses(second)
  np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * one[0])


@full
def test_processes_train_as_one_and_resume_when_one_is_lost(tmp_path):
  alone, whole, cut = (tmp_path / name for name in ('alone', 'whole', 'cut'))
  done = run(f'--workdir={alone}', *FLAGS)
  assert done.returncode == 0, done.stderr
  printed = end(start(whole, 2))
  # One of them alone says what was reached.
  assert 'test Dice' in printed[0] and 'test' not in printed[1]
  assert result(whole)['cost']['devices'] == 2
  scored = tmp_path / 'scored'
  done = run('--mode=evaluate', f'--workdir={scored}', f'--checkpoint={whole}')
  assert done.returncode == 0, done.stderr
  assert result(scored)['test'] == result(whole)['test']
  check_equal_but_for_rounding(whole, alone)

  # From disk each reads its share alone.
  first, second = start(cut, 2, '--config.data.stream=True')
  metrics = cut / 'metrics.jsonl'
  while not metrics.exists() or len(losses(cut)) < 2:
    assert first.poll() is None, first.communicate()
    time.sleep(0.05)
  second.kill()
  _, errors = first.communicate(timeout=120)
  assert first.returncode == 1, errors
  assert errors.count('error: ') == 1 and 'resumes' in errors
  second.communicate()
  shutil.copytree(cut, tmp_path / 'fewer')

  end(start(cut, 2, '--config.data.stream=True'))
  np.testing.assert_array_equal(losses(cut), losses(whole))
  assert result(cut)['model'] == result(whole)['model']
  done = run(f'--workdir={tmp_path / "fewer"}', *FLAGS)
  assert done.returncode == 0, done.stderr
  check_equal_but_for_rounding(tmp_path / 'fewer', alone)


@full
@pytest.mark.parametrize('differ', ['mesh.devices=0', 'model.width=0.06'])
def test_processes_that_differ_are_refused(tmp_path, differ):
  first, second = start(tmp_path / 'run', 2, differ=f'--config.{differ}')
  for process in (first, second):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert 'the processes differ' in errors
  assert not (tmp_path / 'run/config.json').exists()
