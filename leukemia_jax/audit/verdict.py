"""What an audit says in plain words: findings, the serious ones first."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from leukemia_jax.audit import properties
from leukemia_jax.audit.duplicates import KINDS, Duplicates, Pair
from leukemia_jax.audit.leaks import Leaks
from leukemia_jax.audit.probes import ProbeScore
from leukemia_jax.data.dataset import Catalogue

# Of p-values, below which a property is above chance.
LEVEL = 0.05
# What serious findings of a kind mean.
_SERIOUS = {
  'labels': 'labels contradict each other',
  'leak': 'test images are known from training',
  'shortcut': 'simple properties tell the class',
}
# Above chance by more is worth a note, or serious; and a share of leaked test
# images.
NOTED_SHORTCUT, _SERIOUS_SHORTCUT, _SERIOUS_LEAK = 0.02, 0.1, 0.01
# Files or pairs that a finding names.
_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something that a reader of scores should know.

  Attributes:
    kind: 'labels', 'leak', 'shortcut', 'duplicate', 'split', 'files' or
      'masks'.
    serious: whether scores can't be believed with it.
    text: one sentence or two, with what helps.
  """

  kind: str
  serious: bool
  text: str


def judge(
  catalogue: Catalogue,
  duplicates: Duplicates,
  leaks: Leaks | None,
  probes: Mapping[str, ProbeScore],
  titles: Mapping[str, str],
  *,
  group: str,
  cells_alone: bool,
  from_source: bool,
  by_groups: bool,
  mask_warnings: Sequence[str],
  problems: Sequence[str],
) -> list[Finding]:
  """Puts an audit into words.

  Args:
    catalogue: of the set.
    duplicates: of the set.
    leaks: of its splits; None if it can't be split.
    probes: by name, the best first; none without classes.
    titles: of the probes, by name.
    group: what folds of the probes keep together, in words.
    cells_alone: whether an image shows one cell, whose colour and size are no
      shortcut.
    from_source: whether the split is the source's own.
    by_groups: whether it keeps groups together, see `config.data.protocol`.
    mask_warnings: see `data.masks.warnings`.
    problems: why the set can't be split, or probed.

  Returns:
    The findings, serious ones first.
  """
  every = [
    *_labels(catalogue, duplicates),
    *(_leaks(leaks, from_source, by_groups) if leaks else ()),
    *_shortcuts(probes, titles, len(catalogue.class_names), group, cells_alone),
    *_duplicates(duplicates),
    *(Finding('split', False, text) for text in problems),
    *_files(catalogue),
    *_masks(catalogue, mask_warnings),
  ]
  return sorted(every, key=lambda finding: not finding.serious)


def summarise(
  findings: Sequence[Finding],
  leaks: Leaks | None,
  *,
  can_find_shortcuts: bool,
  knows_patients: bool,
) -> str:
  """The verdict in one sentence.

  Args:
    findings: from `judge`.
    leaks: see `judge`.
    can_find_shortcuts: whether properties were probed, in groups enough.
    knows_patients: whether it is known whose images are.

  Returns:
    What is serious; or what was looked for in vain, and what was not.
  """
  serious = [_SERIOUS[f.kind] for f in findings if f.serious]
  if serious:
    return f'Serious: {" and ".join(dict.fromkeys(serious))}.'
  kinds = {finding.kind for finding in findings}
  examined = {
    'leak': leaks is not None,
    'shortcut': can_find_shortcuts,
    'duplicate': True,
  }
  clean, noted, unknown = [], [], []
  for kind, is_examined in examined.items():
    if not is_examined:
      unknown.append(f'{kind}s')
    elif kind in kinds:
      noted.append(f'{kind}s')
    else:
      clean.append(f'no {kind}')
  if not knows_patients:
    unknown.append('patients')
  # Duplicates alone make no set clean.
  says_much = examined['leak'] or examined['shortcut']
  first = 'Clean' if clean else 'Nothing serious'
  if not says_much:
    first = 'Not examined enough'
  text = f'{first}: {", ".join(clean)}'.rstrip(': ')
  if noted:
    text += f'; to be looked at: {", ".join(noted)}'
  if unknown:
    text += f'; not examined: {", ".join(unknown)}'
  return text + '.'


def _paths(catalogue: Catalogue, pairs: Sequence[Pair]) -> str:
  listed = [
    f'{catalogue.ids[p.first]} = {catalogue.ids[p.second]}'
    for p in pairs[:_LISTED]
  ]
  return ', '.join(listed) + (', ...' if len(pairs) > _LISTED else '')


def _labels(catalogue: Catalogue, duplicates: Duplicates) -> Iterator[Finding]:
  if catalogue.conflicts:
    yield Finding(
      'labels',
      True,
      f'{len(catalogue.conflicts)} images stand in several classes: '
      f'{"; ".join(catalogue.conflicts[:3])}. They are left out here; remove '
      'the wrong ones, or train with config.data.on_bad_image=skip',
    )
  labels = catalogue.labels
  contradictory = [
    pair
    for pair in duplicates.near
    if labels[pair.first] != labels[pair.second]
  ]
  if contradictory:
    yield Finding(
      'labels',
      True,
      f'{len(contradictory)} pairs of nearly equal images are of two classes: '
      f'{_paths(catalogue, contradictory)}. One of '
      'the labels is probably wrong',
    )


def _leaks(
  leaks: Leaks, from_source: bool, by_groups: bool
) -> Iterator[Finding]:
  anew = (
    'config.data.split=random splits anew and keeps patients and equal images '
    'together'
  )
  group = 'config.data.grouping=record'
  if not by_groups:
    group = 'config.data.protocol=split_then_balance'
  if leaks.patients:
    yield Finding(
      'leak',
      True,
      f'{leaks.patients} patients of the test part are in another part too. '
      + (anew if from_source else f'{group} keeps them apart'),
    )
  kinds = {
    'a copy of the same image': leaks.copies,
    'an equal image': leaks.twins,
    'a nearly equal image': leaks.near_twins,
  }
  counted = ', '.join(f'{n} {kind}' for kind, n in kinds.items() if n)
  advice = []
  if from_source and (leaks.twins or not leaks.near_twins):
    advice.append(anew)
  if leaks.copies:
    advice.append(
      'config.data.protocol=split_then_balance splits before it copies'
    )
  if leaks.twins and not from_source:
    advice.append(f'{group} keeps equal images together')
  if leaks.near_twins:
    split = 'config.data.split=random ' if from_source else ''
    advice.append(
      f'{split}config.data.grouping=blocks keeps files together that lie side '
      'by side'
    )
  if counted:
    yield Finding(
      'leak',
      leaks.share >= _SERIOUS_LEAK,
      f'{leaks.any} of {leaks.test_images} test images ({leaks.share:.1%}) '
      f'have a twin in the training part: {counted}. {"; ".join(advice)}',
    )


def _shortcuts(
  probes: Mapping[str, ProbeScore],
  titles: Mapping[str, str],
  num_classes: int,
  group: str,
  cells_alone: bool,
) -> Iterator[Finding]:
  chance = 1 / num_classes
  above = {
    name: score
    for name, score in probes.items()
    if score.p_value < LEVEL
    and score.balanced_accuracy > chance + NOTED_SHORTCUT
  }
  strong = [
    name
    for name, score in above.items()
    if score.balanced_accuracy > chance + _SERIOUS_SHORTCUT
    and not (cells_alone and name in properties.OF_CELLS)
  ]
  weak = [name for name in above if name not in strong]
  remembered = (
    '. No patients are known: part of it may be recognising a patient or slide '
    'again (config.data.patient, or config.data.grouping=blocks)'
    if group == 'image'
    else ''
  )
  for names in (strong, weak):
    if not names:
      continue
    listed = []
    for name in names:
      words = f'{titles[name]} {above[name].balanced_accuracy:.2f}'
      if ends := above[name].interval:
        words += f' ({ends[0]:.2f} to {ends[1]:.2f})'
      listed.append(words)
    yield Finding(
      'shortcut',
      names is strong,
      'A balanced accuracy above chance '
      f'({chance:.2f}) is reached without the shape of a cell, by '
      f'{", ".join(listed)}. Read the score of a network beside the best of '
      f'these{remembered}',
    )


def _duplicates(duplicates: Duplicates) -> Iterator[Finding]:
  counted = ', '.join(
    f'{len(pairs)} {KINDS[kind]}'
    for kind, pairs in duplicates.by_kind.items()
    if pairs
  )
  if counted:
    yield Finding(
      'duplicate', False, f'Pairs of images that show the same: {counted}'
    )


def _files(catalogue: Catalogue) -> Iterator[Finding]:
  for text in catalogue.notes.warnings:
    yield Finding('files', False, text)
  if catalogue.bad_images:
    yield Finding(
      'files',
      False,
      f'{len(catalogue.bad_images)} images cannot be used: '
      f'{"; ".join(catalogue.bad_images[:_LISTED])}',
    )


def _masks(catalogue: Catalogue, warnings: Sequence[str]) -> Iterator[Finding]:
  if catalogue.bad_masks:
    yield Finding(
      'masks',
      False,
      f'{len(catalogue.bad_masks)} masks cannot be used: '
      f'{"; ".join(catalogue.bad_masks[:_LISTED])}',
    )
  for text in warnings:
    yield Finding('masks', False, text)
