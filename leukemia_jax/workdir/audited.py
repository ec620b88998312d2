"""audit.json and duplicates.csv: what an audit says of a set."""

import csv
import dataclasses
import io
import pathlib

from leukemia_jax import files
from leukemia_jax.audit.duplicates import Duplicates
from leukemia_jax.audit.leaks import Leaks
from leukemia_jax.audit.probes import DistancePoint, ProbeScore
from leukemia_jax.audit.verdict import Finding
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.masks import ClassCoverage
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import result
from leukemia_jax.workdir.claim import FORMAT

NAME, PAIRS = 'audit.json', 'duplicates.csv'


@dataclasses.dataclass(frozen=True)
class PairCount:
  """Pairs of one kind, and how many images are in them."""

  pairs: int
  images: int


@dataclasses.dataclass(frozen=True)
class DuplicateRecord:
  """Pairs of images that show the same; see `audit.duplicates`.

  Attributes:
    exact: equal images.
    oriented: equal once one is turned or mirrored.
    near: nearly equal.
    threshold: least similarity of near pairs.
  """

  exact: PairCount
  oriented: PairCount
  near: PairCount
  threshold: float


@dataclasses.dataclass(frozen=True)
class FileRecord:
  """Files of a set: how many of each kind, and ranges of their numbers.

  Attributes:
    formats: number of files by format.
    sizes: number of images by 'width x height', the most frequent ones.
    other_sizes: number of images of other sizes.
    bytes: smallest, median and largest file.
    quality: lowest, median and highest estimated quality of JPEGs.
    with_exif: number of files that hold EXIF.
    with_profile: number of files that hold a colour profile.
  """

  formats: dict[str, int]
  sizes: dict[str, int]
  other_sizes: int
  bytes: list[int]
  quality: list[int] | None
  with_exif: int
  with_profile: int


@dataclasses.dataclass(frozen=True)
class Audit:
  """What an audit says; the names of the fields are the keys of audit.json.

  Attributes:
    source: its name alone.
    fingerprint: SHA-256 over all files, their ids and classes.
    image_size: side that images were scaled to, px.
    images: number of images.
    classes: their number by class; {} where there are none.
    patients: number of patients, or None.
    verdict: in one sentence.
    serious: number of serious findings.
    findings: serious ones first.
    duplicates: pairs that show the same.
    leaks: of the split, or of all folds; None if the set can't be split.
    chance: balanced accuracy without looking; None without classes.
    majority: accuracy of predicting the largest class; None without classes.
    probes: what simple properties reach, by name.
    folds: number of folds of the probes, 0 if they can't be tested.
    groups: number of groups that intervals are over.
    group: what such a group is, in words.
    distances: accuracy of the colour probe by distance in file numbers.
    files: what the files are; None for a rendered set.
    masks: what masks cover, by class.
  """

  source: str
  fingerprint: str
  image_size: int
  images: int
  classes: dict[str, int]
  patients: int | None
  verdict: str
  serious: int
  findings: list[Finding]
  duplicates: DuplicateRecord
  leaks: Leaks | None
  chance: float | None
  majority: float | None
  probes: dict[str, ProbeScore]
  folds: int
  groups: int
  group: str
  distances: list[DistancePoint]
  files: FileRecord | None
  masks: dict[str, ClassCoverage]


def name_of(source: str) -> str:
  """How an audit calls the set of `config.data.source`."""
  return files.expand(source).resolve().name


def check(workdir: pathlib.Path, source: str, fingerprint: str) -> None:
  """Refuses a folder that holds the audit of a set of another name.

  Args:
    workdir: the folder.
    source: `config.data.source`; a set that has changed is audited again.
    fingerprint: of the set, which may have been renamed.

  Raises:
    InputError: it does.
  """
  path = workdir / NAME
  before = files.read_json(path) if path.exists() else None
  if not isinstance(before, dict) or before.get('fingerprint') == fingerprint:
    return
  if before.get('source') != name_of(source):
    raise InputError(
      f'--workdir={workdir} holds the audit of {before.get("source")}, not of '
      f'{name_of(source)}: give another --workdir'
    )


def count_duplicates(duplicates: Duplicates) -> DuplicateRecord:
  """The numbers of pairs and of images in them."""
  counts = {
    kind: PairCount(
      len(pairs), len({i for p in pairs for i in (p.first, p.second)})
    )
    for kind, pairs in duplicates.by_kind.items()
  }
  return DuplicateRecord(**counts, threshold=duplicates.threshold)


def write(
  workdir: pathlib.Path,
  audit: Audit,
  duplicates: Duplicates,
  catalogue: Catalogue,
) -> None:
  """Writes audit.json and duplicates.csv."""
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  writer.writerow(
    ('kind', 'similarity', 'first', 'second', 'first_class', 'second_class')
  )
  names, labels, ids = catalogue.class_names, catalogue.labels, catalogue.ids
  for kind, pairs in duplicates.by_kind.items():
    for first, second, similarity in pairs:
      classes = (names[labels[i]] for i in (first, second))
      number = f'{similarity:.3f}'
      writer.writerow((kind, number, ids[first], ids[second], *classes))
  files.write(workdir / PAIRS, stream.getvalue())
  content = {'format': FORMAT} | result.to_json(audit)
  files.write_json(workdir / NAME, content)
