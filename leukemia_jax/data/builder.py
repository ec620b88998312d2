"""The TFDS builder: any source to array_record files, checked on the way.

Records hold the source's own bytes, so one prepared set serves every image
size and loses nothing; `dataset.load` decodes and scales them.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from leukemia_jax import progress
from leukemia_jax.data import decode, source, synthetic, synthetic_cells
from leukemia_jax.errors import InputError

# The one split a prepared set has ('all' is reserved by TFDS).
SPLIT = 'images'
_FORMAT = 'array_record'
_LISTED = 20  # bad files named in an error; the rest are counted


@dataclasses.dataclass(frozen=True)
class Checked:
  """An item that was read: its bytes and what identifies it.

  Attributes:
    id: its path in the source.
    label: index of its class.
    image: the image file's bytes.
    mask: the mask file's bytes; empty if there is none that can be used.
    pixel_hash: hash of the decoded image; equal images of unknown patients form
      a group, and it shows an image again in another set.
    group: the patient, where known.
    bad_mask: what is wrong with its mask, if something is.
  """

  id: str
  label: int
  image: bytes
  mask: bytes
  pixel_hash: str
  group: str = ''
  bad_mask: 'Bad | None' = None


@dataclasses.dataclass(frozen=True)
class Bad:
  """A file that can't be used, and why."""

  path: str
  why: str

  def __str__(self) -> str:
    return f'{self.path}: {self.why}'


def unusable(what: str, files: Sequence[str]) -> InputError:
  """The error that names files which can't be used.

  Args:
    what: of what set they are, and how many.
    files: a line each; the first few are shown.

  Returns:
    The error.
  """
  lines = [f'  {line}' for line in files[:_LISTED]]
  if len(files) > _LISTED:
    lines.append(f'  and {len(files) - _LISTED} more')
  return InputError(
    '\n'.join([f'{what}:', *lines])
    + '\nMend or remove them, or leave them out with '
    '--config.data.on_bad_image=skip'
  )


# Reads or renders one item.
Job = Callable[[], Checked | Bad]


def _read(
  file: source.File, max_pixels: int, *, is_mask: bool
) -> tuple[bytes, Image.Image] | Bad:
  """A file's bytes, and all of it decoded, so that bad files show here."""
  try:
    data = file.read()
    return data, decode.decode(data, max_pixels=max_pixels, is_mask=is_mask)
  except decode.BadImageError as error:
    return Bad(file.path, str(error))
  except Exception as error:
    # zipfile and zlib raise many kinds on a damaged entry; OSError otherwise.
    return Bad(file.path, f'cannot be read: {error!r}')


def _check_item(item: source.Item, max_pixels: int) -> Checked | Bad:
  """Reads an item; with a bad mask its image is still fit to classify."""
  read = _read(item.image, max_pixels, is_mask=False)
  if isinstance(read, Bad):
    return read
  image, pixels = read
  mask, bad_mask = b'', None
  if item.mask is not None:
    drawn = _read(item.mask, max_pixels, is_mask=True)
    if isinstance(drawn, Bad):
      bad_mask = drawn
    elif drawn[1].size != pixels.size:
      sizes = ['{} x {}'.format(*i.size) for i in (drawn[1], pixels)]
      why = f'this mask is {sizes[0]} px, its image {sizes[1]}'
      bad_mask = Bad(item.mask.path, why)
    else:
      mask = drawn[0]
  return Checked(
    item.image.path,
    item.label,
    image,
    mask,
    _pixel_hash(np.asarray(pixels)),
    bad_mask=bad_mask,
  )


def _pixel_hash(pixels: np.ndarray) -> str:
  digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes())
  return digest.hexdigest()[:32]


def _to_png(pixels: np.ndarray) -> bytes:
  stream = io.BytesIO()
  Image.fromarray(pixels).save(stream, 'PNG', compress_level=1)
  return stream.getvalue()


def _synthetic_jobs(scale: float, seed: int) -> list[Job]:
  labels, patients = synthetic.assign_patients(scale)
  key, spec = jax.random.key(seed), synthetic_cells.SmearSpec()

  def job(index: int) -> Job:
    label, patient = int(labels[index]), int(patients[index])

    def run() -> Checked:
      image, mask = synthetic.render_image(
        key, index, label, patient, spec=spec
      )
      name = f'{synthetic.CLASSES[label]}/patient-{patient:02d}-{index:04d}.png'
      group = f'patient-{patient:02d}'
      return Checked(
        name,
        label,
        _to_png(image),
        _to_png(mask * 255),
        _pixel_hash(image),
        group,
      )

    return run

  return [job(i) for i in range(len(labels))]


def _in_order(jobs: list[Job]) -> Iterator[Checked | Bad]:
  """Runs jobs on all cores; yields in order, few results ahead."""
  workers = os.cpu_count() or 1
  ahead = 4 * workers
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    waiting = [pool.submit(job) for job in jobs[:ahead]]
    for i in range(len(jobs)):
      yield waiting[i].result()
      waiting[i] = None  # type: ignore[call-overload]
      if i + ahead < len(jobs):
        waiting.append(pool.submit(jobs[i + ahead]))


class Smears(tfds.core.GeneratorBasedBuilder):
  """Smear images with label, id, group and, where there is one, a mask."""

  VERSION = tfds.core.Version('1.4.0')

  def __init__(
    self,
    *,
    jobs: list[Job],
    class_names: tuple[str, ...],
    source_name: str,
    on_bad_image: str,
    data_dir: str,
  ):
    """Sets up a builder that has not read anything yet.

    Args:
      jobs: one an image.
      class_names: names of the labels 0, 1, ...
      source_name: what to call the source in errors.
      on_bad_image: 'error', or 'skip' to leave bad images out.
      data_dir: folder to write the records below.
    """
    self._jobs = jobs
    self._class_names = class_names
    self._source_name = source_name
    self._on_bad_image = on_bad_image
    super().__init__(data_dir=data_dir, file_format=_FORMAT)

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(),
          # Bytes of an image file, empty without one: TFDS has no optional
          # image that can be read without decoding.
          'mask': tfds.features.Text(),
          'label': tfds.features.ClassLabel(names=list(self._class_names)),
          'id': tfds.features.Text(),
          'group': tfds.features.Text(),
          'pixel_hash': tfds.features.Text(),
        }
      ),
      metadata=tfds.core.MetadataDict(),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterable[Any]]:
    del dl_manager
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    digest, bad, bad_masks = hashlib.sha256(), [], []
    first_with: dict[str, str] = {}
    count = 0
    results = progress.track(
      _in_order(self._jobs), 'Preparing images', len(self._jobs)
    )
    for checked in results:
      if isinstance(checked, Bad):
        bad.append(checked)
        continue
      if checked.bad_mask:
        bad_masks.append(str(checked.bad_mask))
      group = checked.group or first_with.setdefault(
        checked.pixel_hash, checked.id
      )
      name = self._class_names[checked.label]
      for part in (checked.id, name, checked.image, checked.mask):
        part = part.encode() if isinstance(part, str) else part
        digest.update(hashlib.sha256(part).digest())
      yield (
        count,
        {
          'image': checked.image,
          'mask': checked.mask,
          'label': checked.label,
          'id': checked.id,
          'group': group,
          'pixel_hash': checked.pixel_hash,
        },
      )
      count += 1
    if bad and (self._on_bad_image == 'error' or not count):
      raise unusable(
        f'{self._source_name}: {len(bad)} of {len(self._jobs)} images cannot '
        'be used',
        [str(b) for b in bad],
      )
    self.info.metadata['fingerprint'] = digest.hexdigest()
    self.info.metadata['skipped'] = [b.path for b in bad]
    self.info.metadata['bad_masks'] = bad_masks


class SourceSpec(NamedTuple):
  """What a set is made of, and what is refused of it; see `config.data`.

  Attributes:
    source: 'synthetic', 'kaggle' or a path.
    cache_dir: where records are stored, by content.
    on_bad_image: 'error', or 'skip' to leave bad images out.
    max_pixels: limit on an image's width x height.
    max_bytes: limit on what a zip may unpack to.
    synthetic_scale: factor on the size of the synthetic set.
    synthetic_seed: the synthetic set's seed.
  """

  source: str
  cache_dir: str
  on_bad_image: str
  max_pixels: int
  max_bytes: int
  synthetic_scale: float
  synthetic_seed: int


class _Contents(NamedTuple):
  """What a source holds, none of it read yet.

  Attributes:
    key: changes when the set does.
    class_names: names of the labels 0, 1, ...
    unpaired: images and masks without their counterpart.
    jobs: one an image.
  """

  key: str
  class_names: tuple[str, ...]
  unpaired: tuple[str, ...]
  jobs: list[Job]


def _list_source(spec: SourceSpec) -> _Contents:
  if spec.source == 'synthetic':
    scale, seed = spec.synthetic_scale, spec.synthetic_seed
    # The rendering code is part of what identifies a synthetic set.
    code = b''.join(
      pathlib.Path(module.__file__ or '').read_bytes()
      for module in (synthetic, synthetic_cells)
    )
    key = hashlib.sha256(repr((scale, seed)).encode() + code).hexdigest()
    jobs = _synthetic_jobs(scale, seed)
    return _Contents(key, synthetic.CLASSES, (), jobs)
  listing = source.open_source(spec.source, max_bytes=spec.max_bytes)
  # Whether bad files or large ones are refused is part of the result.
  limits = (spec.on_bad_image, spec.max_pixels)
  key = hashlib.sha256(repr((listing.key(), limits)).encode()).hexdigest()

  def job(item: source.Item) -> Job:
    return lambda: _check_item(item, spec.max_pixels)

  jobs = [job(item) for item in listing.items]
  return _Contents(key, listing.class_names, listing.unpaired, jobs)


def prepare(spec: SourceSpec) -> pathlib.Path:
  """Builds the records of a source, unless they are there already.

  Args:
    spec: the source.

  Returns:
    The folder of the prepared set, for `dataset.load`. It gets this name when
    it is whole: what a kill cut off is never taken for it.

  Raises:
    InputError: the source can't be used, or the cache can't be written.
  """
  contents = _list_source(spec)
  cache = pathlib.Path(os.path.expanduser(spec.cache_dir), contents.key[:20])
  tfds.disable_progress_bar()
  builder = Smears(
    jobs=contents.jobs,
    class_names=contents.class_names,
    source_name=spec.source,
    on_bad_image=spec.on_bad_image,
    data_dir=str(cache),
  )
  builder.info.metadata['unpaired'] = list(contents.unpaired)
  # TFDS announces itself on standard output.
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  except InputError:
    raise
  except (OSError, RuntimeError) as error:
    if pathlib.Path(builder.data_dir, 'dataset_info.json').exists():
      # Another process prepared the same set meanwhile.
      return pathlib.Path(builder.data_dir)
    # The array_record writer has RuntimeErrors for a disk that is full.
    raise InputError(
      f'cannot write records to config.data.cache_dir={spec.cache_dir}: '
      f'{str(error).splitlines()[0][:300]}; make room there, or name another '
      'folder'
    ) from error
  return pathlib.Path(builder.data_dir)
