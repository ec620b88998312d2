"""Measures the page's interface under eight clients at once.

    python -m reproduce.measure_serving --run=runs/first

serves the finished run of the README's first command on a free port, lets eight
clients ask for a minute, each image after the other's answer, and follows the
server's memory. Writes results/serving.json.
"""

import http.client
import json
import pathlib
import subprocess
import sys
import threading
import time
from typing import Any

import jax
import numpy as np

from leukemia_jax.data import checked, synthetic, synthetic_cells
from reproduce.processes import resident_bytes
from reproduce.stored import ROOT, measure_run

_CLIENTS, _SECONDS = 8, 60.0
_IMAGES = 16


def _ask(
  port: int, images: list[bytes], until: float, seconds: list[float]
) -> None:
  """Asks until it is late; notes how long each answer takes."""
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
  while time.perf_counter() < until:
    image = images[len(seconds) % len(images)]
    began = time.perf_counter()
    connection.request('POST', '/answer', image)
    response = connection.getresponse()
    content = json.loads(response.read())
    if response.status != 200 or 'probabilities' not in content:
      raise RuntimeError(f'{response.status}: {content}')
    seconds.append(time.perf_counter() - began)


def measure(run: pathlib.Path) -> dict[str, Any]:
  """Serves, and asks."""
  spec = synthetic_cells.SmearSpec()
  images = [
    checked.to_png(
      synthetic.render_image(jax.random.key(9), i, i % 4, i, spec=spec)[0]
    )
    for i in range(_IMAGES)
  ]
  command = [sys.executable, 'main.py', '--mode=serve', '--port=0']
  process = subprocess.Popen(
    [*command, f'--checkpoint={run.resolve()}'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout
    said = next(line for line in process.stdout if 'http://' in line)
    port = int(said.split('/')[2].rpartition(':')[2])
    # What is allocated once isn't growth.
    _ask(port, images, time.perf_counter() + 5, [])
    answered: list[list[float]] = [[] for _ in range(_CLIENTS)]
    until = time.perf_counter() + _SECONDS
    threads = [
      threading.Thread(target=_ask, args=(port, images, until, own))
      for own in answered
    ]
    for thread in threads:
      thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
      memory.append(resident_bytes(process.pid))
      time.sleep(1)
  finally:
    process.kill()
  seconds = np.concatenate(answered)
  # A client that failed has ended early.
  assert all(sum(own) > _SECONDS - 5 for own in answered)
  return {
    'command': 'python -m reproduce.measure_serving --run=runs/first',
    'clients': _CLIENTS,
    'seconds': _SECONDS,
    'answers': len(seconds),
    'answers_per_second': len(seconds) / _SECONDS,
    'seconds_median': float(np.median(seconds)),
    'seconds_percentile_99': float(np.percentile(seconds, 99)),
    'memory_bytes': {
      'after_10_seconds': memory[10],
      'at_the_end': memory[-1],
      'largest': max(memory),
    },
  }


if __name__ == '__main__':
  measure_run(__doc__, 'serving', measure)
