"""The device that JAX computes on, and how it is kept busy."""

import contextlib
import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import re
import stat

import jax
import jax.numpy as jnp

from leukemia_jax import parallel
from leukemia_jax.errors import InputError

# Of a CPU's steps; each stores its own feature maps.
_MOST_AT_ONCE = 4
# Images of such a step. Products of bfloat16 are so fast that more of them pay.
_CPU_BATCH = {'float32': 2, 'bfloat16': 4}
# Bytes of compiled programs that are stored; the longest unused go first.
_MOST_COMPILED = 2 * 2**30
# Linux gives a process the registers of AMX when it asks for them: the call
# arch_prctl, its request ARCH_REQ_XCOMP_PERM, and the state XTILEDATA.
_ARCH_PRCTL, _REQUEST, _TILES = 158, 0x1023, 18


def describe() -> str:
  """The first device in words, with cores and kind of machine.

  Returns:
    Such as 'NVIDIA H200, 16 cores, x86_64'; a CPU by its name, see
    `processor`.

  Raises:
    InputError: the platform that JAX_PLATFORMS names is not there.
  """
  try:
    device = jax.devices()[0]
  except (RuntimeError, AssertionError) as error:
    wanted = os.environ.get('JAX_PLATFORMS', '')
    reason = str(error).strip().splitlines()
    raise InputError(
      f'JAX_PLATFORMS={wanted}: JAX finds no such device'
      + (f' ({reason[-1][:200]})' if reason else '')
      + ". Unset JAX_PLATFORMS, or for a GPU: pip install 'leukemia_jax[cuda]'"
    ) from None
  kind = processor() if device.platform == 'cpu' else device.device_kind
  return f'{kind}, {parallel.cores()} cores, {platform.machine()}'


def _about_processors() -> str:
  """What Linux says of its processors; '' elsewhere."""
  try:
    return pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8')
  except OSError:
    return ''


def processor() -> str:
  """The processor's name where Linux says it, as 'AMD EPYC'; else 'cpu'."""
  name = re.search(r'^model name\s*:(.+)$', _about_processors(), re.MULTILINE)
  return name[1].strip() if name else 'cpu'


def keep_compiled(folder: pathlib.Path) -> None:
  """Lets JAX store what it compiles, so that the next command need not.

  JAX_COMPILATION_CACHE_DIR counts for more; JAX_ENABLE_COMPILATION_CACHE=0
  turns it off. Where nothing can be written, or others can write too, nothing
  is stored.

  Args:
    folder: for everything compiled. Each kind of processor has a folder of its
      own in it, for a home folder may be many machines'.
  """
  if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  about = _about_processors().splitlines()
  flags = [line for line in about if line.startswith(('flags', 'Features'))]
  kind = hashlib.sha256(''.join(flags[:1]).encode()).hexdigest()[:16]
  own = folder / f'{platform.machine()}-{kind}'
  with contextlib.suppress(OSError):
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What lies there is run.
    if not all(map(_is_the_users, (own, folder, folder.parent))):
      return
    for entry in own.glob('*-cache'):
      # JAX writes the time of an entry's use last: this one was cut off.
      if not entry.with_name(entry.name[:-5] + 'atime').exists():
        entry.unlink(missing_ok=True)
    jax.config.update('jax_compilation_cache_dir', str(own))
    jax.config.update('jax_compilation_cache_max_size', _MOST_COMPILED)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def _is_the_users(folder: pathlib.Path) -> bool:
  """Whether a folder is the user's or root's, and not everybody's to write."""
  if os.name == 'nt':
    return True
  status = folder.stat()
  is_own = status.st_uid in (0, os.getuid())
  return is_own and not status.st_mode & stat.S_IWOTH


@functools.cache
def has_matrix_units() -> bool:
  """Whether JAX computes on a processor with matrix units for bfloat16.

  By what the processor and the kernel say, never by a timing: a run must
  repeat. Intel's AMX (`amx_bf16` in /proc/cpuinfo) is known alone.
  """
  if jax.default_backend() != 'cpu' or platform.machine() != 'x86_64':
    return False
  if 'amx_bf16' not in _about_processors().split():
    return False
  # A container may refuse what the processor has.
  return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILES) == 0


def fast_dtype() -> str:
  """The dtype of `config.model.dtype=auto`."""
  return 'bfloat16' if has_matrix_units() else 'float32'


def steps_at_once() -> int:
  """How many steps are best computed at once.

  A CPU's cores share the matrix products of one step well, but not what lies
  between them. On a GPU a second one is prepared while the first is computed.
  """
  if jax.default_backend() == 'cpu':
    return min(parallel.cores(), _MOST_AT_ONCE)
  return 2


def cpu_batch(dtype: jax.typing.DTypeLike) -> int:
  """Images of a step on a CPU, by the dtype that a model computes in."""
  return _CPU_BATCH[jnp.dtype(dtype).name]


def step_batching(batch_size: int, most_on_cpu: int) -> tuple[int, int]:
  """Images a step, and steps at once.

  With a small step for each of two cores InceptionResNetV2 runs 1.5 times as
  fast as with one step of 32.

  Args:
    batch_size: most images a step.
    most_on_cpu: the same on a CPU, such as `cpu_batch`.
  """
  if jax.default_backend() == 'cpu':
    batch_size = min(batch_size, most_on_cpu)
  return batch_size, steps_at_once()
