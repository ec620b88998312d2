"""The page of a comparison of two runs."""

import pathlib

from leukemia_jax.evaluation.comparison import Comparison
from leukemia_jax.reporting import pages

_TITLES = {
  'balanced_accuracy': 'balanced accuracy',
  'accuracy': 'accuracy',
  'macro_f1': 'macro F1',
  'dice': 'Dice',
  'iou': 'IoU',
  'mean_dice': 'mean Dice',
}


def verdict(comparison: Comparison) -> str:
  """Which run is ahead, in one sentence, by the first of the scores."""
  name, score = next(iter(comparison.scores.items()))
  title = _TITLES[name]
  first, second = comparison.runs
  points = 100 * score.difference
  if not any(own.difference for own in comparison.scores.values()):
    return f'{first} and {second} cannot be told apart: no score differs.'
  if score.interval_95 is None:
    return (
      f'{first} and {second} differ by {points:+.1f} points of {title}; how '
      'sure that is cannot be said with so few groups.'
    )
  low, high = (100 * end for end in score.interval_95)
  interval = f'95 % interval {low:+.1f} to {high:+.1f}'
  if low <= 0 <= high:
    return (
      f'{first} and {second} cannot be told apart: {points:+.1f} points of '
      f'{title}, {interval}.'
    )
  if points > 0:
    return (
      f'{first} is ahead of {second} by {points:.1f} points of {title}, '
      f'{interval}.'
    )
  interval = f'95 % interval {-high:+.1f} to {-low:+.1f}'
  return (
    f'{second} is ahead of {first} by {-points:.1f} points of {title}, '
    f'{interval}.'
  )


def write(workdir: pathlib.Path, comparison: Comparison) -> pathlib.Path:
  """Writes compare.md and compare.html.

  Args:
    workdir: where they go.
    comparison: of two runs.

  Returns:
    The path of compare.md.
  """
  rows = []
  for name, score in comparison.scores.items():
    ends = score.interval_95
    rows.append(
      [
        _TITLES[name],
        pages.percent(score.first),
        pages.percent(score.second),
        f'{100 * score.difference:+.1f}',
        f'{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}' if ends else '-',
      ]
    )
  names = list(map(pages.literal, comparison.runs))
  header = ['%', *names, f'{names[0]} - {names[1]}', '95 % interval']
  context = {
    'comparison': comparison,
    'verdict': verdict(comparison),
    'header': header,
    'rows': rows,
  }
  return pages.write(workdir, 'compare.md', context, {}, name='compare')
