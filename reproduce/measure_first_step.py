"""Measures how long a command takes to its first training step.

    python -m reproduce.measure_first_step

trains NASNetLarge at 224 px from an empty cache folder until its first step is
done, then three times from what the first one stored there, in each dtype.
Writes results/first_step.json; five minutes on two cores.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from reproduce.processes import environment
from reproduce.rows import typed_command
from reproduce.stored import ROOT, add

_FLAGS = (
  '--config=configs/nasnet_large.py',
  '--config.data.image_size=224',
  '--config.train.batch_size=8',
  '--config.synthetic.scale=0.03',
)
_DTYPES = ('float32', 'bfloat16')
_WARM = 3
# JAX's names of what it times.
_SHARES = {
  '/jax/core/compile/jaxpr_trace_duration': 'tracing',
  '/jax/core/compile/jaxpr_to_mlir_module_duration': 'lowering',
  '/jax/core/compile/backend_compile_duration': 'compiling or loading',
}


def _until_first_step(began: float, flags: list[str]) -> None:
  """Runs the command in this process, and ends it at its first step."""
  import jax

  from leukemia_jax import __main__
  from leukemia_jax.training.calls import InflightSteps

  longest: dict[str, float] = collections.defaultdict(float)

  def note(event: str, seconds: float, **_: Any) -> None:
    if name := _SHARES.get(event):
      longest[name] = max(longest[name], seconds)

  def stop(_: InflightSteps, step: int, reported: Any) -> None:
    del step
    jax.block_until_ready(reported.loss)
    content = {'seconds': time.time() - began, 'of the step': longest}
    print(json.dumps(content), file=sys.stderr, flush=True)
    os._exit(0)

  jax.monitoring.register_event_duration_secs_listener(note)
  InflightSteps.add = stop
  sys.argv = ['main.py', *flags]
  __main__.main()


def _measure(flags: tuple[str, ...]) -> dict[str, Any]:
  """One command, in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(
      [
        *(
          sys.executable,
          '-m',
          'reproduce.measure_first_step',
          str(time.time()),
        ),
        *(f'--workdir={folder}/run', *flags),
      ],
      cwd=ROOT,
      env=environment(),
      capture_output=True,
      text=True,
    )
  if done.returncode:
    sys.exit(done.stderr)
  own: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
  return own


def main() -> None:
  """Measures, and stores."""
  if sys.argv[1:]:
    _until_first_step(float(sys.argv[1]), sys.argv[2:])
  import jax

  from leukemia_jax import devices

  for dtype in _DTYPES:
    with tempfile.TemporaryDirectory() as cache:
      flags = (*_FLAGS, f'--config.model.dtype={dtype}')
      own = [
        _measure((*flags, f'--config.data.cache_dir={cache}'))
        for _ in range(1 + _WARM)
      ]
    cold, *warm = own
    content = {
      'command': typed_command('first_step', flags),
      'device': devices.describe(),
      'jax': jax.__version__,
      'cold': cold,
      'warm': sorted(warm, key=lambda x: x['seconds'])[_WARM // 2],
    }
    add('first_step', dtype, content)


if __name__ == '__main__':
  main()
