"""--mode=serve: a local page that answers images dropped on it."""

import os
import pathlib
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leukemia_jax import interrupts
from leukemia_jax.config_check import override
from leukemia_jax.data import checked
from leukemia_jax.errors import InputError
from leukemia_jax.inference import exported, loading, prediction
from leukemia_jax.workdir import saved

if TYPE_CHECKING:
  from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = '127.0.0.1'
PASSWORD = 'LEUKEMIA_JAX_PASSWORD'
_SHORTEST = 12
# Larger images than the page's own take a laptop's memory, several at a time.
_MOST_PIXELS = 2**24
# Synthetic smears that anyone may try, and their side, px.
_EXAMPLES, _SIDE = 4, 224


def run(
  overrides: dict[str, Any],
  run_folders: Sequence[pathlib.Path],
  host: str,
  port: int,
  calibration: pathlib.Path | None = None,
) -> None:
  """Serves the page until it is stopped.

  Args:
    overrides: values by config key; those of a prediction are taken.
    run_folders: workdirs of training runs: classifiers, whose answers are
      averaged, a segmenter, or both.
    host: address to listen at; only other machines need another than
      `LOOPBACK`.
    port: to listen at; 0 for any that is free.
    calibration: workdir of an evaluation that fitted a temperature.

  Raises:
    InputError: something can't be used, or others could ask without a password.
  """
  try:
    import uvicorn

    from leukemia_jax.serving import app
  except ImportError:
    raise InputError(
      "--mode=serve needs: pip install 'leukemia_jax[app]'"
    ) from None
  hosts, password = _access(host)
  # A port that is taken is said before models are loaded.
  listening = _listen(host, port)
  trained = [saved.load_trained(folder) for folder in run_folders]
  config = override(trained[0].config, overrides, 'serve')
  loaded = loading.load(
    trained, run_folders, config, calibration, named=overrides
  )
  models = loaded.models._replace(explains=True)
  if config.predict.scale != 'auto':
    models = models._replace(scale=float(config.predict.scale))
  most = min(models.decoding.max_pixels, _MOST_PIXELS)
  models = models._replace(decoding=models.decoding._replace(max_pixels=most))
  prediction.compile_steps(models, 1)
  names = [folder.name for folder in run_folders]
  examples = [checked.to_png(own) for own in exported.smears(_SIDE)[:_EXAMPLES]]
  application = app.make(
    models,
    names,
    examples,
    hosts=hosts,
    password=password,
    calibration=calibration.name if calibration else '',
  )
  _say_where(host, listening.getsockname()[1])
  server = uvicorn.Server(
    uvicorn.Config(
      _handing_over(application),
      log_level='warning',
      access_log=False,
      server_header=False,
      limit_concurrency=256,
      timeout_keep_alive=5,
      timeout_graceful_shutdown=2,
    )
  )
  with listening:
    server.run(sockets=[listening])


def _say_where(host: str, port: int) -> None:
  """Prints the address of the page."""
  # Of every address of this machine.
  name = socket.gethostname() if host in ('', '0.0.0.0', '::') else host
  name = f'[{name}]' if ':' in name else name
  address = f'http://{name}:{port}/'
  print(f'open {address} in a browser; stop with Ctrl-C', flush=True)


def _handing_over(application: 'ASGIApp') -> 'ASGIApp':
  """An application that leaves Ctrl-C to its server once that starts it."""

  async def run(scope: 'Scope', receive: 'Receive', send: 'Send') -> None:
    if scope['type'] == 'lifespan':
      # Only now are the server's own handlers there.
      interrupts.hand_over()
    await application(scope, receive, send)

  return run


def _access(host: str) -> tuple[Sequence[str], str]:
  """The names that the page is asked for by, and the password, or ''."""
  if host in (LOOPBACK, 'localhost'):
    # Another name would be one that a page from elsewhere made lead here.
    return [LOOPBACK, 'localhost'], ''
  password = os.environ.get(PASSWORD, '')
  if len(password) < _SHORTEST:
    raise InputError(
      f'--host={host} lets other machines ask: set {PASSWORD} in the '
      f'environment to a password of {_SHORTEST} characters or more'
    )
  return ['*'], password


def _listen(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family)
  except (OSError, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise InputError(
      f'--host={host} --port={port}: {reason}; --port=0 takes any that is free'
    ) from None
