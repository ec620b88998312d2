"""What is said of images that can't be read, and what ends a command."""

import errno
import io

import numpy as np
import pytest
from PIL import Image as Pillow

from leukemia_jax.data import decode
from leukemia_jax.errors import InputError
from leukemia_jax.inference import prediction
from leukemia_jax.inference.inputs import Image
from leukemia_jax.inference.prediction import Models

MODELS = Models([], None, decode.Options(), 1.0)


def failing(error: Exception) -> Image:
  def read() -> bytes:
    raise error

  return Image('b.png', read)


def good() -> Image:
  stream = io.BytesIO()
  Pillow.fromarray(np.zeros((8, 8, 3), np.uint8)).save(stream, 'PNG')
  return Image('a.png', stream.getvalue)


def predicted(*images: Image) -> list[str]:
  return [own.flaw for own in prediction.predict(MODELS, images, batch_size=1)]


@pytest.mark.parametrize(
  ('error', 'flaw'),
  [
    (PermissionError(errno.EACCES, 'denied'), 'denied'),
    (FileNotFoundError(errno.ENOENT, 'gone'), 'gone'),
    (ValueError('odd'), 'odd'),
  ],
)
def test_a_flaw_of_an_image_is_said_of_it(error, flaw):
  first, second, third = predicted(good(), failing(error), good())
  assert not first and not third and flaw in second


@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (OSError(errno.EIO, 'Input/output error'), 'Input/output error'),
    (OSError(errno.ESTALE, 'Stale file handle'), 'Stale file handle'),
    (OSError(errno.ENOSPC, 'No space left'), 'No space left'),
    (MemoryError(), 'memory ran out'),
  ],
)
def test_what_is_the_machines_ends_the_command(error, words):
  with pytest.raises(InputError, match=f'b.png: {words}.*goes on'):
    predicted(good(), failing(error), good())


def test_memory_that_runs_out_while_decoding_is_no_damage(monkeypatch):
  def fail(*_, **__):
    raise MemoryError

  monkeypatch.setattr(Pillow, 'open', fail)
  with pytest.raises(InputError, match='a.png: memory ran out'):
    predicted(good())
