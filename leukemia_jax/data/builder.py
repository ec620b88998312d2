"""The TFDS builder: any source to array_record files, checked on the way.

Records hold the source's own bytes, so one prepared set serves every image
size and loses nothing; `dataset.load` decodes and scales them.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import tensorflow_datasets as tfds

from leukemia_jax import files, parallel, progress
from leukemia_jax.data import (
  checked,
  decode,
  source,
  synthetic,
  synthetic_cells,
)
from leukemia_jax.data.checked import Bad, Checked
from leukemia_jax.data.looks import Looks
from leukemia_jax.errors import InputError

# The one split a prepared set has ('all' is reserved by TFDS).
SPLIT = 'images'
# Both give records by number; array_record has no wheel for Windows.
_FORMAT = (
  'array_record' if importlib.util.find_spec('array_record') else 'parquet'
)
_LISTED_TWINS = 6  # of one image, in an error


# Reads or renders one item.
Job = Callable[[], Checked | Bad]


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
      patient_name = f'patient-{patient:02d}'
      return Checked(
        name,
        label,
        checked.to_png(image),
        checked.to_png(mask * 255),
        checked.hash_pixels(image),
        patient_name,
      )

    return run

  return [job(i) for i in range(len(labels))]


class _Place(NamedTuple):
  """Where an image stands: its record's number, label and id."""

  record: int
  label: int
  id: str


class _LocalInfo(tfds.core.DatasetInfo):
  """What TFDS knows of a set, all of it from here."""

  def initialize_from_bucket(self) -> None:
    """Fetches nothing; TFDS would leave an empty temporary folder each time."""


class Smears(tfds.core.GeneratorBasedBuilder):
  """Smear images with label, id, patient, part and, where known, a mask."""

  VERSION = tfds.core.Version('3.0.0')

  def __init__(
    self,
    *,
    jobs: list[Job],
    class_names: tuple[str, ...],
    source_name: str,
    white_level: int,
    data_dir: str,
  ):
    """Sets up a builder that has not read anything yet.

    Args:
      jobs: one an image.
      class_names: names of the labels 0, 1, ...
      source_name: what to call the source in errors.
      white_level: see `decode.Options`.
      data_dir: folder to write the records below.
    """
    self._jobs = jobs
    self._class_names = class_names
    self._source_name = source_name
    self._white_level = white_level
    super().__init__(data_dir=data_dir, file_format=_FORMAT)

  def _info(self) -> tfds.core.DatasetInfo:
    return _LocalInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(),
          # Bytes of an image file, empty without one: TFDS has no optional
          # image that can be read without decoding.
          'mask': tfds.features.Text(),
          'label': tfds.features.ClassLabel(names=list(self._class_names)),
          'id': tfds.features.Text(),
          'patient': tfds.features.Text(),
          'part': tfds.features.Text(),
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
    digest = hashlib.sha256()
    bad: list[Bad] = []
    bad_masks = []
    looks = Looks(self._white_level)
    twins: dict[str, list[_Place]] = collections.defaultdict(list)
    count = 0
    workers = parallel.cores()
    results = progress.track(
      parallel.in_order(self._jobs, workers, 4 * workers),
      'Preparing images',
      len(self._jobs),
    )
    for item in results:
      if isinstance(item, Bad):
        bad.append(item)
        continue
      if item.bad_mask:
        bad_masks.append(str(item.bad_mask))
      looks.add(item.id, item, is_turned=item.is_turned)
      twins[item.pixel_hash].append(_Place(count, item.label, item.id))
      own = [item.id, self._class_names[item.label]]
      if item.patient or item.part:
        own += [item.patient, item.part]
      for part in (*map(str.encode, own), item.image, item.mask):
        digest.update(hashlib.sha256(part).digest())
      yield (
        count,
        {
          'image': item.image,
          'mask': item.mask,
          'label': item.label,
          'id': item.id,
          'patient': item.patient,
          'part': item.part,
          'pixel_hash': item.pixel_hash,
        },
      )
      count += 1
    conflicts = [
      places
      for places in twins.values()
      if len({place.label for place in places}) > 1
    ]
    contradictory = [place for places in conflicts for place in places]
    if not count:
      names = [str(b) for b in bad]
      raise checked.bad_images(self._source_name, names, len(bad))
    metadata = self.info.metadata
    metadata['fingerprint'] = digest.hexdigest()
    metadata['bad_images'] = [str(b) for b in bad]
    metadata['contradictory'] = [place.id for place in contradictory]
    metadata['contradictory_places'] = [p.record for p in contradictory]
    metadata['conflicts'] = [
      ' = '.join(
        f'{p.id} ({self._class_names[p.label]})' for p in places[:_LISTED_TWINS]
      )
      + (' = ...' if len(places) > _LISTED_TWINS else '')
      for places in conflicts
    ]
    metadata['bad_masks'] = bad_masks
    metadata['notes']['warnings'] += looks.warnings()


class SourceSpec(NamedTuple):
  """What a set is made of, and what is refused of it; see `config.data`.

  Attributes:
    source: 'synthetic', 'kaggle' or a path.
    reading: how a source is read.
    cache_dir: where records are stored, by content.
    decoding: how files are decoded.
    synthetic_scale: factor on the size of the synthetic set.
    synthetic_seed: the synthetic set's seed.
  """

  source: str
  reading: source.Options
  cache_dir: str
  decoding: decode.Options
  synthetic_scale: float
  synthetic_seed: int


class _Contents(NamedTuple):
  """What a source holds, none of it read yet.

  Attributes:
    key: changes when the set does.
    class_names: names of the labels 0, 1, ...
    notes: how it was read.
    jobs: one an image.
  """

  key: str
  class_names: tuple[str, ...]
  notes: source.Notes
  jobs: list[Job]


def _list_source(spec: SourceSpec) -> _Contents:
  if spec.source == 'synthetic':
    scale, seed = spec.synthetic_scale, spec.synthetic_seed
    # What draws a synthetic set identifies it too: the code, and JAX, whose
    # rounding changes.
    code = b''.join(
      pathlib.Path(module.__file__ or '').read_bytes()
      for module in (synthetic, synthetic_cells)
    )
    drawn_by = repr((scale, seed, jax.__version__)).encode() + code
    key = hashlib.sha256(drawn_by).hexdigest()
    jobs = _synthetic_jobs(scale, seed)
    drawn = 'drawn here'
    how = {'classes': drawn, 'patients': drawn, 'masks': drawn, 'parts': ''}
    return _Contents(key, synthetic.CLASSES, source.Notes(how), jobs)
  opened = source.open_source(spec.source, spec.reading)
  # Whether large files are refused is part of the result.
  key = hashlib.sha256(repr((opened.key(), spec.decoding)).encode()).hexdigest()

  def job(item: source.Item) -> Job:
    return lambda: checked.check_item(item, spec.decoding)

  jobs = [job(item) for item in opened.items]
  return _Contents(key, opened.class_names, opened.notes, jobs)


def prepare(spec: SourceSpec) -> pathlib.Path:
  """Builds the records of a source, unless they are there already.

  Args:
    spec: the source.

  Returns:
    The folder of the prepared set, for `dataset.load`, without the images that
    can't be used. It gets this name when it is whole: what a kill cut off is
    never taken for it.

  Raises:
    InputError: the source can't be used, or the cache can't be written.
  """
  contents = _list_source(spec)
  cache = files.expand(spec.cache_dir) / contents.key[:20]
  tfds.disable_progress_bar()
  builder = Smears(
    jobs=contents.jobs,
    class_names=contents.class_names,
    source_name=spec.source,
    white_level=spec.decoding.white_level,
    data_dir=str(cache),
  )
  builder.info.metadata['notes'] = dataclasses.asdict(contents.notes)
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
