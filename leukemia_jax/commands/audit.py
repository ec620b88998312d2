"""--mode=audit: how much of a score on a set can be believed."""

import collections
import concurrent.futures
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, progress
from leukemia_jax.audit import (
  duplicates,
  file_properties,
  leaks,
  probes,
  properties,
  verdict,
)
from leukemia_jax.audit.duplicates import Duplicates
from leukemia_jax.audit.file_properties import FileTraits
from leukemia_jax.audit.probes import DistancePoint, Folds, ProbeScore
from leukemia_jax.build import Inputs
from leukemia_jax.data import grouping, input_pipeline, protocols
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.input_pipeline import Everything
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError
from leukemia_jax.reporting import audit_page
from leukemia_jax.training import initial_weights
from leukemia_jax.transforms.colour import Removal
from leukemia_jax.workdir import audited, claim, result
from leukemia_jax.workdir.audited import Audit, FileRecord

_LISTED_SIZES = 5


class _Probed(NamedTuple):
  """What simple properties of a set reach.

  Attributes:
    folds: how they were tested; None if they can't be.
    problem: why, then; or why no score says anything.
    scores: by name of the property.
    distances: accuracy of colours by distance in file numbers.
  """

  folds: Folds | None
  problem: str
  scores: dict[str, ProbeScore]
  distances: list[DistancePoint]


class _Splits(NamedTuple):
  """What is searched for leaks.

  Attributes:
    splits: one, or those of folds; none if the set can't be split.
    from_source: whether it is the source's own.
    problem: why there is none.
  """

  splits: list[Split]
  from_source: bool
  problem: str


def run(
  config: ConfigDict, workdir: pathlib.Path, strict: bool = False
) -> None:
  """Audits a set: duplicates, leaks of its split, shortcuts to its labels.

  Args:
    config: the config; its split is what is searched for leaks, its groups and
      folds are those of the probes.
    workdir: where audit.json, audit.md, audit.html and duplicates.csv go.
    strict: whether serious findings end with an error.

  Raises:
    InputError: nothing can be read; workdir holds the audit of another set; or,
      if strict, a finding is serious.
  """
  config = initial_weights.resolve_auto(config, workdir)
  claim.check(workdir, 'train', config)
  inputs = build.inputs(config, 'classes')
  everything = input_pipeline.load_everything(inputs.spec)
  catalogue = everything.catalogue
  audited.check(workdir, config.data.source, catalogue.fingerprint)
  # What is taken out of all images makes them more alike.
  as_they_are = everything
  if inputs.spec.removal != Removal():
    spec = inputs.spec._replace(removal=Removal())
    as_they_are = input_pipeline.load_everything(spec)
  images = np.asarray(as_they_are.dataset.images)
  # A rendered set has no files.
  is_rendered = config.data.source == 'synthetic'
  traits = (
    [] if is_rendered else everything.read_files(file_properties.read_traits)
  )
  probed, split = _Probed(None, '', {}, []), _Splits([], False, '')
  # Beside each other: much of each is one core's.
  with concurrent.futures.ThreadPoolExecutor(1) as beside:
    compared = beside.submit(
      duplicates.find_duplicates,
      *(images, catalogue.pixel_hashes),
      seed=config.seed,
    )
    if catalogue.has_classes and len(catalogue.class_names) > 1:
      probed = _probe(inputs, everything, traits, config.seed)
      split = _split(inputs, catalogue)
    pairs = compared.result()
  audit = _describe(
    *(inputs, catalogue, pairs, split, probed, traits),
    cells_alone=config.data.unit == 'cell',
  )
  audited.write(workdir, audit, pairs, catalogue)
  page_images = images if build.shows_images(config) else None
  path = audit_page.write(workdir, audit, pairs, catalogue, page_images)
  print(progress.printable(audit.verdict))
  for finding in audit.findings:
    kind = 'serious' if finding.serious else 'note'
    print(progress.printable(f'{kind}: {finding.text}'))
  print(f'see {path}')
  if strict and audit.serious:
    raise InputError(f'--strict: serious findings: {audit.serious}; see {path}')


def _probe(
  inputs: Inputs, everything: Everything, traits: list[FileTraits], seed: int
) -> _Probed:
  """Scores properties of pixels, of files, and all of them together."""
  catalogue = everything.catalogue
  protocol = inputs.spec.protocol
  try:
    folds = probes.make_folds(inputs.keys.split, catalogue, protocol)
  except InputError as error:
    return _Probed(None, f'shortcuts are not probed: {error}', {}, [])
  measured = properties.measure(everything.dataset.images)
  if traits:
    measured['file'] = file_properties.as_features(traits)
  together = (*properties.OUTSIDE_CELLS, *(['file'] if traits else []))
  measured['together'] = probes.join([measured[name] for name in together])
  labels = catalogue.labels
  scores = probes.score_probes(
    measured, labels, len(catalogue.class_names), folds, seed=seed
  )
  distances = probes.distance_curve(
    measured['colour'],
    labels,
    grouping.in_file_order(catalogue),
    folds.interval_groups,
    seed=seed,
  )
  problem = ''
  if not probes.can_tell(labels, folds, len(scores), verdict.LEVEL):
    problem = (
      f'shortcuts cannot be told from chance: {folds.group}s are so few that '
      'even a property that tells every class could be chance'
    )
  return _Probed(folds, problem, scores, distances)


def _describe(
  inputs: Inputs,
  catalogue: Catalogue,
  pairs: Duplicates,
  split: _Splits,
  probed: _Probed,
  traits: list[FileTraits],
  *,
  cells_alone: bool,
) -> Audit:
  """Puts an audit together."""
  names = catalogue.class_names
  counted = None
  if split.splits:
    counted = leaks.count_leaks(split.splits, catalogue, pairs)
  masks = result.mask_record(inputs.spec, catalogue)
  findings = verdict.judge(
    *(catalogue, pairs, counted, {} if probed.problem else probed.scores),
    audit_page.TITLES,
    group=probed.folds.group if probed.folds else '',
    cells_alone=cells_alone,
    from_source=split.from_source,
    by_groups=inputs.spec.protocol.name in protocols.BY_GROUPS,
    mask_warnings=masks.warnings if masks else [],
    problems=[text for text in (split.problem, probed.problem) if text],
  )
  folds = probed.folds
  counts = np.bincount(catalogue.labels, minlength=len(names)).tolist()
  return Audit(
    source=audited.name_of(inputs.spec.source.source),
    fingerprint=catalogue.fingerprint,
    image_size=inputs.spec.image_size,
    images=len(catalogue.ids),
    classes=dict(zip(names, counts, strict=True))
    if catalogue.has_classes
    else {},
    patients=catalogue.num_patients,
    verdict=verdict.summarise(
      *(findings, counted),
      can_find_shortcuts=not probed.problem and bool(probed.scores),
      knows_patients=bool(catalogue.num_patients),
    ),
    serious=sum(finding.serious for finding in findings),
    findings=findings,
    duplicates=audited.count_duplicates(pairs),
    leaks=counted,
    chance=1 / len(counts) if probed.scores else None,
    majority=max(counts) / sum(counts) if probed.scores else None,
    probes=probed.scores,
    folds=len(folds.test) if folds else 0,
    groups=len(set(folds.interval_groups.tolist())) if folds else 0,
    group=folds.group if folds else '',
    distances=probed.distances,
    files=_file_record(traits) if traits else None,
    masks=masks.by_class if masks else {},
  )


def _split(inputs: Inputs, catalogue: Catalogue) -> _Splits:
  """The split of a run, those of its folds, or the source's own."""
  spec, protocol = inputs.spec, inputs.spec.protocol
  every = [protocol]
  if protocol.folds > 1 and protocol.fold < 0:
    every = [protocol._replace(fold=fold) for fold in range(protocol.folds)]
  try:
    if protocols.takes_source_parts(catalogue, protocol):
      return _Splits([protocols.source_split(catalogue)], True, '')
    splits = [
      input_pipeline.make_split(
        inputs.keys.split, catalogue, spec._replace(protocol=own)
      )
      for own in every
    ]
  except InputError as error:
    return _Splits([], False, f'leaks are not counted: {error}')
  return _Splits(splits, False, '')


def _file_record(traits: Sequence[FileTraits]) -> FileRecord:
  """Sums files up."""
  sizes = collections.Counter(f'{own.width} x {own.height}' for own in traits)
  frequent = dict(sizes.most_common(_LISTED_SIZES))
  qualities = sorted(own.quality for own in traits if own.quality)
  return FileRecord(
    formats=dict(collections.Counter(own.format for own in traits)),
    sizes=frequent,
    other_sizes=len(traits) - sum(frequent.values()),
    bytes=_range([own.bytes for own in traits]),
    quality=_range(qualities) if qualities else None,
    with_exif=sum(own.has_exif for own in traits),
    with_profile=sum(own.has_profile for own in traits),
  )


def _range(values: Sequence[int]) -> list[int]:
  """Smallest, median and largest."""
  return [min(values), int(np.median(values)), max(values)]
