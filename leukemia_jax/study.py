"""The study's grid: backbones x loading options x rates x dropouts, at once.

A frozen backbone's features of fixed images are constants. They are computed
once, and the heads of a backbone and option are then trained on them together:
the training step is `train.py`'s, its images are features, and one compiled
call takes every head through an epoch.
"""

import functools
import itertools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from leukemia_jax import (
  evaluate,
  experiment,
  features,
  metrics,
  models,
  optimizer,
  progress,
  settings,
  study_report,
  train,
  weights,
)
from leukemia_jax import workdir as files
from leukemia_jax.data import splits
from leukemia_jax.data.dataset import Catalogue, Dataset
from leukemia_jax.errors import InputError

_WITHOUT_MOMENTUM = 0.0


class Row(NamedTuple):
  """One experiment of the grid."""

  number: int
  model: str
  option: int
  learning_rate: float
  dropout_rate: float


class Run(NamedTuple):
  """One training of a row's head: a repeat of its own draws."""

  row: Row
  repeat: int


class Outcome(NamedTuple):
  """A trained head.

  Attributes:
    params: of its best epoch.
    epochs: how many it was trained for.
    best_epoch: that of the lowest validation loss, from 1; 0 if no loss was
      finite.
    diverged: whether a loss was not finite.
  """

  params: Any
  epochs: int
  best_epoch: int
  diverged: bool


def grid(study: Any) -> list[Row]:
  """All rows of a study, numbered in the order of the study's tables.

  Args:
    study: `config.study`.

  Returns:
    The rows, from number 0 on.
  """
  axes = (
    study.models,
    study.options,
    study.learning_rates,
    study.dropout_rates,
  )
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
  """
  config = ml_collections.ConfigDict(config.to_dict())
  config.model.name = name
  config.model.update(config.study[name])
  config.train.freeze_backbone = True
  config = weights.with_scale(weights.of_run(config))
  settings.check(config)
  return config


class _Parts(NamedTuple):
  """A split's rows, in batches for evaluation: ((rows, weights), ...)."""

  train_rows: jax.Array
  batches: tuple[tuple[jax.Array, jax.Array], ...]


def _parts(rows: list[np.ndarray], batch_size: int) -> _Parts:
  # Repeated training images count once in scores.
  batches = [evaluate.in_batches(np.unique(part), batch_size) for part in rows]
  return _Parts(
    jnp.asarray(rows[0]), tuple(jax.tree.map(jnp.asarray, b) for b in batches)
  )


class Heads:
  """Heads of one dropout rate, compiled once for all features of one shape."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    *,
    class_names: tuple[str, ...],
    dropout_rate: float,
  ):
    """Sets the training up.

    Args:
      config: the study; its seed, data and `train` are taken.
      class_names: names of the classes.
      dropout_rate: of the heads.
    """
    self._config, self._class_names = config, class_names
    self._model = models.Head(len(class_names), dropout_rate)
    objective = experiment.objective(config)
    self._tx = train.make_optimizer(freeze_backbone=False)
    # The loop's own, on features that nothing scales or augments.
    self._train_step = train.make_train_step(
      apply_fn=self._model.apply,
      tx=self._tx,
      augment=None,
      preprocessing=None,
      objective=objective,
    )
    self._eval_step = evaluate.make_eval_step(
      apply_fn=self._model.apply, preprocessing=None, objective=objective
    )
    self._begin = jax.jit(self._new_states, static_argnames='width')
    self._epoch = jax.jit(self._one_epoch, donate_argnums=0)
    self._score = jax.jit(self._total)

  def _total(
    self, params: Any, data: Dataset, batches: tuple[jax.Array, jax.Array]
  ) -> evaluate.Sums:
    return evaluate.total(
      self._eval_step,
      {'params': params},
      data,
      *batches,
      num_classes=len(self._class_names),
    )

  def _one_epoch(
    self,
    states: train.TrainState,
    keys: jax.Array,
    active: jax.Array,
    epoch: jax.Array,
    data: Dataset,
    parts: _Parts,
  ) -> tuple[train.TrainState, evaluate.Sums]:
    """Takes every active head through an epoch, and to validation.

    On a CPU one after the other: a head and its moments then stay in the cache
    over the steps of an epoch, which is three times faster than all side by
    side, and a head that has stopped costs nothing. On a GPU side by side.
    """
    batch_size = self._config.train.batch_size
    steps = -(-len(parts.train_rows) // batch_size)
    take_steps = train.repeat_step(self._train_step, steps)

    def trained(state: train.TrainState, keys: jax.Array) -> Any:
      order = train.epoch_order(
        keys[0], epoch, parts.train_rows, batch_size=batch_size
      )
      state, _ = take_steps(state, keys[1], data, *order)
      return state, self._total(state.params, data, parts.batches[1])

    def stopped(state: train.TrainState, keys: jax.Array) -> Any:
      shapes = jax.eval_shape(trained, state, keys)[1]
      return state, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    side_by_side = None if jax.default_backend() == 'cpu' else len(active)
    return jax.lax.map(
      lambda head: jax.lax.cond(head[2], trained, stopped, *head[:2]),
      (states, keys, active),
      batch_size=side_by_side,
    )

  def _new_states(
    self, keys: jax.Array, rates: jax.Array, width: int
  ) -> train.TrainState:
    """Heads before their first step."""
    return jax.vmap(
      lambda key, rate: train.new_state(
        key, self._model, self._tx, shape=(width,), learning_rate=rate
      )
    )(keys, rates)

  def fit(
    self,
    runs: list[Run],
    data: Dataset,
    parts: _Parts,
    advance: Callable[[int], None],
  ) -> list[Outcome]:
    """Trains heads until the last epoch or until each stops improving.

    Args:
      runs: the heads' rows and repeats.
      data: features as images, and labels.
      parts: the rows of a split.
      advance: is told how many epochs of heads have been done, or are not
        needed any more.

    Returns:
      An outcome a run, by the rules of `train.fit`.
    """
    rules = self._config.train
    every = [experiment.make_keys(self._config.seed + r.repeat) for r in runs]
    states = self._begin(
      jnp.stack([keys['init'] for keys in every]),
      jnp.array([run.row.learning_rate for run in runs], jnp.float32),
      width=data.images.shape[-1],
    )
    # Of order and dropout.
    keys = jax.vmap(jax.random.split)(
      jnp.stack([keys['train'] for keys in every])
    )
    best = jax.tree.map(jnp.copy, states.params)
    seen = [optimizer.Progress() for _ in runs]
    diverged = np.zeros(len(runs), bool)
    active = np.ones(len(runs), bool)
    epochs = np.zeros(len(runs), int)
    held_out = float(parts.batches[1][1].sum())
    for epoch in range(rules.epochs):
      states, sums = self._epoch(states, keys, active, epoch, data, parts)
      losses = np.asarray(sums.loss, np.float64) / held_out
      train_losses = np.asarray(states.sums)[:, 0]
      is_best = np.zeros(len(runs), bool)
      lower = np.ones(len(runs), np.float32)
      for i in np.flatnonzero(active):
        epochs[i] += 1
        if not np.isfinite([losses[i], train_losses[i]]).all():
          diverged[i], active[i] = True, False
          continue
        seen[i], decision = optimizer.after_epoch(
          seen[i],
          epoch,
          float(losses[i]),
          plateau_patience=rules.plateau_patience,
          stop_patience=rules.stop_patience,
        )
        is_best[i], active[i] = decision.is_best, not decision.stop
        if decision.lower_rate:
          lower[i] = rules.plateau_factor
      best = _keep(best, states.params, is_best)
      states = states.replace(
        learning_rate=states.learning_rate * lower,
        sums=jnp.zeros_like(states.sums),
      )
      done = epoch + 1 == rules.epochs or not active.any()
      advance(len(runs) * rules.epochs if done else int(epochs.sum()))
      if done:
        break
    return [
      Outcome(
        jax.tree.map(lambda leaf, i=i: leaf[i], best),
        int(epochs[i]),
        seen[i].best_epoch + 1,
        bool(diverged[i]),
      )
      for i in range(len(runs))
    ]

  def run(
    self,
    runs: list[Run],
    data: Dataset,
    parts: _Parts,
    advance: Callable[[int], None],
  ) -> list[dict[str, Any]]:
    """Trains heads and scores them; see `fit` for the arguments.

    Returns:
      Of each run its course, its scores on the three parts, and what it calls
      each test image: plain numbers, ready for JSON.
    """
    started = time.perf_counter()
    outcomes = self.fit(runs, data, parts, advance)
    seconds = (time.perf_counter() - started) / len(runs)
    return [
      {
        'seed': self._config.seed + run.repeat,
        'epochs': outcome.epochs,
        'best_epoch': outcome.best_epoch,
        'diverged': outcome.diverged,
        'seconds': round(seconds, 3),
        **self._scores(outcome.params, data, parts),
      }
      for run, outcome in zip(runs, outcomes, strict=True)
    ]

  def _scores(
    self, params: Any, data: Dataset, parts: _Parts
  ) -> dict[str, Any]:
    result = {}
    for part, batches in zip(splits.PARTS, parts.batches, strict=True):
      loss, confusion = jax.device_get(self._score(params, data, batches))
      result[part] = metrics.scores(
        confusion,
        float(loss),
        self._class_names,
        self._config.data.benign_class,
      )
    rows, weight = (leaf.ravel() for leaf in parts.batches[2])
    logits, _ = self._model.apply(
      {'params': params}, data.images[rows], train=False
    )
    called = np.asarray(logits.argmax(-1))[np.asarray(weight) > 0]
    result['test']['called'] = called.tolist()
    return result


@functools.partial(jax.jit, donate_argnums=0)
def _keep(best: Any, params: Any, is_best: jax.Array) -> Any:
  """The heads' best weights so far."""

  def chosen(old: jax.Array, new: jax.Array) -> jax.Array:
    where = is_best.reshape(-1, *(1,) * (new.ndim - 1))
    return jnp.where(where, new, old)

  return jax.tree.map(chosen, best, params)


class _Set(NamedTuple):
  """The study's images, fixed, with every option's rows.

  Attributes:
    data: originals, then the augmented copies that the order asks for.
    catalogue: of the originals.
    split: by option.
    rows: row numbers in `data` by option, for the three parts.
  """

  data: Dataset
  catalogue: Catalogue
  split: dict[int, splits.Split]
  rows: dict[int, list[np.ndarray]]


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
  return _Set(data, catalogue, made, by_option)


def _backbone(
  config: ml_collections.ConfigDict, loaded: _Set
) -> features.Backbone:
  """A backbone of the study; one drawn by chance gets statistics."""
  fields = experiment.backbone_fields(config)
  create = functools.partial(models.create, config.model.name, num_classes=0)
  identity = weights.identity(config)
  scale = config.model.preprocess
  count = config.study.calibration_images
  if config.model.weights != 'none' or not count:
    load = functools.partial(
      weights.backbone, config, loaded.catalogue.class_names
    )
    return features.Backbone(create(**fields), scale, identity, load)
  # What no test part holds, mixed: a batch of one class has other statistics.
  tested = np.concatenate([s.test[:, 0] for s in loaded.split.values()])
  free = np.setdiff1d(np.arange(len(loaded.catalogue.ids)), tested)
  key = experiment.make_keys(config.seed)['init']
  chosen = np.asarray(jax.random.permutation(key, free))[:count]
  pixels = [loaded.catalogue.pixels[i] for i in chosen]

  def calibrated() -> dict[str, Any]:
    return features.calibrate(
      create(**fields | {'momentum': _WITHOUT_MOMENTUM}),
      weights.backbone(config, loaded.catalogue.class_names),
      np.asarray(loaded.data.images[chosen]),
      preprocessing=scale,
      batch_size=config.train.batch_size,
    )

  identity = f'{identity}, calibrated on {pixels}'
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
    configs = {r.model: model_config(config, r.model) for r in missing}
    loaded = _load(configs[missing[0].model])
    with files.lock(workdir):
      files.claim(workdir, claim)
    for name in config.study.models:
      of_model = [r for r in missing if r.model == name]
      if of_model:
        _run_model(configs[name], workdir, loaded, of_model)
  with files.lock(workdir):
    path = study_report.write(workdir)
  print(f'{len(wanted)} rows are finished; see {path}')


def _run_model(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  loaded: _Set,
  rows: list[Row],
) -> None:
  """Computes one backbone's features and trains its heads on them."""
  backbone = _backbone(config, loaded)
  extracted = features.extract(
    backbone,
    loaded.data.images,
    cache=pathlib.Path(config.data.cache_dir).expanduser() / 'features',
    batch_size=config.train.batch_size,
  )
  print(
    f'{config.model.name}: features of {len(extracted.features)} images, '
    f'{extracted.computed} computed in {extracted.seconds:.1f} s'
  )
  facts = _model_facts(config, backbone, extracted)
  data = Dataset(jnp.asarray(extracted.features), loaded.data.labels)
  repeats, epochs = config.study.repeats, config.train.epochs
  names = loaded.catalogue.class_names
  heads = {
    rate: Heads(config, class_names=names, dropout_rate=rate)
    for rate in config.study.dropout_rates
  }
  with progress.bar() as shown:
    task = shown.add_task(
      f'Heads of {config.model.name}', total=len(rows) * repeats * epochs
    )
    before = 0
    for option in config.study.options:
      parts = _parts(loaded.rows[option], config.train.batch_size)
      of_option = facts | _option_facts(config, loaded, option)
      for rate in config.study.dropout_rates:
        group = [
          r for r in rows if (r.option, r.dropout_rate) == (option, rate)
        ]
        if not group:
          continue

        def advance(done: int, before: int = before) -> None:
          shown.update(task, completed=before + done)

        runs = [Run(r, i) for r in group for i in range(repeats)]
        results = heads[rate].run(runs, data, parts, advance)
        before += len(runs) * epochs
        for i, row in enumerate(group):
          own = results[i * repeats : (i + 1) * repeats]
          content = {**row._asdict(), **of_option, 'repeats': own}
          with files.lock(workdir):
            files.write_json(_row_path(workdir, row), content)


def _option_facts(
  config: ml_collections.ConfigDict, loaded: _Set, option: int
) -> dict[str, Any]:
  """What the rows of a loading option have in common."""
  split, catalogue = loaded.split[option], loaded.catalogue
  return {
    'data': {
      'fingerprint': catalogue.fingerprint,
      'classes': list(catalogue.class_names),
      'order': config.data.order,
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
) -> dict[str, Any]:
  """What a backbone is and costs."""
  size = config.data.image_size
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
  variables = jax.eval_shape(
    lambda: backbone.model.init(
      jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False
    )
  )
  step = features.make_step(
    apply_fn=backbone.model.apply, preprocessing=backbone.preprocessing
  )
  cost = jax.jit(step).lower(variables, image).cost_analysis() or {}
  speed = None
  if extracted.seconds:
    speed = round(extracted.computed / extracted.seconds, 2)
  return {
    'backbone': {
      'name': config.model.name,
      'width': config.model.width,
      'blocks': list(config.model.blocks),
      'image_size': size,
      'dtype': config.model.dtype,
      'weights': pathlib.Path(config.model.weights).name,
      'features': extracted.features.shape[-1],
      'parameters': experiment.size_of(variables['params']),
      'flops_an_image': cost.get('flops'),
      'images_per_second': speed,
    }
  }
