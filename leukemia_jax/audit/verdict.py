"""What an audit says in plain words: findings, the serious ones first."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from leukemia_jax.audit.duplicates import Duplicates, Pair
from leukemia_jax.audit.leaks import Leaks
from leukemia_jax.audit.probes import ProbeScore
from leukemia_jax.data.dataset import Catalogue

_LEVEL = 0.05
# What serious findings of a kind mean.
_SERIOUS = {
  'labels': 'labels contradict each other',
  'leak': 'test images are known from training',
  'shortcut': 'simple properties tell the class',
}
# Above chance by more is serious; a share of leaked test images, likewise.
_SERIOUS_SHORTCUT, _SERIOUS_LEAK = 0.1, 0.01


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something that a reader of scores should know.

  Attributes:
    kind: 'labels', 'leak', 'shortcut', 'duplicates', 'split', 'files' or
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
  mask_warnings: Sequence[str],
  split_problem: str,
) -> list[Finding]:
  """Puts an audit into words.

  Args:
    catalogue: of the set.
    duplicates: of the set.
    leaks: of its splits; None if it can't be split.
    probes: by name; none without classes.
    titles: of the probes, by name.
    mask_warnings: see `data.masks.warnings`.
    split_problem: why the set can't be split, if it can't.

  Returns:
    The findings, serious ones first.
  """
  every = [
    *_labels(catalogue, duplicates),
    *(_leaks(leaks) if leaks else ()),
    *_shortcuts(probes, titles, len(catalogue.class_names)),
    *_duplicates(duplicates),
    *([Finding('split', False, split_problem)] if split_problem else ()),
    *_files(catalogue),
    *(Finding('masks', False, text) for text in mask_warnings),
  ]
  return sorted(every, key=lambda finding: not finding.serious)


def summarise(findings: Sequence[Finding]) -> str:
  """The verdict in one sentence."""
  serious = [_SERIOUS[f.kind] for f in findings if f.serious]
  if serious:
    return f'Serious: {" and ".join(dict.fromkeys(serious))}.'
  if findings:
    return 'Clean: no leak and no strong shortcut; see the notes.'
  return 'Clean: no leak, no shortcut and no duplicate.'


def _paths(catalogue: Catalogue, pairs: Sequence[Pair], most: int = 3) -> str:
  listed = [
    f'{catalogue.ids[p.first]} = {catalogue.ids[p.second]}' for p in pairs
  ]
  more = ', ...' if len(listed) > most else ''
  return ', '.join(listed[:most]) + more


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
      f'{_paths(catalogue, contradictory)}. One label of each is wrong',
    )


def _leaks(leaks: Leaks) -> Iterator[Finding]:
  if leaks.patients:
    yield Finding(
      'leak',
      True,
      f'{leaks.patients} patients are in two parts of the split: the test part '
      'holds patients that were trained on. config.data.grouping=record keeps '
      'them together',
    )
  kinds = {
    'a copy of the same image': leaks.copies,
    'an equal image': leaks.twins,
    'a nearly equal image': leaks.near_twins,
  }
  counted = ', '.join(f'{n} {kind}' for kind, n in kinds.items() if n)
  advice = []
  if leaks.copies:
    advice.append(
      'config.data.protocol=split_then_balance splits before it copies'
    )
  if leaks.twins:
    advice.append('config.data.grouping=record keeps equal images together')
  if leaks.near_twins:
    advice.append(
      'config.data.grouping=blocks keeps files together that lie side by side'
    )
  if counted:
    yield Finding(
      'leak',
      leaks.share >= _SERIOUS_LEAK,
      f'{leaks.any} of {leaks.test_images} test images ({leaks.share:.1%}) '
      f'have a twin in the training part: {counted}. {"; ".join(advice)}',
    )


def _shortcuts(
  probes: Mapping[str, ProbeScore], titles: Mapping[str, str], num_classes: int
) -> Iterator[Finding]:
  chance = 1 / num_classes
  above = {
    name: score
    for name, score in probes.items()
    if score.p_value < _LEVEL and score.balanced_accuracy > chance
  }
  ranked = sorted(above, key=lambda name: -above[name].balanced_accuracy)
  strong = [
    name
    for name in ranked
    if above[name].balanced_accuracy > chance + _SERIOUS_SHORTCUT
  ]
  weak = [name for name in ranked if name not in strong]
  for names in (strong, weak):
    if not names:
      continue
    listed = []
    for name in names:
      low, high = above[name].interval
      score = above[name].balanced_accuracy
      listed.append(f'{titles[name]} {score:.2f} ({low:.2f} to {high:.2f})')
    yield Finding(
      'shortcut',
      names is strong,
      'A balanced accuracy above chance '
      f'({chance:.2f}) is reached without the shape of a cell, by '
      f'{", ".join(listed)}. Read the score of a network beside the best of '
      'these',
    )


def _duplicates(duplicates: Duplicates) -> Iterator[Finding]:
  counts = {
    'equal': len(duplicates.exact),
    'turned or mirrored': len(duplicates.oriented),
    'nearly equal': len(duplicates.near),
  }
  counted = ', '.join(f'{n} {kind}' for kind, n in counts.items() if n)
  if counted:
    yield Finding(
      'duplicates', False, f'Pairs of images that show the same: {counted}'
    )


def _files(catalogue: Catalogue) -> Iterator[Finding]:
  if catalogue.bad_images:
    yield Finding(
      'files',
      False,
      f'{len(catalogue.bad_images)} images cannot be used: '
      f'{"; ".join(catalogue.bad_images[:3])}',
    )
