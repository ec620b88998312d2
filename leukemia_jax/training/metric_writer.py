"""The epochs' scores on disk: metrics.jsonl, and scalars for TensorBoard."""

import json
import pathlib
import time
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from leukemia_jax import files, sharding
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import METRICS


class MetricWriter:
  """Writes a line an epoch, and keeps those written so far.

  Of several processes the first alone writes.

  Attributes:
    history: the lines of the epochs that are done.
  """

  def __init__(self, workdir: pathlib.Path, epochs: int):
    """Resumes a log.

    Args:
      workdir: of the run.
      epochs: how many are done; later lines are of an epoch that is now
        trained again.

    Raises:
      InputError: the log is damaged.
    """
    self._path = workdir / METRICS
    lines = files.read_json_lines(self._path)
    if not all(isinstance(line.get('epoch'), int) for line in lines):
      raise InputError(
        f'{self._path} is damaged: lines have no epoch; remove it'
      )
    # By number: the log of earlier epochs may be lost.
    self.history = [line for line in lines if line['epoch'] <= epochs]
    self._board = None
    if sharding.leads():
      folder = workdir / 'tensorboard'
      folder.mkdir(exist_ok=True)
      # Not a SummaryWriter: its thread ends on a full disk, without a word, and
      # whoever waits for it then waits for ever.
      self._board = EventsWriter(str(folder / 'events'))
      # Hides what earlier files say of these epochs.
      session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._board.write_event(
        event_pb2.Event(wall_time=time.time(), session_log=session)
      )
    # All of them again: a kill loses what was not flushed.
    for line in self.history:
      self._add_scalars(line)

  def write(self, line: dict[str, Any]) -> None:
    """Adds an epoch's line."""
    self.history.append(line)
    if sharding.leads():
      text = ''.join(json.dumps(entry) + '\n' for entry in self.history)
      files.write(self._path, text)
    self._add_scalars(line)

  def _add_scalars(self, line: dict[str, Any]) -> None:
    if self._board is None:
      return
    scalars = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in line.items()
      if name != 'epoch'
    ]
    self._board.write_event(
      event_pb2.Event(
        wall_time=time.time(),
        step=line['epoch'],
        summary=summary_pb2.Summary(value=scalars),
      )
    )
    self._board.flush()

  def close(self) -> None:
    """Closes the files."""
    if self._board is not None:
      self._board.close()
