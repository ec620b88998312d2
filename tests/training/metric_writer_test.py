"""Epochs' scores on disk, as TensorBoard reads them, and on a full disk."""

import struct

import pytest
from tensorboardX.proto import event_pb2

from leukemia_jax.training.metric_writer import MetricWriter


def events(path):
  """The events of a file: length, checksum, message, checksum."""
  data, own = path.read_bytes(), []
  while data:
    (length,) = struct.unpack('<Q', data[:8])
    own.append(event_pb2.Event.FromString(data[12 : 12 + length]))
    data = data[16 + length :]
  return own


def test_scalars_are_on_disk_after_each_epoch(tmp_path):
  writer = MetricWriter(tmp_path, 0)
  writer.write({'epoch': 1, 'loss': 0.5, 'accuracy': 0.25})
  (file,) = (tmp_path / 'tensorboard').iterdir()
  version, begun, epoch = events(file)
  assert version.file_version == 'brain.Event:2'
  # Hides what an earlier command wrote of the same epochs.
  assert begun.session_log.status == event_pb2.SessionLog.START
  assert begun.step == 0
  assert epoch.step == 1
  values = {value.tag: value.simple_value for value in epoch.summary.value}
  assert values == {'loss': 0.5, 'accuracy': 0.25}
  writer.close()


def test_a_full_disk_ends_it_at_once(tmp_path):
  # Windows sets no limit on a file's size.
  resource = pytest.importorskip('resource')
  writer = MetricWriter(tmp_path, 0)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
  try:
    with pytest.raises(OSError, match='too large'):
      for epoch in range(1, 5):
        writer.write({'epoch': epoch, 'loss': 0.5})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
