"""The commands behind main.py's modes: prepare, train, evaluate."""

import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from leukemia_jax import (
  checkpoint,
  evaluate,
  experiment,
  figures,
  report,
  scoring,
  settings,
  train,
  weights,
)
from leukemia_jax import workdir as files
from leukemia_jax.data import masks, splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.data.splits import Split
from leukemia_jax.errors import InputError

_SHEET = 6  # images of a class on a contact sheet


def prepare(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Builds and checks a set, prints its counts, draws contact sheets.

  Args:
    config: the experiment.
    workdir: where classes.png and augmented.png go, and masks.png if there are
      masks.
  """
  config = weights.with_scale(config)
  files.check_claim(workdir, {'mode': 'train', **config.to_dict()})
  data, catalogue = experiment.load(config, read_masks=True)
  if catalogue.masks:
    _print_masks(config, catalogue)
  split = experiment.make_split(config, catalogue)
  counts = experiment.part_counts(split, catalogue)
  names = catalogue.class_names
  groups = splits.group_ids(catalogue, config.data.grouping, config.data.block)
  rows = []
  for label, name in enumerate(names):
    of_class = groups[catalogue.labels == label]
    row = [
      name,
      len(of_class),
      len(set(of_class)),
      *(counts[p][name] for p in splits.PARTS),
    ]
    rows.append([str(value) for value in row])
  print(report.table(['class', 'images', 'groups', *splits.PARTS], rows))
  order = f'option {config.data.option}, {config.data.order}'
  repeated = config.data.order == 'split_then_balance'
  print(
    f'Parts: {order}'
    + ('; training images are repeated to balance classes.' if repeated else '')
  )
  print(
    f'{len(catalogue.ids)} images, {catalogue.masks} with a mask, '
    f'{len(catalogue.skipped)} left out; fingerprint {catalogue.fingerprint}'
  )
  for flaw, found in (
    ('masks cannot be used', catalogue.bad_masks),
    ('images or masks have no counterpart', catalogue.unpaired),
  ):
    if found:
      print(
        f'{len(found)} {flaw} (fine for classification): {"; ".join(found[:5])}'
      )
  examples, augmented, masked = [], [], []
  augment = jax.jit(jax.vmap(experiment.make_augment(config)))
  for label, name in enumerate(names):
    members = np.flatnonzero(catalogue.labels == label)
    picked = members[np.linspace(0, len(members) - 1, _SHEET).astype(int)]
    examples.append((name, list(np.asarray(data.images[picked]))))
    assert data.masks is not None
    cells = np.asarray(data.masks[picked])
    shown = np.asarray(data.images[picked]) * cells
    masked.append((name, list(shown)))
    keys = jax.random.split(jax.random.key(config.seed), _SHEET - 1)
    first = data.images[picked[0]]
    made = augment(keys, jnp.repeat(first[None], _SHEET - 1, 0))
    augmented.append((name, [np.asarray(first), *np.asarray(made)]))
  sheets = {
    'classes.png': (examples, 'Examples of each class'),
    'augmented.png': (augmented, 'An image (left) and its augmented forms'),
  }
  if catalogue.masks:
    sheets['masks.png'] = masked, 'What the masks call cells'
  for file, (sheet, title) in sheets.items():
    files.write(workdir / file, figures.contact_sheet(sheet, title))
    print(f'wrote {workdir / file}')


def _split_of_run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, catalogue: Catalogue
) -> Split:
  """The split that the run began with, or a new one."""
  if not (workdir / files.SPLIT).exists():
    return experiment.make_split(config, catalogue)
  split, fingerprint, _ = experiment.saved_split(workdir)
  if fingerprint != catalogue.fingerprint:
    raise InputError(
      f'{config.data.source} has changed since this run began; give a new '
      '--workdir'
    )
  return split


def _begin(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  claim: dict[str, Any],
  model: Any,
  split: Split,
  catalogue: Catalogue,
) -> tuple[train.TrainState, dict[str, int] | None]:
  """A run's first state; the workdir becomes the run's.

  Returns:
    The state, and how many held-out images its weights have learnt from.
  """
  tx = train.make_optimizer(config.train.freeze_backbone)
  state = train.init_state(
    experiment.make_keys(config.seed)['init'],
    model,
    tx,
    shape=(config.data.image_size, config.data.image_size, 3),
    learning_rate=config.train.learning_rate,
  )
  if checkpoint.is_empty(workdir / files.LATEST):
    state = weights.start(state, config, catalogue.class_names)
  seen = weights.seen_images(config.model.weights, split, catalogue)
  # Only now: a mistyped path must not keep the workdir from the right one.
  files.claim(workdir, claim)
  files.write(workdir / files.SPLIT, splits.to_json(split, catalogue))
  return state, seen


def _fit(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  model: Any,
  state: train.TrainState,
  data: Dataset,
  rows: list[np.ndarray],
) -> train.Outcome:
  """Trains as a config says, from a state on."""
  objective = experiment.objective(config)
  train_step = train.make_train_step(
    apply_fn=model.apply,
    tx=train.make_optimizer(config.train.freeze_backbone),
    augment=experiment.training_augment(config),
    preprocessing=config.model.preprocess,
    objective=objective,
    accumulate=config.train.accumulate,
  )
  eval_step = evaluate.make_eval_step(
    apply_fn=model.apply,
    preprocessing=config.model.preprocess,
    objective=objective,
  )
  return train.fit(
    state,
    train_step,
    eval_step,
    data,
    train_rows=rows[0],
    validation_rows=rows[1],
    # A mask's are ground and cells.
    num_classes=max(2, model.num_classes),
    key=experiment.make_keys(config.seed)['train'],
    settings=config.train,
    workdir=workdir,
  )


def run_training(
  config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
  """Trains a model and scores it on its three parts.

  Args:
    config: the experiment.
    workdir: where everything of the run goes. A run that was cut off goes on
      from its latest checkpoint; a finished one is left as it is.

  Raises:
    InputError: the data or the workdir can't be used, or the loss diverged.
  """
  started = time.perf_counter()
  config = weights.with_scale(config)
  claim = {'mode': 'train', **config.to_dict()}
  files.check_claim(workdir, claim)
  if (workdir / files.RESULT).exists():
    print(f'this run is finished: see {report.write(workdir)}')
    return
  data, catalogue = experiment.load(config)
  split = _split_of_run(config, workdir, catalogue)
  mask_facts = _mask_facts(config, catalogue)
  _warn(mask_facts)
  if 'dropped_empty' in mask_facts:
    dropped = len(catalogue.ids) - len(np.unique(np.concatenate(split)[:, 0]))
    mask_facts['dropped_empty'] = dropped
    print(f'{dropped} images with an empty mask left out of training')
  model = experiment.make_model(config, len(catalogue.class_names))
  state, seen = _begin(config, workdir, claim, model, split, catalogue)
  data, rows = experiment.materialise(config, split, data)
  prepared = time.perf_counter() - started
  outcome = _fit(config, workdir, model, state, data, rows)
  result = experiment.describe(config, catalogue, outcome.variables)
  result['data'] |= {
    'split': {
      'option': config.data.option,
      'order': config.data.order,
      'grouping': config.data.grouping,
    },
    'counts': experiment.part_counts(split, catalogue),
    'held_out_seen_by_weights': seen,
  }
  # Repeated training images count once.
  parts = dict(zip(splits.PARTS, map(np.unique, rows), strict=True))
  trained = scoring.Trained(config, model, outcome.variables)
  names = catalogue.class_names
  if experiment.segments(config):
    result['data']['masks'] = mask_facts
    side = catalogue.mask_side
    result |= scoring.score_masks(
      trained, names, data, parts, workdir, mask_side=side
    )
  else:
    result |= scoring.score_classes(trained, names, data, parts)
  result |= {
    'epochs': len(outcome.history),
    'best_epoch': outcome.best_epoch + 1,
    'cost': _training_cost(started, prepared, outcome.cost),
  }
  experiment.write_result(workdir, result)


def _print_masks(
  config: ml_collections.ConfigDict, catalogue: Catalogue
) -> None:
  """What masks cover, class by class, and which look broken."""
  facts = _mask_facts(config, catalogue)
  print(
    report.table(
      ['class', 'masks', 'mean share of cells', 'empty'],
      [
        [name, str(row['masks']), f'{row["mean"]:.1%}', str(row['empty'])]
        for name, row in facts['by_class'].items()
      ],
    )
  )
  print(
    f'An empty mask covers under {masks.EMPTY_SHARE:.1%}. Masks are read by '
    f'config.data.mask_rule={config.data.mask_rule}'
    + (' and cleaned.' if config.data.clean_masks else ', as they are.')
  )
  if catalogue.many_coloured:
    print(
      f'{catalogue.many_coloured} masks hold more than two colours: all that '
      'the rule takes is one kind of cell'
    )
  _warn(facts)


def _warn(mask_facts: dict[str, Any]) -> None:
  for warning in mask_facts.get('warnings', ()):
    print(f'warning: {warning}')


def _mask_facts(
  config: ml_collections.ConfigDict, catalogue: Catalogue
) -> dict[str, Any]:
  """How a set's masks were read, and what looks wrong; none if none were."""
  if np.isnan(catalogue.coverage).all():
    return {}
  names = catalogue.class_names
  rows = masks.by_class(catalogue.coverage, catalogue.labels, len(names))
  dropped = {'dropped_empty': 0} if config.data.drop_empty_masks else {}
  return {
    'rule': config.data.mask_rule,
    'cleaned': config.data.clean_masks,
    'bad': len(catalogue.bad_masks),
    'unpaired': len(catalogue.unpaired),
    **dropped,
    'by_class': {
      name: row._asdict() for name, row in zip(names, rows, strict=True)
    },
    'warnings': masks.warnings(rows, names),
  }


def _training_cost(
  started: float, prepared: float, cost: train.Cost
) -> dict[str, Any]:
  seconds = cost.train_seconds
  return experiment.run_cost(
    started,
    prepare_seconds=round(prepared, 1),
    compile_seconds=round(cost.compile_seconds, 1),
    train_seconds=round(seconds, 1),
    images_per_second=round(cost.images / seconds, 1) if seconds else None,
    resumed=cost.resumed,
  )


# Keys of an evaluation's own; all others are those that the model was trained
# with.
_EVALUATION_KEYS = (
  'data.source',
  'data.cache_dir',
  'data.on_bad_image',
  'data.max_pixels',
  'data.max_bytes',
  'data.benign_class',
  'data.scale',
  'data.mask_rule',
  'data.clean_masks',
  'data.clean_minimum_area',
  'data.smallest_cell',
  'synthetic.scale',
  'synthetic.seed',
  'train.batch_size',
)


def _evaluation_config(
  trained: ml_collections.ConfigDict, overrides: dict[str, Any]
) -> ml_collections.ConfigDict:
  """A trained run's config with the keys that an evaluation may change."""
  for key in overrides:
    if key not in _EVALUATION_KEYS:
      raise InputError(
        f"config.{key} is the trained model's own and cannot be given with "
        f'--mode=evaluate; these can: {", ".join(_EVALUATION_KEYS)}'
      )
  config = ml_collections.ConfigDict(trained.to_dict())
  config.update_from_flattened_dict(overrides)
  settings.check(config)
  return config


def _parts_to_score(
  config: ml_collections.ConfigDict,
  trained: pathlib.Path,
  overrides: dict[str, Any],
  data: Dataset,
  catalogue: Catalogue,
) -> tuple[Dataset, dict[str, np.ndarray], int]:
  """What an evaluation scores: a run's own parts, or all of another set.

  Returns:
    The set, with the copies that the run's parts hold; row numbers by part; and
    how many images were left out because the model was trained on them.
  """
  split, fingerprint, learnt = experiment.saved_split(trained)
  if fingerprint == catalogue.fingerprint:
    data, rows = experiment.materialise(config, split, data)
    return data, dict(zip(splits.PARTS, map(np.unique, rows), strict=True)), 0
  if 'data.source' not in overrides and not _changes_smears(overrides):
    raise InputError(
      f'{config.data.source} has changed since {trained} was trained on it; '
      'give config.data.source to score it as another set'
    )
  new = [i for i, p in enumerate(catalogue.pixels) if p not in learnt]
  left_out = len(catalogue.pixels) - len(new)
  if not new:
    raise InputError(
      f'{config.data.source} holds nothing but images that the model was '
      'trained on'
    )
  if left_out:
    print(f'{left_out} images left out: the model was trained on them')
  return data, {'test': np.array(new, np.int32)}, left_out


def run_evaluation(
  overrides: dict[str, Any], workdir: pathlib.Path, trained: pathlib.Path
) -> None:
  """Scores a trained model on its own set or on any other.

  On the set that it was trained on, its own three parts are scored. On any
  other, all images are the test part, but for those that are pixel for pixel
  among its training or validation images: they are left out and counted.

  Args:
    overrides: values by config key; without `data.source` the model's own
      source is scored. Only keys that leave the model as it is are taken.
    workdir: where the result goes.
    trained: the workdir of the training run.

  Raises:
    InputError: a path or key can't be used, the classes aren't the model's,
      or the model's own source has changed.
  """
  started = time.perf_counter()
  if workdir.resolve().is_relative_to(trained.resolve()):
    raise InputError(
      f'--workdir={workdir} lies in --checkpoint={trained}; give another '
      'folder for the scores'
    )
  theirs, names, variables = experiment.load_trained(trained)
  config = _evaluation_config(theirs, overrides)
  claim = {'mode': 'evaluate', 'checkpoint': str(trained.resolve())}
  claim |= config.to_dict()
  files.check_claim(workdir, claim)
  data, catalogue = experiment.load(config)
  segments = experiment.segments(config)
  if segments:
    # Cells are cells, in whatever classes.
    names = catalogue.class_names
  unknown = sorted(set(catalogue.class_names) - set(names))
  if unknown:
    raise InputError(
      f'{config.data.source} has the classes {", ".join(unknown)}, which the '
      f'model does not know; it was trained on {", ".join(names)}. Rename the '
      'folders'
    )
  mapping = [names.index(n) for n in catalogue.class_names]
  data = data._replace(labels=jnp.asarray(mapping, jnp.int32)[data.labels])
  data, parts, left_out = _parts_to_score(
    config, trained, overrides, data, catalogue
  )
  chosen = scoring.chosen_by(trained) if segments else None
  files.claim(workdir, claim)
  model = experiment.make_model(config, len(names))
  result = experiment.describe(config, catalogue, variables)
  result['data'] |= {'classes': list(names), 'left_out_as_trained_on': left_out}
  scored = scoring.Trained(config, model, variables)
  if segments:
    result['data']['masks'] = _mask_facts(config, catalogue)
    _warn(result['data']['masks'])
    side = catalogue.mask_side
    result |= scoring.score_masks(
      scored, names, data, parts, workdir, mask_side=side, chosen=chosen
    )
  else:
    result |= scoring.score_classes(scored, names, data, parts)
  result['cost'] = experiment.run_cost(started)
  experiment.write_result(workdir, result)


def _changes_smears(overrides: dict[str, Any]) -> bool:
  return any(key.startswith('synthetic.') for key in overrides)
