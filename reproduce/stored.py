"""What is stored in results/, and how pages show it."""

import argparse
import functools
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

from leukemia_jax import devices
from leukemia_jax.reporting import pages
from leukemia_jax.workdir import result
from leukemia_jax.workdir.records import Result

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / 'results'


@functools.cache
def read(name: str) -> dict[str, Any]:
  """One result file."""
  return json.loads((RESULTS / f'{name}.json').read_text())


def store(name: str, content: dict[str, Any]) -> None:
  """Writes one result file."""
  text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
  (RESULTS / f'{name}.json').write_text(text)


def measured_here(name: str) -> str:
  """A speed's result file: a processor without matrix units has its own."""
  if devices.has_matrix_units():
    return name
  return re.sub(r'\W+', '_', f'{name} {devices.processor()}'.lower())


def add(name: str, key: str, content: dict[str, Any]) -> None:
  """Writes one entry of a speed's file, and leaves the others there."""
  name = measured_here(name)
  path = RESULTS / f'{name}.json'
  entries = json.loads(path.read_text()) if path.exists() else {}
  store(name, dict(sorted((entries | {key: content}).items())))


def measure_run(
  doc: str | None, name: str, measure: Callable[[pathlib.Path], dict[str, Any]]
) -> None:
  """The command line of a measure of a finished run, --run; stores its result.

  Args:
    doc: of the command.
    name: of the result file.
    measure: maps the run's workdir to what is stored.
  """
  parser = argparse.ArgumentParser(description=doc)
  parser.add_argument('--run', type=pathlib.Path, required=True)
  store(name, measure(parser.parse_args().run))


@functools.cache
def read_run(name: str) -> Result:
  """One result file of a run."""
  return result.from_json(read(name), Result, RESULTS / f'{name}.json')


def link(name: str, title: str, page: pathlib.Path) -> str:
  """A link from a page to a result file."""
  folder = 'results' if page.parent == ROOT else '../results'
  return f'[{title}]({folder}/{name})'


def with_interval(run: Result, name: str) -> str:
  """A score of a run in percent, with its interval."""
  assert run.intervals is not None
  low, high = map(pages.percent, run.intervals.ends[f'test.{name}'])
  return f'{pages.percent(getattr(run.test, name))} ({low} to {high})'
