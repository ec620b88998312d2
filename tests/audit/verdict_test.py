"""What is said of an audit, and what is not said."""

import dataclasses

import conftest

from leukemia_jax.audit import verdict
from leukemia_jax.audit.duplicates import Duplicates, Pair
from leukemia_jax.audit.leaks import Leaks
from leukemia_jax.audit.probes import ProbeScore
from leukemia_jax.audit.verdict import Finding

NOTHING = Duplicates([], [], [], 0.55)
TITLES = {
  'cell_colour': 'colour of cells',
  'colour': 'colour of the image',
  'file': 'file size',
}
NO_LEAK = Leaks(400, 0, 0, 0, 0, 0.0, 0)


def judge(
  duplicates=NOTHING,
  leaks=NO_LEAK,
  probes=None,
  problems=(),
  cells_alone=False,
  by_groups=True,
  from_source=False,
  **changes,
) -> list[verdict.Finding]:
  catalogue = dataclasses.replace(conftest.catalogue([0, 0, 1, 1]), **changes)
  return verdict.judge(
    *(catalogue, duplicates, leaks, probes or {}, TITLES),
    group='patient',
    cells_alone=cells_alone,
    from_source=from_source,
    by_groups=by_groups,
    mask_warnings=[],
    problems=problems,
  )


def summarise(findings, leaks=NO_LEAK, shortcuts=True, patients=True) -> str:
  return verdict.summarise(
    findings, leaks, can_find_shortcuts=shortcuts, knows_patients=patients
  )


def test_clean_is_said_of_what_was_examined_alone():
  everything = summarise(judge())
  assert everything == 'Clean: no leak, no shortcut, no duplicate.'
  nothing = summarise(judge(leaks=None), None, False, False)
  assert nothing == (
    'Not examined enough: no duplicate; not examined: leaks, shortcuts, '
    'patients.'
  )
  few = dataclasses.replace(NO_LEAK, twins=3, any=3, share=3 / 400)
  said = summarise(judge(leaks=few), few)
  assert said == 'Clean: no shortcut, no duplicate; to be looked at: leaks.'


def test_duplicates_are_not_said_to_be_none():
  findings = judge(NOTHING._replace(exact=[Pair(0, 1, 1.0)]))
  said = summarise(findings)
  assert said == 'Clean: no leak, no shortcut; to be looked at: duplicates.'


def test_what_is_serious_comes_first():
  many = dataclasses.replace(NO_LEAK, copies=40, any=40, share=0.1)
  probes = {
    'colour': ProbeScore(0.9, [0.8, 0.95], 0.001, 5),
    'file': ProbeScore(0.55, [0.51, 0.6], 0.01, 5),
  }
  pairs = NOTHING._replace(near=[Pair(0, 2, 0.9)])
  findings = judge(pairs, many, probes, ['too few'])
  serious = [own.kind for own in findings if own.serious]
  assert serious == ['labels', 'leak', 'shortcut']
  assert [own.serious for own in findings[:4]] == [True, True, True, False]
  said = summarise(findings, many)
  assert said.startswith(
    'Serious: labels contradict each other and test images'
  )
  text = ' '.join(own.text for own in findings)
  assert 'colour of the image 0.90 (0.80 to 0.95)' in text
  assert 'config.data.protocol=split_then_balance' in text
  assert 'too few' in text


def test_chance_is_no_finding():
  probes = {'colour': ProbeScore(0.9, [0.8, 0.95], 0.06, 5)}
  assert not judge(probes=probes)


def test_conflicts_are_listed():
  (finding,) = judge(conflicts=('a.png (x) = b.png (y)',))
  assert finding.serious and 'a.png (x) = b.png (y)' in finding.text


def test_the_colour_of_a_cell_is_no_shortcut_where_an_image_is_a_cell():
  probes = {'cell_colour': ProbeScore(0.9, [0.8, 0.95], 0.001, 2)}
  (of_fields,) = judge(probes=probes)
  (of_cells,) = judge(probes=probes, cells_alone=True)
  assert of_fields.serious and not of_cells.serious


def test_a_set_is_not_clean_where_every_check_has_something_to_say():
  noted = [
    Finding(kind, False, '') for kind in ('leak', 'shortcut', 'duplicate')
  ]
  assert summarise(noted, NO_LEAK) == (
    'Nothing serious; to be looked at: leaks, shortcuts, duplicates.'
  )


def test_advice_is_of_what_helps():
  shared = dataclasses.replace(NO_LEAK, patients=3)
  (by_groups,), (copied,) = (
    judge(leaks=shared, by_groups=own) for own in (True, False)
  )
  assert 'config.data.grouping=record keeps' in by_groups.text
  # Without groups a grouping changes nothing.
  assert 'config.data.protocol=split_then_balance keeps' in copied.text


def test_near_twins_of_a_sources_parts_are_not_sent_to_be_torn_apart_again():
  near = dataclasses.replace(NO_LEAK, near_twins=40, any=40, share=0.1)
  (finding,) = judge(leaks=near, from_source=True)
  assert 'config.data.split=random config.data.grouping=blocks' in finding.text
  assert 'splits anew' not in finding.text
  equal = dataclasses.replace(NO_LEAK, twins=40, any=40, share=0.1)
  (finding,) = judge(leaks=equal, from_source=True)
  assert 'config.data.split=random splits anew' in finding.text
