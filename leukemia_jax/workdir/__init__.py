"""A run on disk: who owns the folder, checkpoints, the result."""

import pathlib

CONFIG = 'config.json'
SPLIT = 'split.json'
METRICS = 'metrics.jsonl'
RESULT = 'result.json'
LATEST = 'checkpoints/latest'
BEST = 'checkpoints/best'
ROWS = 'rows'


def config_of(workdir: pathlib.Path) -> pathlib.Path | None:
  """The config.json of a run that has begun, or of its first fold."""
  paths = workdir / CONFIG, workdir / 'fold-0' / CONFIG
  return next((path for path in paths if path.exists()), None)
