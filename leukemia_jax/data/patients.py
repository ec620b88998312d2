"""Whose an image is: from a table, a folder, or the path."""

import collections
import re
from collections.abc import Sequence

from leukemia_jax.data import levels, names
from leukemia_jax.data.levels import Image
from leukemia_jax.data.tables import Joined
from leukemia_jax.errors import InputError


def assign(
  images: list[Image], wanted: str, joined: Joined | None
) -> tuple[str, list[str]]:
  """Gives images their patients.

  Args:
    images: of the set, with their classes; changed in place.
    wanted: `config.data.patient`.
    joined: what tables say.

  Returns:
    Where the patients come from, '' if none is known; and warnings.

  Raises:
    InputError: what is wanted doesn't fit the set.
  """
  table = {}
  if joined is not None and 'patient' in joined.columns:
    table = {path: row.patient for path, row in joined.by_path.items()}
  if not wanted:
    return '', []
  if wanted == 'auto':
    return _auto_patients(images, table, joined)
  if wanted == 'folder':
    others = levels.other_levels(images)
    if len(others) != 1:
      raise InputError(_which_folder(images, others))
    _take_level(images, others[0])
    return 'folders', _partly_known(images)
  if match := re.fullmatch(r'folder:([1-9]\d*)', wanted):
    number = int(match[1])
    for image in images:
      above = image.path.split('/')[:-1]
      if len(above) < number:
        raise InputError(
          f'config.data.patient={wanted}: {image.path} lies in {len(above)} '
          'folders; give a lower number or a regular expression'
        )
      image.patient = names.normalise(above[number - 1])
    return f'folder {number} of the path', _partly_known(images)
  # It is of the table's column where there is one, which may be empty.
  has_column = any(table.values())
  texts = [
    table.get(image.path, '') if has_column else image.path for image in images
  ]
  patients = [names.search(wanted, text) or '' for text in texts]
  misses = [
    text
    for text, patient in zip(texts, patients, strict=True)
    if text and not patient
  ]
  if misses:
    raise InputError(
      f'config.data.patient={wanted!r} is not found in {len(misses)} of '
      f'{len(images)} {"cells" if has_column else "paths"}: '
      f'{levels.listed(misses)}. Mend it, or give '
      "config.data.patient='' for none"
    )
  for image, patient in zip(images, patients, strict=True):
    image.patient = patient
  return 'config.data.patient', _without_patient(images)


def _auto_patients(
  images: list[Image], table: dict[str, str], joined: Joined | None
) -> tuple[str, list[str]]:
  """The table's patients, else a folder level that is clearly of patients."""
  if any(table.values()):
    assert joined is not None
    column = joined.columns['patient']
    if not all(names.is_image(text) for text in table.values() if text):
      for image in images:
        image.patient = table.get(image.path, '')
      return f'column {column!r}', _without_patient(images)
    return '', [
      f'column {column!r} holds file names, so no patients are known: give '
      'config.data.patient, a regular expression with one group, such as '
      f'{_suggest(list(table.values()))}'
    ]
  level = levels.patient_level(images)
  if level is not None:
    _take_level(images, level)
    return 'folders', _partly_known(images)
  others = levels.other_levels(images)
  if others:
    return '', [_which_folder(images, others)]
  stems = [names.stem(image.path) for image in images]
  if names.are_patients(stems):
    return '', [
      'file names hold what may be a patient: if so, give config.data.patient, '
      f'a regular expression with one group, such as {_suggest(stems)}'
    ]
  return '', []


def _suggest(texts: Sequence[str]) -> str:
  """A regular expression that may find patients in names."""
  stem = names.stem(texts[0])
  whole = '([^_]+)_' if '_' in stem else r'([^/]+)\.[^.]+$'
  return f"'{names.patient_pattern(stem) or whole}'"


def _without_patient(images: list[Image]) -> list[str]:
  """Warns where some images have no patient."""
  without = [image.path for image in images if not image.patient]
  if not without:
    return []
  return [
    f'{len(without)} of {len(images)} images have no patient, such as '
    f'{without[0]}, and each counts as a patient of its own: give all, or '
    'config.data.patient, which may find them by a regular expression'
  ]


def _partly_known(images: list[Image]) -> list[str]:
  """Warns where some images have no patient, or names may be reused."""
  warnings = _without_patient(images)
  labels: dict[str, set[str]] = collections.defaultdict(set)
  for image in images:
    if image.patient:
      labels[image.patient].add(_class_above(image))
  shared = [patient for patient, own in labels.items() if len(own) > 1]
  # Numbers begin anew; of other names all do, or few are of both classes.
  if len(shared) < len(labels) or not all(map(names.has_digit, shared)):
    shared = [patient for patient in shared if patient.isdecimal()]
  if shared:
    warnings.append(
      f'the patients {levels.listed(shared)} have images of several '
      'classes: if numbers begin anew in each class, give '
      "config.data.patient='([^/]+/[^/]+)/[^/]+$'"
    )
  return warnings


def _class_above(image: Image) -> str:
  """The class, if its folder holds the patient's; else ''."""
  folders = [names.fold(name) for name in image.folders]
  patient, label = names.fold(image.patient), names.fold(image.label)
  if patient not in folders or label not in folders:
    return ''
  is_above = folders.index(label) < folders.index(patient)
  return label if is_above else ''


def _take_level(images: list[Image], level: int) -> None:
  for image in images:
    if len(image.folders) > level:
      image.patient = image.folders[level]


def _which_folder(images: list[Image], others: list[int]) -> str:
  """Says which folders may be patients, by number from the top of the path."""
  choices = []
  for level in others:
    inner = [im for im in images if len(im.folders) > level]
    level_names = {image.folders[level] for image in inner}
    if number := levels.number(inner[0], level):
      choices.append(
        f'config.data.patient=folder:{number} ({levels.listed(level_names)})'
      )
  if not choices:
    return (
      'config.data.patient=folder: there is no folder level besides classes '
      "and parts; give a regular expression, or '' for none"
    )
  return (
    'folders are read as neither class, part nor patient. If one level is of '
    f'patients, give {" or ".join(choices)}'
  )


def spell_alike(images: list[Image]) -> None:
  """Patients are compared without case: the first spelling counts."""
  first: dict[str, str] = {}
  for image in images:
    if image.patient:
      image.patient = first.setdefault(names.fold(image.patient), image.patient)
