"""Keras' ImageNet weights of the backbones, fetched once, checked, kept."""

import pathlib
from types import TracebackType
from typing import NamedTuple

import pooch
import requests

from leukemia_jax import progress
from leukemia_jax.errors import InputError

_SITE = 'https://storage.googleapis.com/tensorflow/keras-applications'
# Seconds without a byte after which a download is given up.
_TIMEOUT = 30


class WeightsFile(NamedTuple):
  """A file on the web.

  Attributes:
    url: where it lies.
    digest: 'sha256:...' or 'md5:...' of its content.
    size: its size in bytes, or the most that it may be.
  """

  url: str
  digest: str
  size: int


# Without top. Keras publishes MD5 sums; the SHA-256 was taken from the file.
IMAGENET = {
  'inception_resnet_v2': WeightsFile(
    f'{_SITE}/inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_'
    'tf_kernels_notop.h5',
    'sha256:937fb087127afa1d6d09f5eed7e560fc9ef20d3c6583b54653141c922a6dee0f',
    219_055_592,
  ),
  'nasnet_large': WeightsFile(
    f'{_SITE}/nasnet/NASNet-large-no-top.h5',
    'md5:d81d89dc07e6e56530c4e77faddd61b5',
    400_000_000,
  ),
  'nasnet_mobile': WeightsFile(
    f'{_SITE}/nasnet/NASNet-mobile-no-top.h5',
    'md5:1ed92395b5b598bdda52abe5c0dbfd63',
    40_000_000,
  ),
}


class _Bar:
  """The bar that pooch fills, which also stops what is too long."""

  def __init__(self, file: WeightsFile):
    self.total = file.size
    self._file, self._done = file, 0
    self._bar = progress.bar()
    self._task = self._bar.add_task('Fetching weights', total=file.size)

  def __enter__(self) -> '_Bar':
    self._bar.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._bar.stop()

  def update(self, count: int) -> None:
    self._done += count
    # Pooch counts the last piece as a whole one.
    if self._done - count > self._file.size:
      raise ValueError(f'it is longer than {self._file.size:,} bytes')
    self._bar.update(self._task, total=self.total or None, completed=self._done)

  def reset(self) -> None:
    self._done = 0

  def close(self) -> None:
    """Pooch's end; the bar goes with the context."""


def fetch(file: WeightsFile, folder: pathlib.Path) -> pathlib.Path:
  """Gives the path of a file, downloaded if it is not there yet.

  A download goes to a temporary name and is moved when its digest is right.

  Args:
    file: what to fetch.
    folder: where it is kept.

  Returns:
    The path.

  Raises:
    InputError: there is no network, or what came is not the file.
  """
  name = file.url.rpartition('/')[2]
  try:
    with _Bar(file) as bar:
      pooch.get_logger().setLevel('ERROR')
      return pathlib.Path(
        pooch.retrieve(
          file.url,
          known_hash=file.digest,
          fname=name,
          path=folder,
          downloader=pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT),
        )
      )
  except (requests.RequestException, ValueError) as error:
    raise InputError(
      f'{file.url} could not be fetched ({error}). With a copy of the file, '
      'give config.model.weights=PATH_OF_THE_FILE, or put it at '
      f'{folder / name}'
    ) from error
