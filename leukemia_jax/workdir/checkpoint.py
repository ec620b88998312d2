"""Orbax checkpoints: the latest state to resume from, the best to keep."""

import hashlib
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from leukemia_jax.errors import InputError
from leukemia_jax.workdir import BEST, LATEST


def open_manager(
  directory: pathlib.Path, keep: int = 1, *, read_only: bool = False
) -> ocp.CheckpointManager:
  """Opens a folder of checkpoints, of which the newest `keep` are kept.

  A checkpoint is written under a temporary name and moved into place, so a
  kill at any moment leaves a whole one; what it cut off is removed here.
  Saving doesn't go on in the background, so that a full disk is an error of
  the very call. To read alone, nothing is made or removed.
  """
  return ocp.CheckpointManager(
    directory.absolute(),
    item_names=('arrays', 'notes'),
    options=ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      # Orbax' own read_only warns of itself.
      create=not read_only,
      cleanup_tmp_directories=not read_only,
      enable_async_checkpointing=False,
    ),
  )


def is_empty(directory: pathlib.Path) -> bool:
  """Whether a folder holds no whole checkpoint; a kill leaves such folders."""
  return not any(step.name.isdigit() for step in directory.glob('*'))


def save(
  manager: ocp.CheckpointManager, number: int, arrays: Any, notes: Any
) -> None:
  """Saves a checkpoint.

  Args:
    manager: from `open_manager`.
    number: its step or epoch. An existing checkpoint is kept: a resumed run
      writes the same one again.
    arrays: pytree of arrays.
    notes: JSON-serialisable.

  Raises:
    InputError: it can't be written.
  """
  if number in manager.all_steps():
    return
  # Known to be too little before anything is written: Orbax would leave many
  # threads' complaints behind.
  needed = 2**20 + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
  free = shutil.disk_usage(manager.directory).free
  if free < needed:
    raise _unwritable(
      manager, f'it needs {needed / 2**20:.0f} MiB, {free / 2**20:.0f} are free'
    )
  try:
    manager.save(
      number,
      args=ocp.args.Composite(
        arrays=ocp.args.StandardSave(arrays), notes=ocp.args.JsonSave(notes)
      ),
    )
  except Exception as error:
    # Orbax and TensorStore have many exceptions for a disk that is full.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise _unwritable(manager, lines[0]) from error


def _unwritable(manager: ocp.CheckpointManager, why: str) -> InputError:
  several = jax.process_count() > 1
  return InputError(
    f'cannot write a checkpoint to {manager.directory}: {why}. '
    + ('See whether another process was lost, or make' if several else 'Make')
    + ' room, and give the same command: the run resumes'
  )


def drop_after(manager: ocp.CheckpointManager, number: int) -> None:
  """Removes the checkpoints with a higher number."""
  for newer in [n for n in manager.all_steps() if n > number]:
    manager.delete(newer)


def _target(leaf: Any) -> Any:
  """Where a leaf is restored to: where it lies, or to one device."""
  # Without a place Orbax asks for the devices that it was saved from.
  home = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  place = getattr(leaf, 'sharding', None) or home
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)


def restore(
  manager: ocp.CheckpointManager, abstract: Any
) -> tuple[Any, Any] | None:
  """Reads the newest checkpoint.

  Args:
    manager: from `open_manager`.
    abstract: pytree of `jax.ShapeDtypeStruct`, or arrays, to restore into.

  Returns:
    Arrays and notes, or None if there is no checkpoint.

  Raises:
    InputError: there is one, but it doesn't fit or is damaged.
  """
  number = manager.latest_step()
  if number is None:
    return None
  target = jax.tree.map(_target, abstract)
  try:
    restored = manager.restore(
      number,
      args=ocp.args.Composite(
        arrays=ocp.args.StandardRestore(target),
        notes=ocp.args.JsonRestore(),
      ),
    )
  except Exception as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise InputError(
      f'the checkpoint {manager.directory / str(number)} cannot be read: '
      f'{lines[0]}'
    ) from error
  return restored['arrays'], restored['notes']


class RunCheckpoints:
  """The checkpoints of a training run: its latest state, its best weights."""

  def __init__(self, workdir: pathlib.Path):
    self._latest = open_manager(workdir / LATEST)
    # Two, so that one is left when the newest is dropped after a kill.
    self._best = open_manager(workdir / BEST, keep=2)

  def restore(self, state: Any) -> tuple[Any, Any] | None:
    """The latest state and its notes; None if there is none yet.

    Args:
      state: of the same shapes.

    Returns:
      See `restore`.
    """
    return restore(self._latest, state)

  def save(self, step: int, state: Any, notes: Any) -> None:
    """Saves the latest state."""
    save(self._latest, step, state, notes)

  def save_best(self, epoch: int, variables: Any) -> None:
    """Saves the weights of the best epoch so far."""
    save(self._best, epoch, variables, {'epoch': epoch})

  def drop_best_after(self, epoch: int) -> None:
    """Removes best weights of epochs that are trained again."""
    drop_after(self._best, epoch)

  def best(self, variables: Any) -> Any:
    """The weights of the best epoch so far.

    Args:
      variables: of the same shapes.

    Returns:
      The weights.

    Raises:
      InputError: they are gone.
    """
    restored = restore(self._best, variables)
    if restored is None:
      raise InputError(
        f'{self._best.directory} was emptied; give a new --workdir'
      )
    return restored[0]

  def close(self) -> None:
    """Closes the folders."""
    self._latest.close()
    self._best.close()


def fingerprint(tree: Any) -> str:
  """SHA-256 over the names, shapes, dtypes and bytes of a pytree of arrays."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    value = np.asarray(leaf)
    name = f'{jax.tree_util.keystr(path)} {value.shape} {value.dtype}'
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(value).tobytes())
  return digest.hexdigest()
