"""Devices that share each batch, of one process or several.

Computation follows data. Weights and the set lie whole on each device, each
takes its share of a batch's indices, and XLA adds up what needs all of them:
gradients, losses, a batch norm's statistics. So a step is written once, and
its batch is one batch on any number of devices.
"""

import faulthandler
import hashlib
import re
import signal
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from leukemia_jax.errors import InputError

_BATCH = 'batch'
# Seconds after which a process that is not heard of ends all others.
_LOST_AFTER = 60
# What JAX's errors say where a process doesn't answer.
_LOSSES = re.compile(
  'onnection (closed|reset|refused)|Broken pipe|heartbeat|CoordinationService'
  '|UNAVAILABLE:|remote process (exited|has)'
)


def join(
  coordinator: str | None, process_id: int | None, num_processes: int
) -> None:
  """Makes this process one of several that train together.

  Args:
    coordinator: HOST:PORT of process 0; None where a cluster's environment says
      it, such as SLURM's.
    process_id: of this process, from 0; None likewise.
    num_processes: how many there are.

  Raises:
    InputError: they don't find each other.
  """
  if coordinator and not re.fullmatch(r'.+:\d{1,5}', coordinator):
    raise InputError(f'--coordinator={coordinator} must be HOST:PORT')
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=_LOST_AFTER,
    )
  except (RuntimeError, ValueError) as error:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise InputError(
      f'--num_processes={num_processes}: {reason[0]}. Where no cluster says '
      'it, give --coordinator=HOST:PORT of process 0, and --process_id'
    ) from error
  # JAX runs alone where it takes itself for the only process.
  if jax.process_count() != num_processes:
    raise InputError(
      f'--num_processes={num_processes}: JAX finds {jax.process_count()}'
    )
  # JAX takes this signal as a hint alone; it shall end the process.
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  # Where process 0 is lost, JAX ends the others: in its words, without stacks.
  faulthandler.disable()
  if leads():
    print(
      f'{num_processes} processes: when one is lost, all end within '
      f'{_LOST_AFTER} s, and the same commands resume',
      flush=True,
    )


def agree(*texts: str) -> None:
  """Makes sure that all processes train the same model on the same images.

  Args:
    *texts: what says so.

  Raises:
    InputError: they differ.
  """
  if jax.process_count() == 1:
    return
  digest = hashlib.sha256('\n'.join(texts).encode()).digest()
  digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
  if (digests != digests[0]).any():
    raise InputError(
      'the processes differ: start each with the same flags, version and images'
    )


def broadcast(tree: Any) -> Any:
  """Gives all processes the arrays of the first one.

  Files of the same name may differ from machine to machine, and random draws in
  a bit from processor to processor.
  """
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


def leave() -> None:
  """Ends what `join` began: process 0 goes on alone."""
  if jax.process_count() > 1:
    jax.distributed.shutdown()


def is_loss(error: BaseException) -> bool:
  """Whether an error says that another process doesn't answer."""
  return bool(_LOSSES.search(str(error)))


def leads() -> bool:
  """Whether this process writes, and says what is to be said."""
  return jax.process_index() == 0


def make_mesh(count: int, batch_size: int, accumulate: int = 1) -> Mesh:
  """Takes `config.mesh.devices`.

  Args:
    count: devices of each process that share each batch; 0 for all.
    batch_size: images a step, of all devices together.
    accumulate: pieces that a batch is cut into.

  Returns:
    The first devices of each process, in a row.

  Raises:
    InputError: there are fewer, or they can't share a batch equally.
  """
  own = jax.local_devices()
  if count > len(own):
    raise InputError(
      f'config.mesh.devices={count}: there is {len(own)} '
      f'({own[0].device_kind}); give at most that, or 0 for all'
    )
  of_each = [jax.local_devices(i) for i in range(jax.process_count())]
  if len({len(devices) for devices in of_each}) > 1:
    raise InputError(
      f'processes have {", ".join(str(len(d)) for d in of_each)} devices: give '
      'each as many, as by CUDA_VISIBLE_DEVICES'
    )
  chosen = [d for devices in of_each for d in devices[: count or None]]
  if len(chosen) > 1 and batch_size % (len(chosen) * accumulate):
    pieces = f' in {accumulate} pieces' if accumulate > 1 else ''
    raise InputError(
      f'config.train.batch_size={batch_size}{pieces} cannot be shared equally '
      f'by {len(chosen)} devices: give a multiple, or another '
      'config.mesh.devices'
    )
  return Mesh(np.array(chosen), (_BATCH,))


def on_all(mesh: Mesh) -> NamedSharding:
  """Where what each device has whole lies."""
  return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Where batches along an axis lie: a share on each device."""
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, _BATCH))


def put(tree: Any, place: NamedSharding) -> Any:
  """Lays arrays where a mesh wants them.

  Args:
    tree: of arrays, which every process has whole.
    place: from `on_all` or `by_batch`.

  Returns:
    The arrays; what a device has whole already isn't copied, and nothing is
    sent from process to process.
  """
  if place.is_fully_addressable:
    return jax.device_put(tree, place)

  def own(leaf: jax.Array) -> jax.Array:
    if place.is_fully_replicated:
      copies = [
        jax.device_put(leaf, device) for device in place.addressable_devices
      ]
      return jax.make_array_from_single_device_arrays(leaf.shape, place, copies)
    values = np.asarray(leaf)
    return jax.make_array_from_callback(
      values.shape, place, lambda index: values[index]
    )

  return jax.tree.map(own, tree)


def bring_home(tree: Any) -> Any:
  """What lies on all devices, on one of this process alone."""
  return jax.device_put(jax.device_get(tree), jax.local_devices()[0])


def own_share(batch_size: int) -> slice:
  """The images of a batch that this process's devices take."""
  size, index = batch_size // jax.process_count(), jax.process_index()
  return slice(index * size, (index + 1) * size)


def join_shares(tree: Any, place: NamedSharding) -> Any:
  """Arrays of which each process has its own share of a batch alone.

  Args:
    tree: of arrays in this process's memory.
    place: from `by_batch`.

  Returns:
    The arrays of the whole batch, each share where it is.
  """
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(
      place, np.asarray(leaf)
    ),
    tree,
  )
