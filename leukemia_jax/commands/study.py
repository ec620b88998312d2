"""--mode=study: trains what is missing of a study, and writes its tables."""

import pathlib

from ml_collections import ConfigDict

from leukemia_jax.lock import lock_folder
from leukemia_jax.reporting import study_page
from leukemia_jax.study import runner


def run(config: ConfigDict, workdir: pathlib.Path) -> None:
  """Trains what is missing of a study, and writes its tables.

  Args:
    config: the study; `config.study.row` asks for one row alone.
    workdir: where rows/ and the tables go. Several processes may share it, each
      with rows of its own. Finished rows are left as they are.

  Raises:
    InputError: the data, the weights or the workdir can't be used.
  """
  segmenters = study_page.read_segmenters(config.study.segmentation)
  count = runner.run(config, workdir)
  with lock_folder(workdir):
    path, winner = study_page.write(workdir, segmenters)
  print(f'{count} rows are finished; see {path}\nbest by validation: {winner}')
