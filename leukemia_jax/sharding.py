"""Devices that share each batch, of one process or several.

Computation follows data. Weights and the set lie whole on each device, each
takes its share of a batch's indices, and XLA adds up what needs all of them:
gradients, losses, a batch norm's statistics. So a step is written once, and
its batch is one batch on any number of devices.
"""

import faulthandler
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from leukemia_jax.errors import InputError

_BATCH = 'batch'
# Seconds after which a process that is not heard of ends all others.
_LOST_AFTER = 60
# Seconds that the others wait for process 0, which scores what they trained.
_PATIENCE = 24 * 3600


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
  try:
    jax.distributed.initialize(
      coordinator,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=_LOST_AFTER,
      shutdown_timeout_seconds=_PATIENCE,
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
  # Where process 0 is lost, JAX ends the others: in its words, without stacks.
  faulthandler.disable()
  if leads():
    print(
      f'{num_processes} processes: when one is lost, all end within '
      f'{_LOST_AFTER} s, and the same commands resume',
      flush=True,
    )


def leads() -> bool:
  """Whether this process writes, and says what is to be said."""
  return jax.process_index() == 0


def make_mesh(count: int, batch_size: int) -> Mesh:
  """Takes `config.mesh.devices`.

  Args:
    count: devices of each process that share each batch; 0 for all.
    batch_size: images a step, of all devices together.

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
  chosen = [
    device
    for process in range(jax.process_count())
    for device in jax.local_devices(process)[: count or None]
  ]
  if batch_size % len(chosen):
    raise InputError(
      f'config.train.batch_size={batch_size} cannot be shared equally by '
      f'{len(chosen)} devices: give a multiple, or another config.mesh.devices'
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
    The arrays; what a device has already isn't copied, and nothing is sent from
    process to process.
  """
  if place.is_fully_addressable:
    return jax.device_put(tree, place)

  def own(leaf: jax.Array) -> jax.Array:
    values = np.asarray(leaf)
    return jax.make_array_from_callback(
      values.shape, place, lambda index: values[index]
    )

  return jax.tree.map(own, tree)


def bring_home(tree: Any) -> Any:
  """What lies on all devices, on one of this process alone."""
  return jax.device_put(jax.device_get(tree), jax.local_devices()[0])
