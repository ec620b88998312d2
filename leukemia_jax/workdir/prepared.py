"""prepare.json: what a source was read as, before anything is trained."""

import collections
import dataclasses
import pathlib

from leukemia_jax import files
from leukemia_jax.data import protocols
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.protocols import Protocol
from leukemia_jax.data.splits import PARTS
from leukemia_jax.workdir import result
from leukemia_jax.workdir.claim import FORMAT

NAME = 'prepare.json'


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A source as it was read.

  Attributes:
    source: its name alone.
    fingerprint: SHA-256 over all files, their ids, classes, patients, parts.
    images: number of images that are used.
    classes: images by class; {} where there are no classes.
    masks: number of images with a mask that can be used.
    patients: number of patients; None where none is known.
    parts: images by part of the source's own split; {} where there is none.
    mean: R, G, B over all used images at `config.data.image_size`, 0..255.
    left_out: number of files of the source that are not used.
    left_out_by_reason: the same by reason.
    duplicates: images that repeat one of their class, turned and mirrored ones
      too.
    reading: the reading in three lines.
    warnings: what to look at; each names the key that helps.
  """

  source: str
  fingerprint: str
  images: int
  classes: dict[str, int]
  masks: int
  patients: int | None
  parts: dict[str, int]
  mean: list[float]
  left_out: int
  left_out_by_reason: dict[str, int]
  duplicates: int
  reading: list[str]
  warnings: list[str]


def _counted(counts: dict[str, int]) -> str:
  return ', '.join(f'{name} {count}' for name, count in counts.items())


def _where(how: str) -> str:
  return f', from {how}' if how else ''


def describe(
  source: str,
  unit: str,
  catalogue: Catalogue,
  protocol: Protocol,
  warnings: list[str],
) -> Prepared:
  """Describes a source.

  Args:
    source: `config.data.source`.
    unit: `config.data.unit`.
    catalogue: of the set.
    protocol: how it will be split.
    warnings: what to look at.

  Returns:
    The record.
  """
  labels = collections.Counter(catalogue.labels.tolist())
  classes = {
    name: labels[label] for label, name in enumerate(catalogue.class_names)
  }
  if not catalogue.has_classes:
    classes = {}
  in_parts = collections.Counter(part for part in catalogue.parts if part)
  known = [part for part in PARTS if part in in_parts]
  parts = {p: in_parts[p] for p in [*known, *sorted({*in_parts} - {*known})]}
  left_out = {
    reason: len(paths) for reason, paths in catalogue.notes.left_out.items()
  } | {
    'bad image': len(catalogue.bad_images),
    'several classes': len(catalogue.contradictory),
  }
  return Prepared(
    source=pathlib.Path(source).name,
    fingerprint=catalogue.fingerprint,
    images=len(catalogue.ids),
    classes=classes,
    masks=catalogue.num_masks,
    patients=catalogue.num_patients,
    parts=parts,
    mean=[round(float(v), 3) for v in catalogue.mean_colours.mean(0)],
    left_out=sum(left_out.values()),
    left_out_by_reason={k: v for k, v in left_out.items() if v},
    duplicates=catalogue.num_duplicates,
    reading=_reading(unit, catalogue, protocol, classes, parts),
    warnings=warnings,
  )


def _reading(
  unit: str,
  catalogue: Catalogue,
  protocol: Protocol,
  classes: dict[str, int],
  parts: dict[str, int],
) -> list[str]:
  """The reading in three lines."""
  how = catalogue.notes.how
  num_patients = catalogue.num_patients
  as_parts = protocols.takes_source_parts(catalogue, protocol)
  # Folds of the source are taken too.
  taken = as_parts or protocol.split == 'source'
  outside = catalogue.parts.count('') if as_parts else 0
  return [
    f'Unit: one {unit} an image. Classes: '
    + (_counted(classes) + _where(how['classes']) if classes else 'none')
    + f'. Masks: {catalogue.num_masks or "none"}.',
    'Patients: '
    + (
      f'{num_patients}{_where(how["patients"])}.'
      if num_patients
      else 'no patients known (config.data.patient).'
    ),
    'Parts: '
    + (
      f'{_counted(parts)}{_where(how["parts"])}: '
      + ('taken as the split' if taken else 'not taken as the split')
      + (
        f'; {outside} images in none of them are trained on.'
        if outside
        else '.'
      )
      if parts
      else 'none in the source; it is split anew.'
    ),
  ]


def write(workdir: pathlib.Path, prepared: Prepared) -> pathlib.Path:
  """Writes prepare.json; returns its path."""
  path = workdir / NAME
  files.write_json(path, {'format': FORMAT} | result.to_json(prepared))
  return path
