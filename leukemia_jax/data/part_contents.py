"""What the parts of a split hold: classes and patients."""

import itertools

import numpy as np

from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError


def lacking(
  split: Split, parts: list[str], catalogue: Catalogue
) -> list[tuple[str, int]]:
  """The parts that lack a class, with it."""
  count = len(catalogue.class_names)
  return [
    (part, int(label))
    for part in parts
    for label in np.flatnonzero(
      np.bincount(catalogue.labels[getattr(split, part)[:, 0]], minlength=count)
      == 0
    )
  ]


def check_source_patients(parts: np.ndarray, catalogue: Catalogue) -> None:
  """Refuses a source's own parts that tear patients apart."""
  first_part: dict[str, str] = {}
  for patient, part in zip(catalogue.patients, parts.tolist(), strict=True):
    part = part or 'train'
    if patient and first_part.setdefault(patient, part) != part:
      raise InputError(
        f"patient {patient!r} is in the source's {first_part[patient]} and "
        f'{part} parts. Split anew with config.data.split=random, or accept '
        'the leak with config.data.grouping=none'
      )


def check_patients(split: Split, catalogue: Catalogue) -> None:
  """Makes sure that no patient is in two parts, however they were made."""
  shared = shared_patients(split, catalogue)
  if shared:
    raise AssertionError(f'patients in two parts: {shared[:5]}')


def patients_by_part(split: Split, catalogue: Catalogue) -> dict[str, set[str]]:
  """The known patients of each part."""
  return {
    part: {catalogue.patients[i] for i in set(pairs[:, 0].tolist())} - {''}
    for part, pairs in split._asdict().items()
  }


def shared_patients(split: Split, catalogue: Catalogue) -> list[str]:
  """The patients that are in two parts or more."""
  by_part = patients_by_part(split, catalogue).values()
  return sorted(
    set().union(*(a & b for a, b in itertools.combinations(by_part, 2)))
  )
