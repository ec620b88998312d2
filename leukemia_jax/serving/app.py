"""The page's server: one page, examples, and answers to images.

It stores nothing: an image is answered and forgotten. Names of files stay in
the browser, so no path from outside is ever opened.
"""

import asyncio
import base64
import functools
import hmac
from collections.abc import Sequence
from importlib import resources
from typing import Any

import anyio
import jinja2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leukemia_jax import __version__, parallel
from leukemia_jax.data import decode
from leukemia_jax.inference.prediction import Models
from leukemia_jax.inference.segmenter import Cell
from leukemia_jax.reporting import pages
from leukemia_jax.serving import answers, edits

# Limits on an image: bytes, and seconds to send it.
MOST_BYTES, _SECONDS = 64 * 2**20, 60
# Images that wait; those beyond are told to come again.
_WAITING = 16
_FILES = {'page.css': 'text/css', 'page.js': 'text/javascript'}
# The page loads nothing from elsewhere, and no other page holds or calls it.
_HEADERS = {
  'content-security-policy': "default-src 'none'; script-src 'self'; "
  "style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cache-control': 'no-store',
}


def make(
  models: Models,
  runs: Sequence[str],
  examples: Sequence[bytes],
  *,
  hosts: Sequence[str],
  password: str = '',
  calibration: str = '',
) -> Starlette:
  """Makes the application.

  Args:
    models: what says something of images; their steps are compiled.
    runs: names of the models' runs, for the page.
    examples: PNG files that anyone may try.
    hosts: names that the page is asked for by; '*' for any.
    password: that is asked for, with any user name; '' for none.
    calibration: name of the evaluation that fitted the classifier's
      temperature; '' for its own run.

  Returns:
    An ASGI application.
  """
  page = _page(
    models,
    runs,
    len(examples),
    is_local='*' not in hosts,
    calibration=calibration,
  )
  server = _Server(models, page, examples)
  middleware = [
    Middleware(_WithHeaders),
    Middleware(
      TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False
    ),
  ]
  if password:
    middleware.append(Middleware(_WithPassword, password=password))
  return Starlette(
    routes=[
      Route('/', server.index),
      *(Route(f'/{name}', server.file) for name in _FILES),
      Route('/examples/{number}.png', server.example),
      Route('/answer', server.answer, methods=['POST']),
    ],
    middleware=middleware,
    exception_handlers={Exception: _fail},
  )


class _Server:
  """What is asked for, and how many images wait."""

  def __init__(self, models: Models, page: str, examples: Sequence[bytes]):
    self._models, self._page = models, page
    self._examples = {str(i): own for i, own in enumerate(examples)}
    folder = resources.files('leukemia_jax.serving') / 'page'
    self._files = {name: (folder / name).read_bytes() for name in _FILES}
    self._waiting = 0

  @functools.cached_property
  def _cores(self) -> anyio.CapacityLimiter:
    """Made within the loop that serves."""
    return anyio.CapacityLimiter(parallel.cores())

  async def index(self, request: Request) -> Response:
    return HTMLResponse(self._page)

  async def file(self, request: Request) -> Response:
    name = request.scope['path'].removeprefix('/')
    return Response(self._files[name], media_type=_FILES[name])

  async def example(self, request: Request) -> Response:
    number = request.path_params['number']
    if number not in self._examples:
      return _refuse(404, 'there is no such example')
    return Response(self._examples[number], media_type='image/png')

  async def answer(self, request: Request) -> Response:
    if not _is_own(request):
      return _refuse(403, 'asked from another page')
    try:
      asked = edits.parse(request.query_params, self._models.scale)
    except ValueError as error:
      return _refuse(400, str(error))
    if self._waiting >= _WAITING:
      return _refuse(503, 'too many images wait already: try again')
    self._waiting += 1
    try:
      async with asyncio.timeout(_SECONDS):
        data = await _body(request)
      work = functools.partial(answers.answer, self._models, data, asked)
      said = await anyio.to_thread.run_sync(work, limiter=self._cores)
    except _TooLargeError:
      return _refuse(413, f'larger than {MOST_BYTES // 2**20} MiB')
    except TimeoutError:
      return _refuse(408, f'not sent within {_SECONDS} seconds')
    except decode.BadImageError as error:
      return _refuse(422, str(error))
    except ClientDisconnect:
      return _refuse(400, 'cut off')
    finally:
      self._waiting -= 1
    return JSONResponse(said)


def _page(
  models: Models,
  runs: Sequence[str],
  num_examples: int,
  *,
  is_local: bool,
  calibration: str,
) -> str:
  """The page, which says what it is served for."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('leukemia_jax.serving', 'page'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  classifiers, segmenter = models.classifiers, models.segmenter
  facts = {
    'class_names': classifiers[0].class_names if classifiers else (),
    'cell_fields': Cell._fields if segmenter else (),
    'most_bytes': MOST_BYTES,
  }
  return environment.get_template('index.html').render(
    runs=runs,
    calibration=calibration,
    is_local=is_local,
    facts=facts,
    has_segmenter=segmenter is not None,
    scales=sorted({*edits.SCALES, models.scale}),
    scale=models.scale,
    num_examples=num_examples,
    most_megabytes=MOST_BYTES // 2**20,
    most_pixels=models.decoding.max_pixels,
    not_a_device=pages.NOT_A_DEVICE,
    version=__version__,
  )


async def _fail(request: Request, error: Exception) -> Response:
  """Says so where nothing else did; the traceback stands in the terminal."""
  response = _refuse(500, f'the server failed: {type(error).__name__}')
  # It is made outside of `_WithHeaders`.
  response.headers.update(_HEADERS)
  return response


def _refuse(status: int, reason: str) -> Response:
  return JSONResponse({'error': reason}, status)


def _is_own(request: Request) -> bool:
  """Whether the page itself asks, or a program; not a page from elsewhere."""
  # Browsers say it where a proxy has changed the rest.
  site = request.headers.get('sec-fetch-site')
  if site is not None:
    return site == 'same-origin'
  origin = request.headers.get('origin')
  return origin is None or origin == f'{request.url.scheme}://' + str(
    request.headers.get('host')
  )


class _TooLargeError(Exception):
  """More was sent than an image may have."""


async def _body(request: Request) -> bytes:
  """What was sent, as long as it isn't too much."""
  if int(request.headers.get('content-length', 0)) > MOST_BYTES:
    raise _TooLargeError
  chunks, total = [], 0
  async for chunk in request.stream():
    total += len(chunk)
    if total > MOST_BYTES:
      raise _TooLargeError
    chunks.append(chunk)
  return b''.join(chunks)


class _WithHeaders:
  """Adds the headers that keep a browser from asking elsewhere."""

  def __init__(self, app: ASGIApp):
    self._app = app
    self._headers = [(k.encode(), v.encode()) for k, v in _HEADERS.items()]

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    async def send_more(message: Message) -> None:
      if message['type'] == 'http.response.start':
        message['headers'] = [*message.get('headers', []), *self._headers]
      await send(message)

    await self._app(scope, receive, send_more)


class _WithPassword:
  """Asks for a password (RFC 7617), and for any user name."""

  def __init__(self, app: ASGIApp, password: str):
    self._app = app
    self._password = password.encode('utf-8', 'surrogateescape')

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http' or self._knows(scope):
      await self._app(scope, receive, send)
      return
    response = Response(
      'The password is missing or another.',
      401,
      {'www-authenticate': 'Basic realm="leukemia_jax", charset="UTF-8"'},
    )
    await response(scope, receive, send)

  def _knows(self, scope: Scope) -> bool:
    headers: dict[bytes, Any] = dict(scope['headers'])
    kind, _, encoded = headers.get(b'authorization', b'').partition(b' ')
    try:
      _, _, password = base64.b64decode(encoded, validate=True).partition(b':')
    except ValueError:
      return False
    same = hmac.compare_digest(password, self._password)
    return kind.lower() == b'basic' and same
