"""The study's grid: backbones x loading options x rates x dropouts, at once.

A frozen backbone's features of fixed images are constants. They are computed
once, and the heads of a backbone and option are then trained on them together.
"""

import functools
import hashlib
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from leukemia_jax import (
  experiment,
  features,
  heads,
  models,
  progress,
  report,
  settings,
  study_report,
  weights,
)
from leukemia_jax import workdir as files
from leukemia_jax.data import audit, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.errors import InputError


class Row(NamedTuple):
  """One experiment of the grid."""

  number: int
  model: str
  option: int
  learning_rate: float
  dropout_rate: float


def grid(study: Any) -> list[Row]:
  """All rows of a study, numbered in the order of the study's tables.

  Args:
    study: `config.study`.

  Returns:
    The rows, from number 0 on.
  """
  axes = [study[axis] for axis in study_report.AXES]
  return [Row(i, *row) for i, row in enumerate(itertools.product(*axes))]


def model_config(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """The experiment of one backbone of a study.

  Args:
    config: the study.
    name: the backbone's.

  Returns:
    A config for a frozen backbone of that name, with the fields of its section
    of `config.study`, or of the run that its weights are from.

  Raises:
    InputError: a value can't be; named as the user gave it.
  """
  config = ml_collections.ConfigDict(config.to_dict())
  config.model.name = name
  config.model.update(config.study[name])
  config.train.freeze_backbone = True
  try:
    config = weights.with_scale(weights.of_run(config))
    settings.check(config)
  except InputError as error:
    # These values were given in the backbone's own section.
    text = str(error)
    for key in config.study[name]:
      text = text.replace(f'config.model.{key}', f'config.study.{name}.{key}')
    raise InputError(text) from None
  return config


class _Set(NamedTuple):
  """The study's images, fixed, with every option's rows.

  Attributes:
    data: originals, then the augmented copies that the order asks for.
    catalogue: of the originals.
    split: by option.
    rows: row numbers in `data` by option, for the three parts.
    colour: by option, what colours alone reach on its test part.
  """

  data: Dataset
  catalogue: Catalogue
  split: dict[int, splits.Split]
  rows: dict[int, list[np.ndarray]]
  colour: dict[int, float]


def _load(config: ml_collections.ConfigDict) -> _Set:
  """Reads the set once for all options: they share one set of copies."""
  originals, catalogue = experiment.load(config)
  made = {}
  for option in config.study.options:
    of_option = ml_collections.ConfigDict(config.to_dict())
    of_option.data.option = option
    made[option] = experiment.make_split(of_option, catalogue)
  every = list(itertools.chain(*made.values()))
  data, rows = experiment.materialise(config, every, originals)
  count = len(splits.PARTS)
  by_option = {
    option: rows[i * count : (i + 1) * count] for i, option in enumerate(made)
  }
  colours = audit.colour_features(np.asarray(data.images))
  labels = np.asarray(data.labels)
  colour = {
    option: audit.colour_accuracy(
      colours, labels, np.unique(parts[0]), np.unique(parts[2])
    )
    for option, parts in by_option.items()
  }
  return _Set(data, catalogue, made, by_option, colour)


def _backbone(
  config: ml_collections.ConfigDict, loaded: _Set
) -> features.Backbone:
  """A backbone of the study; one drawn by chance gets statistics."""
  fields = experiment.backbone_fields(config)
  create = functools.partial(models.create, config.model.name, num_classes=0)
  identity = weights.identity(config)
  scale = config.model.preprocess
  count = config.study.calibration_images
  if config.model.weights != weights.CHANCE or not count:
    load = functools.partial(
      weights.backbone, config, loaded.catalogue.class_names
    )
    return features.Backbone(create(**fields), scale, identity, load)
  # What no test part holds, mixed: a batch of one class has other statistics.
  tested = splits.tested(loaded.catalogue, loaded.split.values())
  free = np.flatnonzero(~tested)
  if len(free) < config.train.batch_size:
    raise InputError(
      f'config.study.calibration_images={count}: {len(free)} images are in no '
      f'test part, a batch takes {config.train.batch_size}. Give weights, or 0 '
      'to leave those drawn by chance as they are'
    )
  key = experiment.make_keys(config.seed)['init']
  chosen = np.asarray(jax.random.permutation(key, free))[:count]
  pixels = [loaded.catalogue.pixels[i] for i in chosen]

  def calibrated() -> dict[str, Any]:
    return features.calibrate(
      create(**fields | {'momentum': 0.0}),
      weights.backbone(config, loaded.catalogue.class_names),
      np.asarray(loaded.data.images[chosen]),
      preprocessing=scale,
      batch_size=config.train.batch_size,
    )

  identity = f'{identity}, calibrated on {pixels} by {config.train.batch_size}'
  return features.Backbone(create(**fields), scale, identity, calibrated)


def _row_path(workdir: pathlib.Path, row: Row) -> pathlib.Path:
  return workdir / files.ROWS / f'{row.number:03d}.json'


def _check(config: ml_collections.ConfigDict, rows: list[Row]) -> None:
  """Refuses what the grid can't take, before anything is read."""
  if config.study.row >= len(rows):
    raise InputError(
      f'config.study.row={config.study.row}: the study has the rows 0 to '
      f'{len(rows) - 1}, or -1 for all'
    )
  if config.data.order not in splits.STUDY_ORDERS:
    raise InputError(
      f'config.data.order={config.data.order}: a study takes '
      f'{" or ".join(splits.STUDY_ORDERS)}'
    )
  report.segmentation_blocks(config.study.segmentation)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Trains what is missing of a study, and writes its tables.

  Images are fixed: copies are augmented once, before the split
  (`balance_then_split`), or none is augmented (`split_then_balance`).

  Args:
    config: the study; `config.study.row` asks for one row alone.
    workdir: where rows/ and the tables go. Several processes may share it, each
      with rows of its own. Finished rows are left as they are.

  Raises:
    InputError: the data, the weights or the workdir can't be used.
  """
  rows = grid(config.study)
  _check(config, rows)
  claim = {'mode': 'study', **config.to_dict()}
  files.check_claim(workdir, claim)
  wanted = [r for r in rows if config.study.row in (-1, r.number)]
  missing = [r for r in wanted if not _row_path(workdir, r).exists()]
  if missing:
    names = list(dict.fromkeys(row.model for row in missing))
    configs = {name: model_config(config, name) for name in names}
    loaded = _load(configs[names[0]])
    backbones = {name: _backbone(c, loaded) for name, c in configs.items()}
    origins = {
      name: {
        'fingerprint': loaded.catalogue.fingerprint,
        'weights_sha256': _sha256(backbone.identity),
      }
      for name, backbone in backbones.items()
    }
    _check_rows(workdir, rows, origins)
    with files.lock(workdir):
      files.claim(workdir, claim)
    for name in names:
      extracted = features.extract(
        backbones[name],
        loaded.data.images,
        cache=pathlib.Path(config.data.cache_dir).expanduser() / 'features',
        batch_size=config.train.batch_size,
      )
      print(
        f'{name}: features of {len(extracted.features)} images, '
        f'{extracted.computed} computed in {extracted.seconds:.1f} s'
      )
      facts = {
        'of': origins[name],
        **_model_facts(configs[name], backbones[name], extracted, loaded),
        'environment': experiment.environment(),
      }
      of_model = [row for row in rows if row.model == name]
      _run_heads(
        configs[name], workdir, loaded, extracted, of_model, missing, facts
      )
  with files.lock(workdir):
    path = study_report.write(workdir, config.study.segmentation)
  print(f'{len(wanted)} rows are finished; see {path}')


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def _check_rows(
  workdir: pathlib.Path, rows: list[Row], origins: dict[str, dict[str, str]]
) -> None:
  """Refuses to add rows to those of other images or weights."""
  (fingerprint,) = {origin['fingerprint'] for origin in origins.values()}
  for row in rows:
    path = _row_path(workdir, row)
    if not path.exists():
      continue
    saved = files.read_json(path)
    if not isinstance(saved, dict) or not isinstance(saved.get('of'), dict):
      raise InputError(
        f'{path} is damaged, or of another version; remove it and give the '
        'same command again'
      )
    there = saved['of']
    # Of a backbone all of whose rows are there only the images are known.
    here = origins.get(row.model, there | {'fingerprint': fingerprint})
    if there != here:
      raise InputError(
        f'{path} is of other images or weights than there are now; give a new '
        '--workdir'
      )


def _run_heads(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  loaded: _Set,
  extracted: features.Extracted,
  rows: list[Row],
  missing: list[Row],
  facts: dict[str, Any],
) -> None:
  """Trains the heads of one backbone that are missing, group by group."""
  data = Dataset(jnp.asarray(extracted.features), loaded.data.labels)
  # Another process may have finished some meanwhile.
  missing = [row for row in missing if not _row_path(workdir, row).exists()]
  repeats, epochs = config.study.repeats, config.train.epochs
  wanted = [row for row in rows if row in missing]
  by_rate = {
    rate: heads.Heads(
      config, class_names=loaded.catalogue.class_names, dropout_rate=rate
    )
    for rate in {row.dropout_rate for row in wanted}
  }
  by_option = {
    option: facts | _option_facts(config, loaded, option)
    for option in dict.fromkeys(row.option for row in wanted)
  }
  with progress.bar() as shown:
    task = shown.add_task(
      f'Heads of {config.model.name}', total=len(wanted) * repeats * epochs
    )
    before = 0
    for option, rate in dict.fromkeys(
      (row.option, row.dropout_rate) for row in wanted
    ):
      group = [r for r in rows if (r.option, r.dropout_rate) == (option, rate)]
      runs = [
        heads.Run(row.learning_rate, config.seed + i, row in missing)
        for row in group
        for i in range(repeats)
      ]

      def advance(done: int, before: int = before) -> None:
        shown.update(task, completed=before + done)

      parts = heads.parts_of(loaded.rows[option], config.train.batch_size)
      results = iter(by_rate[rate].run(runs, data, parts, advance))
      before += sum(run.wanted for run in runs) * epochs
      for row in group:
        if row in missing:
          own = [next(results) for _ in range(repeats)]
          content = {**row._asdict(), **by_option[option], 'repeats': own}
          with files.lock(workdir):
            if not _row_path(workdir, row).exists():
              files.write_json(_row_path(workdir, row), content)


def _option_facts(
  config: ml_collections.ConfigDict, loaded: _Set, option: int
) -> dict[str, Any]:
  """What the rows of a loading option have in common."""
  split, catalogue = loaded.split[option], loaded.catalogue
  return {
    'data': {
      'classes': list(catalogue.class_names),
      'source': pathlib.Path(config.data.source).name,
      'order': config.data.order,
      'loss': config.train.loss,
      'counts': experiment.part_counts(split, catalogue),
    },
    'held_out_seen_by_weights': weights.seen_images(
      config.model.weights, split, catalogue
    ),
    'memory': {
      'images_bytes': loaded.data.images.nbytes,
      'index_bytes': sum(part.nbytes for part in loaded.rows[option]),
    },
    'test': _test_images(loaded, option),
    'baselines': {'colour_3_nearest_neighbours': loaded.colour[option]},
  }


def _test_images(loaded: _Set, option: int) -> dict[str, list[int]]:
  """The test images of an option, in the order in which they are scored."""
  rows = np.unique(loaded.rows[option][2])
  return {
    'images': rows.tolist(),
    'labels': np.asarray(loaded.data.labels)[rows].tolist(),
  }


def _model_facts(
  config: ml_collections.ConfigDict,
  backbone: features.Backbone,
  extracted: features.Extracted,
  loaded: _Set,
) -> dict[str, Any]:
  """What a backbone is and costs."""
  shape = (1, *loaded.data.images.shape[1:])
  image = jax.ShapeDtypeStruct(shape, jnp.uint8)
  variables = jax.eval_shape(
    lambda: backbone.model.init(
      jax.random.key(0), jnp.zeros(shape), train=False
    )
  )
  step = features.make_step(
    apply_fn=backbone.model.apply, preprocessing=backbone.preprocessing
  )
  lowered = jax.jit(step).lower(variables, image)
  # Not every device knows it before it has compiled the step.
  cost = lowered.cost_analysis() or lowered.compile().cost_analysis() or {}
  speed = None
  if extracted.computed:
    speed = round(extracted.computed / extracted.seconds, 2)
  return {
    'backbone': {
      'name': config.model.name,
      'width': config.model.width,
      'blocks': list(config.model.blocks),
      'image_size': shape[1],
      'dtype': config.model.dtype,
      'weights': pathlib.Path(config.model.weights).name,
      'preprocess': config.model.preprocess,
      'features': extracted.features.shape[-1],
      'parameters': experiment.size_of(variables['params']),
      'flops_an_image': cost.get('flops'),
      'images_per_second': speed,
    }
  }
