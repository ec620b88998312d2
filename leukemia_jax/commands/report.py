"""What train and evaluate end with: result.json, the report, one line."""

import pathlib

from leukemia_jax.evaluation.scored import Scored
from leukemia_jax.reporting import run_page
from leukemia_jax.tasks import Page
from leukemia_jax.workdir import result
from leukemia_jax.workdir.result import Result


def write_report(
  workdir: pathlib.Path, finished: Result, page: Page, scored: Scored | None
) -> pathlib.Path:
  """Draws a result.

  Args:
    workdir: of the run.
    finished: its result.
    page: of its task.
    scored: what was scored, right after scoring; else figures that need it are
      left as they are.

  Returns:
    The path of report.md.
  """
  return run_page.write(
    workdir,
    finished,
    template=page.template,
    context=page.context(finished),
    drawn=page.figures(finished, scored),
  )


def finish(
  workdir: pathlib.Path, finished: Result, page: Page, scored: Scored
) -> None:
  """Writes result.json and the report, and prints the score that counts."""
  result.write(workdir, finished)
  path = write_report(workdir, finished, page, scored)
  print(f'{page.headline(finished)}; see {path}')
