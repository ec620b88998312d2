"""Measures whole commands beside those of an older checkout.

    python -m reproduce.measure_runs --before=path/to/old

runs the README's first command and configs/unet.py in both, alternating, three
times each, with a cache folder for each checkout as a user has one: what is
compiled in its first run is there in the next. Writes results/runs.json; three
quarters of an hour on two cores.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax

from leukemia_jax import devices
from reproduce.processes import environment
from reproduce.stored import ROOT, add

_COMMANDS = {'default': (), 'unet': ('--config=configs/unet.py',)}
_TURNS = 3


def _seconds(
  checkout: pathlib.Path, folder: pathlib.Path, flags: tuple[str, ...]
) -> float:
  """How long a command takes from its start to its end."""
  with tempfile.TemporaryDirectory() as workdir:
    began = time.perf_counter()
    subprocess.run(
      [
        *(sys.executable, 'main.py', f'--workdir={workdir}/run', *flags),
        f'--config.data.cache_dir={folder / "cache"}',
      ],
      cwd=checkout,
      env=environment(),
      check=True,
    )
    return round(time.perf_counter() - began, 1)


def main() -> None:
  """Measures, and stores."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--before', type=pathlib.Path, required=True)
  parser.add_argument('--only', nargs='*', choices=_COMMANDS)
  args = parser.parse_args()
  for name in args.only or _COMMANDS:
    taken: dict[str, list[float]] = {'before': [], 'after': []}
    with tempfile.TemporaryDirectory() as folder:
      for _ in range(_TURNS):
        for which, checkout in (('before', args.before), ('after', ROOT)):
          own = pathlib.Path(folder, which)
          taken[which].append(_seconds(checkout, own, _COMMANDS[name]))
    medians = {key: statistics.median(own) for key, own in taken.items()}
    content = {
      'command': 'python -m reproduce.measure_runs --before=OLD',
      'device': devices.describe(),
      'jax': jax.__version__,
      'seconds': taken,
      'ratio': medians['after'] / medians['before'],
    }
    add('runs', name, content)


if __name__ == '__main__':
  main()
