"""What shortcuts tell of the real images, and what each measure leaves."""

import pathlib
from typing import Any

from leukemia_jax.reporting import audit_page, pages
from reproduce.rows import AUDITS, COUNTER_MEASURES
from reproduce.stored import link, read, read_run, with_interval

_PLAIN, _STUDY = 'audit_as_it_is', 'audit_study_protocol'
# The small network without a measure, under the same folds.
_NETWORK = 'real_contiguous_folds'


def _best(audit: dict[str, Any]) -> tuple[str, dict[str, Any]]:
  """The property that tells most, and what it reaches."""
  probes = audit['probes']
  name = max(probes, key=lambda n: probes[n]['balanced_accuracy'])
  return audit_page.TITLES[name], probes[name]


def _reached(probe: dict[str, Any]) -> str:
  ends = ' to '.join(map(pages.percent, probe['interval']))
  return f'{pages.percent(probe["balanced_accuracy"])} ({ends})'


def shortcuts(_: pathlib.Path) -> str:
  """What each property tells, as the images are and behind each measure."""
  audits = {
    title: read('audits')[name]['probes']
    for name, (title, _) in AUDITS.items()
    if name != _STUDY
  }
  plain = read('audits')[_PLAIN]['probes']
  cells = [
    [
      audit_page.TITLES[name],
      _reached(plain[name]),
      *(
        pages.percent(probes[name]['balanced_accuracy'])
        for title, probes in audits.items()
        if probes is not plain
      ),
    ]
    for name in plain
  ]
  return pages.table(['balanced accuracy, %', *audits], cells)


def best_behind(run: str) -> str:
  """The best shortcut to the images that a run was trained on."""
  audits = read('audits')
  # Augmentation leaves the images as they are.
  audit = audits.get(run.replace('real_', 'audit_'), audits[_PLAIN])
  title, probe = _best(audit)
  return f'{title}: {pages.percent(probe["balanced_accuracy"])}'


def counter_measures(page: pathlib.Path) -> str:
  """The small network behind each measure, beside the best shortcut there."""
  title, probe = _best(read('audits')[_PLAIN])
  cells = [[f'best shortcut: {title}', _reached(probe), '-', '-']]
  runs = {_NETWORK: ('as they are', ()), **COUNTER_MEASURES}
  for name, (measure, _) in runs.items():
    run = read_run(name)
    cells.append(
      [
        link(f'{name}.json', f'small network, {measure}', page),
        with_interval(run, 'balanced_accuracy'),
        pages.percent(run.class_scores('test').worst_class_recall),
        best_behind(name),
      ]
    )
  header = [
    'five contiguous folds, embargo of 37 files',
    'balanced accuracy, %',
    'worst class recall, %',
    'best shortcut behind the measure, %',
  ]
  return pages.table(header, cells)


def twins() -> dict[str, str]:
  """Test images of the study's own protocol that training knows."""
  leaks = read('audits')[_STUDY]['leaks']
  return {
    'test': str(leaks['test_images']),
    'any': str(leaks['any']),
    'share': pages.percent(leaks['share']),
    'copies': str(leaks['copies']),
    'copies share': pages.percent(leaks['copies'] / leaks['test_images']),
  }
