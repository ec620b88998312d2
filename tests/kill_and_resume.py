"""Kills a training run again and again; checks that it ends as if never killed.

    python tests/kill_and_resume.py --kills=10 --folder=F [main.py's flags ...]

trains once undisturbed in F/whole, then the same in F/killed with `kill -9` at
random moments, each time followed by the same command. Both must end with the
same weights and the same result but for times.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

MAIN = pathlib.Path(__file__).parents[1] / 'main.py'


def start(workdir: pathlib.Path, flags: list[str]) -> subprocess.Popen:
  """Starts a run in a process group of its own."""
  command = [sys.executable, str(MAIN), f'--workdir={workdir}', *flags]
  return subprocess.Popen(
    command, stdout=subprocess.DEVNULL, start_new_session=True
  )


def outcome(workdir: pathlib.Path) -> dict:
  """A run's result but for its cost, and its log but for the seconds."""
  result = json.loads((workdir / 'result.json').read_text())
  del result['cost']
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  log = [json.loads(line) for line in lines]
  for line in log:
    del line['seconds']
  if not (workdir / 'report.md').exists():
    sys.exit(f'{workdir} has no report')
  split = json.loads((workdir / 'split.json').read_text())
  return {'result': result, 'log': log, 'split': split}


def main() -> None:
  """Runs the comparison; exits with 1 if the ends differ."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--kills', type=int, default=10)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--seed', type=int, default=0)
  given, flags = parser.parse_known_args()
  began = time.perf_counter()
  if start(given.folder / 'whole', flags).wait():
    sys.exit('the undisturbed run failed')
  seconds = time.perf_counter() - began
  rng, kills, mid_way = random.Random(given.seed), 0, 0
  killed = given.folder / 'killed'
  while kills < given.kills:
    run = start(killed, flags)
    if kills == given.kills - 1 and not mid_way:
      # Of all kills one must fall between a checkpoint and the end.
      before = checkpoints(killed)
      while checkpoints(killed) <= before and run.poll() is None:
        time.sleep(0.02)
      # At once: of a small run the end is near.
      wait = rng.uniform(0, 0.1)
    else:
      # Anywhere from the first import to about the end of what is left.
      wait = rng.uniform(0.1, 0.95) * seconds
    began = time.perf_counter()
    try:
      if run.wait(timeout=wait):
        sys.exit(f'the run failed after {kills} kills')
      # It ended before its kill: begin a new one for the kills that are left,
      # and kill earlier, as the first run also prepared the data.
      seconds = min(seconds, time.perf_counter() - began)
      compare(given.folder / 'whole', killed, kills)
      killed = given.folder / f'killed_after_{kills}'
    except subprocess.TimeoutExpired:
      os.killpg(run.pid, signal.SIGKILL)
      run.wait()
      kills += 1
      newest = checkpoints(killed)
      mid_way += newest >= 0 and not (killed / 'result.json').exists()
      print(f'kill {kills}, checkpoint of step {newest}', flush=True)
  if start(killed, flags).wait():
    sys.exit('the run failed after the last kill')
  compare(given.folder / 'whole', killed, kills)
  if not mid_way:
    sys.exit('no kill fell between a checkpoint and the end: nothing was shown')


def checkpoints(workdir: pathlib.Path) -> int:
  """The newest checkpoint's step, or -1."""
  latest = (workdir / 'checkpoints/latest').glob('*')
  return max((int(p.name) for p in latest if p.name.isdigit()), default=-1)


def compare(whole: pathlib.Path, killed: pathlib.Path, kills: int) -> None:
  """Exits with 1 if two runs ended differently."""
  one, other = outcome(whole), outcome(killed)
  if one != other:
    sys.exit(f'after {kills} kills the run ended differently: {killed}')
  digest = one['result']['parameters_sha256']
  print(f'after {kills} kills: the same result, weights {digest}', flush=True)


if __name__ == '__main__':
  main()
