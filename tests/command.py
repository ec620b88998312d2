"""The command line as a user types it, and what tests ask of its files."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import forked
from conftest import ROOT

SMALL = [
  '--config.synthetic.scale=0.03',
  '--config.data.image_size=75',
  '--config.model.width=0.05',
  '--config.model.blocks=(1,1,1)',
  '--config.train.epochs=2',
  # Forests take seconds; the tests of shortcuts ask for them.
  '--config.report.shortcuts=False',
]

SMALL_UNET = [
  '--config=configs/unet.py',
  '--config.synthetic.scale=0.03',
  '--config.data.image_size=48',
  '--config.model.width=0.125',
  '--config.model.depth=2',
  '--config.train.learning_rate=0.01',
  '--config.train.mask_loss=bce+dice',
  '--config.train.batch_size=4',
  '--config.train.epochs=12',
]


def run(*flags: Any, before: tuple[str, ...] = ()) -> Any:
  """Runs main.py to its end; `before` are the words of a command that does."""
  typed = [str(flag) for flag in flags]
  if not before:
    return forked.run(typed, 500)
  return subprocess.run(
    [*before, sys.executable, str(ROOT / 'main.py'), *typed],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=500,
  )


def refused(done: subprocess.CompletedProcess) -> str:
  """The error of a command that must have failed in good manners."""
  assert done.returncode == 1, done.stdout + done.stderr
  assert 'Traceback' not in done.stderr
  assert done.stderr.count('error: ') == 1
  return done.stderr


def result(workdir: pathlib.Path) -> dict[str, Any]:
  """A run's result.json."""
  return json.loads((workdir / 'result.json').read_text())


def check_kills(folder: pathlib.Path, kills: int, *flags: str) -> None:
  """Kills a short run again and again; it must end as one never killed."""
  done = subprocess.run(
    [
      sys.executable,
      str(ROOT / 'tests/kill_and_resume.py'),
      f'--kills={kills}',
      f'--folder={folder}',
      *flags,
      '--config.train.epochs=3',
      '--config.train.checkpoint_steps=2',
    ],
    capture_output=True,
    text=True,
    timeout=1800,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert f'after {kills} kills: the same result' in done.stdout
