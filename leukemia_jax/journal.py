"""What a training run keeps on disk: checkpoints, the epochs' log, scalars."""

import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import tensorboardX

from leukemia_jax import checkpoint, optimizer
from leukemia_jax import workdir as files
from leukemia_jax.errors import InputError

# A `train.TrainState`.
State = Any


class DivergedError(InputError):
  """The loss is no longer a finite number."""


def diverged(what: str, step: int, rate: float) -> DivergedError:
  """The error that says when, and what to do."""
  return DivergedError(
    f'{what} at step {step} with learning rate {rate:g}; the last good '
    'checkpoint is kept. Lower config.train.learning_rate and use a new '
    '--workdir'
  )


@jax.jit
def is_finite(variables: Any) -> jax.Array:
  """Whether all values are."""
  return jnp.stack(
    [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)]
  ).all()


class Journal:
  """What a run keeps on disk: checkpoints, the epochs' log, scalars."""

  def __init__(self, workdir: pathlib.Path, settings: Any):
    self._settings = settings
    self._log = workdir / files.METRICS
    self._latest = checkpoint.open_manager(workdir / files.LATEST)
    # Two, so that one is left when the newest is dropped after a kill.
    self._best = checkpoint.open_manager(workdir / files.BEST, keep=2)
    self._board_folder = workdir / 'tensorboard'
    self.seen = optimizer.Progress()
    self.stopped = False
    self.history: list[dict[str, Any]] = []

  def restore(self, state: State, steps: int) -> State:
    """The newest state on disk, or the given one if there is none."""
    restored = checkpoint.restore(self._latest, state)
    if restored is not None:
      state, notes = restored
      self.seen = optimizer.Progress(**notes['progress'])
      self.stopped = notes['stopped']
    # Later lines are of an epoch that is now done again.
    epochs = int(state.step) // steps
    self.history = files.read_log(self._log)[:epochs]
    # All of them again: a kill loses what was not flushed.
    self._board = tensorboardX.SummaryWriter(
      str(self._board_folder), purge_step=0
    )
    for line in self.history:
      self._show_on_board(line)
    # Best weights of an epoch that is done again are saved again.
    checkpoint.drop_after(self._best, self.seen.best_epoch)
    return state

  def _show_on_board(self, line: dict[str, Any]) -> None:
    for name, value in line.items():
      if name != 'epoch':
        self._board.add_scalar(name, value, line['epoch'])

  def save(self, state: State) -> None:
    """Saves the latest state, if it is a good one."""
    if not is_finite(state.variables()):
      rate = float(state.learning_rate)
      raise diverged('parameters are not finite', int(state.step), rate)
    notes = {'progress': self.seen._asdict(), 'stopped': self.stopped}
    checkpoint.save(self._latest, int(state.step), state, notes)

  def end_epoch(self, state: State, line: dict[str, Any]) -> State:
    """Applies the epoch's rules, then puts all of it on disk."""
    epoch, loss = line['epoch'] - 1, line['validation_loss']
    if not math.isfinite(loss):
      rate = line['learning_rate']
      raise diverged(f'the validation loss is {loss}', int(state.step), rate)
    self.seen, decision = optimizer.after_epoch(
      self.seen,
      epoch,
      loss,
      plateau_patience=self._settings.plateau_patience,
      stop_patience=self._settings.stop_patience,
    )
    self.stopped = decision.stop
    if decision.is_best:
      # Before the latest state, which must not remember a best one that
      # isn't on disk.
      checkpoint.save(self._best, epoch, state.variables(), {'epoch': epoch})
    rate = state.learning_rate
    if decision.lower_rate:
      rate = rate * self._settings.plateau_factor
    state = state.replace(sums=jnp.zeros(3), learning_rate=rate)
    self.history.append(line)
    text = ''.join(json.dumps(row) + '\n' for row in self.history)
    files.write(self._log, text)
    self._show_on_board(line)
    self.save(state)
    return state

  def best_weights(self, abstract: dict[str, Any]) -> dict[str, Any]:
    """The weights of the best epoch so far."""
    restored = checkpoint.restore(self._best, abstract)
    if restored is None:
      raise InputError(
        f'{self._log.parent / files.BEST} was emptied; give a new --workdir'
      )
    return restored[0]

  def close(self) -> None:
    """Closes the files."""
    self._latest.close()
    self._best.close()
    self._board.close()
