"""--mode=report: writes the pages of a finished run again."""

import pathlib

from ml_collections import ConfigDict

from leukemia_jax import build, files, tasks
from leukemia_jax.errors import InputError
from leukemia_jax.lock import lock_folder, lock_run
from leukemia_jax.reporting import study_page
from leukemia_jax.workdir import CONFIG, RESULT, ROWS, claim, result

# Modes whose pages are written from what they stored.
_WITH_RESULT = ('train', 'evaluate', 'study')


def run(workdir: pathlib.Path) -> None:
  """Writes the pages of a finished run again, from what lies in its folder.

  Args:
    workdir: of a training run, cross-validation, evaluation or study. Figures
      of images that were drawn right after scoring stay as they are.

  Raises:
    InputError: no such run is there, or none is finished.
  """
  path = workdir / CONFIG
  content = files.read_json(path)
  claim.check_format(content, path)
  with lock_run(workdir):
    if content.get('mode') == 'study' and any((workdir / ROWS).glob('*.json')):
      named = content['study']['segmentation']
      segmenters = study_page.read_segmenters(named)
      # A study that is at work writes it too.
      with lock_folder(workdir):
        page, _ = study_page.write(workdir, segmenters)
    elif (workdir / RESULT).exists():
      finished = result.read(workdir)
      task = tasks.for_model(finished.model.name)
      shows_images = build.shows_images(ConfigDict(content))
      page = tasks.write_report(task, workdir, finished, shows_images)
    elif content.get('mode') not in _WITH_RESULT:
      raise InputError(
        f'--workdir={workdir} holds what --mode={content.get("mode")} wrote: '
        'its pages are there, or come when the same command is given again'
      )
    else:
      raise InputError(
        f'{workdir} holds no finished training run, evaluation or study; '
        'give the same command again to finish it'
      )
  print(f'see {page}')
