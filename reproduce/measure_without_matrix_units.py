"""Measures networks beside an older checkout's, without matrix units.

    python -m reproduce.measure_without_matrix_units --before=path/to/old

runs each network's benchmark with the code of both, turn by turn, in processes
to which Linux refuses the registers of AMX (tests/without_matrix_units.py), and
says what `auto` chooses there. Writes results/without_matrix_units.json; an
hour and 20 GB on two cores.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import IO, Any, NamedTuple

import jax

from leukemia_jax import devices
from leukemia_jax.benchmark.record import to_rate, to_ratio
from leukemia_jax.workdir import result
from reproduce.stored import ROOT, add

# Config and batch by name.
NETWORKS = {
  'InceptionResNetV2': ('inception_resnet_v2', 8),
  'NASNetLarge': ('nasnet_large', 8),
  'U-Net': ('unet:study', 4),
}
_TURNS = 15


class _Process(NamedTuple):
  """One checkout's; told a line, it answers with a line."""

  told: IO[str]
  said: IO[str]

  def turn(self, what: str) -> float:
    """Images a second."""
    print(what, file=self.told, flush=True)
    rate: float = json.loads(self.said.readline())['images_per_second']
    return rate


def _measure(before: pathlib.Path, config: str, batch: int) -> dict[str, Any]:
  """Turns of one network."""
  processes = {}
  content: dict[str, Any] = {
    'command': 'python -m reproduce.measure_without_matrix_units --before=OLD',
    'device': devices.describe(),
    'jax': jax.__version__,
  }
  for which, checkout in (('before', before), ('after', ROOT)):
    process = subprocess.Popen(
      [
        *(sys.executable, 'tests/without_matrix_units.py', sys.executable),
        *('reproduce/speed_of_checkout.py', str(checkout.resolve())),
        *(config, str(batch)),
      ],
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    assert process.stdin and process.stdout
    processes[which] = _Process(process.stdin, process.stdout)
    # One compiles after the other.
    said = process.stdout.readline()
    if not said:
      sys.exit(f'{checkout}: ended with status {process.wait()}')
    content['auto'] = json.loads(said)['auto']
  for what in ('inference', 'training'):
    rates: dict[str, list[float]] = {which: [] for which in processes}
    for _ in range(_TURNS):
      for which, process_lines in processes.items():
        rates[which].append(process_lines.turn(what))
    content[what] = {
      key: result.to_json(to_rate(own)) for key, own in rates.items()
    } | {'ratio': to_ratio(rates['after'], rates['before'])}
  for process_lines in processes.values():
    process_lines.told.close()
  return content


def main() -> None:
  """Measures, and stores."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--before', type=pathlib.Path, required=True)
  parser.add_argument('--only', nargs='*', choices=NETWORKS)
  args = parser.parse_args()
  for name in args.only or NETWORKS:
    content = _measure(args.before, *NETWORKS[name])
    add('without_matrix_units', name, content)


if __name__ == '__main__':
  main()
