"""What a run left behind, read again: config, split, weights."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from leukemia_jax import build, files
from leukemia_jax.config_check import check_config
from leukemia_jax.config_keys import IMAGENET, RANDOM
from leukemia_jax.data.dataset import Catalogue
from leukemia_jax.data.splits import PARTS, Split
from leukemia_jax.errors import InputError
from leukemia_jax.workdir import BEST, CONFIG, SPLIT, checkpoint, result
from leukemia_jax.workdir.claim import FORMAT, check_format
from leukemia_jax.workdir.records import Result


def read_config(workdir: pathlib.Path) -> ConfigDict:
  """The config of a training run.

  Args:
    workdir: of the run.

  Returns:
    The config, checked.

  Raises:
    InputError: there is none, it is another command's, damaged, or of another
      version.
  """
  path = workdir / CONFIG
  content = files.read_json(path)
  check_format(content, path)
  mode = content.pop('mode', '')
  if mode == 'study':
    raise InputError(
      f'{workdir} is a study: it stores scores of heads, not their weights. '
      'Give the workdir of a training run: under config.data.protocol='
      'balance_then_split one with config.train.freeze_backbone=True and the '
      'weights, rate and dropout of a row trains the same head'
    )
  if mode != 'train':
    raise InputError(f'{path} is not that of a training run')
  del content['format']
  # Keys that 0.5.0 knew nothing of.
  content.setdefault('mesh', {'devices': 1})
  if isinstance(content.get('data'), dict):
    content['data'].setdefault('stream', False)
  data = content.get('data')
  if (
    isinstance(data, dict)
    and data.get('folds', 1) != 1
    and (data.get('fold') == -1)
  ):
    raise InputError(
      f'{workdir} is a cross-validation, which has a model for each fold: give '
      f'one of them, such as {workdir}/fold-0'
    )
  try:
    config = ConfigDict(content)
    check_config(config)
  except (AttributeError, TypeError, ValueError) as error:
    raise InputError(f'{path} is damaged: {error}') from error
  return config


class Learnt(NamedTuple):
  """The images that weights have learnt from.

  Attributes:
    pixel_hashes: of those that are known.
    is_known: whether these are all.
    patients: of these images, by name, as far as they are known.
  """

  pixel_hashes: frozenset[str]
  is_known: bool
  patients: frozenset[str] = frozenset()


class SavedSplit(NamedTuple):
  """The split that a run wrote down.

  Attributes:
    split: the split.
    fingerprint: of the set.
    before: what its starting weights had learnt from; None in runs of 0.5.0,
      which don't say it.
    learnt: the same, with its training and validation images.
  """

  split: Split
  fingerprint: str
  before: Learnt | None
  learnt: Learnt


def write_split(
  workdir: pathlib.Path, split: Split, catalogue: Catalogue, before: Learnt
) -> None:
  """Writes a split, with what identifies the set that it belongs to.

  Args:
    workdir: of the training run.
    split: of the set.
    catalogue: of the set.
    before: what the starting weights have learnt from.
  """
  content = {
    'format': FORMAT,
    'fingerprint': catalogue.fingerprint,
    'pixel_hashes': catalogue.pixel_hashes,
    'patients': catalogue.patients,
    'parts': {part: pairs.tolist() for part, pairs in split._asdict().items()},
    'before': {
      'pixel_hashes': sorted(before.pixel_hashes),
      'is_known': before.is_known,
      'patients': sorted(before.patients),
    },
  }
  files.write(workdir / SPLIT, json.dumps(content))


def read_split(workdir: pathlib.Path) -> SavedSplit:
  """Reads what `write_split` wrote.

  Args:
    workdir: of a training run.

  Returns:
    The split and its set.

  Raises:
    InputError: there is none, it is damaged, or of another version.
  """
  path = workdir / SPLIT
  content = files.read_json(path)
  check_format(content, path)
  try:
    hashes = content['pixel_hashes']
    parts = (content['parts'][part] for part in PARTS)
    split = Split(*(np.array(p, np.int32).reshape(-1, 2) for p in parts))
    for part in split:
      if not len(part) or part.min() < 0 or part[:, 0].max() >= len(hashes):
        raise ValueError('a part is empty or names images that are not there')
    before = None
    if 'before' in content:
      told = content['before']
      before = Learnt(
        frozenset(told['pixel_hashes']),
        told['is_known'],
        frozenset(told.get('patients', ())),
      )
    own = np.concatenate([split.train, split.validation])[:, 0]
    earlier = before or Learnt(frozenset(), _starts_from_nothing(workdir))
    patients = content.get('patients') or [''] * len(hashes)
    learnt = Learnt(
      earlier.pixel_hashes | {hashes[i] for i in own},
      earlier.is_known,
      earlier.patients | {str(patients[i]) for i in own} - {''},
    )
    return SavedSplit(split, content['fingerprint'], before, learnt)
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    raise InputError(f'{path} is damaged: {error!r}') from error


def _starts_from_nothing(workdir: pathlib.Path) -> bool:
  """Whether a run's weights had learnt from no images of this kind."""
  model = files.read_json(workdir / CONFIG)['model']
  return model.get('weights') in (RANDOM, IMAGENET)


class Trained(NamedTuple):
  """A finished training run.

  Attributes:
    config: of the run.
    result: of the run.
    variables: of its best epoch.
  """

  config: ConfigDict
  result: Result
  variables: dict[str, Any]


def load_trained(workdir: pathlib.Path) -> Trained:
  """Reads the config, result and best weights of a finished training run.

  Args:
    workdir: of the run.

  Returns:
    The run.

  Raises:
    InputError: it is no such run, is damaged, or of another version.
  """
  config = read_config(workdir)
  finished = result.read(workdir)
  model = build.create_model(config, finished.model.num_outputs)
  size = config.data.image_size
  abstract = {'batch_stats': {}} | jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False
    )
  )
  if checkpoint.is_empty(workdir / BEST):
    raise InputError(f'{workdir / BEST} holds no checkpoint')
  manager = checkpoint.open_manager(workdir / BEST, read_only=True)
  restored = checkpoint.restore(manager, abstract)
  manager.close()
  assert restored is not None
  return Trained(config, finished, restored[0])
