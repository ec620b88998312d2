"""The training loop: bits after a stop, divergence, overfit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, COUNT, KEY, data, data_on_disk, parts

from leukemia_jax import files, sharding
from leukemia_jax.errors import InputError
from leukemia_jax.evaluation import eval_step
from leukemia_jax.training import loop
from leukemia_jax.training.plateau_and_stopping import Rules
from leukemia_jax.workdir import checkpoint

MESH = sharding.make_mesh(1, 16)
RULES = Rules(plateau_factor=0.2, plateau_patience=2, stop_patience=4)


def schedule(rules=RULES, **changes) -> loop.Schedule:
  values = {
    'epochs': 5,
    'batch_size': 16,
    'checkpoint_steps': 3,
    'steps_per_call': 1,
  }
  return loop.Schedule(**values | changes, rules=rules)


def fit(
  workdir,
  freeze=False,
  altered=lambda step: step,
  rate=1e-2,
  images=data,
  **changes,
):
  """Trains the tiny network, perhaps by an altered step."""
  state, step, scorer = parts(freeze, rate)
  learner = loop.Learner(altered(step), scorer, CLASSES, lambda confusion: {})
  return loop.fit(
    state,
    learner,
    loop.TrainingData(images(), np.arange(40), np.arange(40, COUNT)),
    key=KEY,
    schedule=schedule(**changes),
    workdir=workdir,
    mesh=MESH,
  )


def without_times(history):
  return [{k: v for k, v in line.items() if k != 'seconds'} for line in history]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  return fit(tmp_path_factory.mktemp('whole'))


def test_a_log_that_is_lost_is_not_counted_anew(tmp_path):
  fit(tmp_path / 'w', epochs=2)
  (tmp_path / 'w/metrics.jsonl').unlink()
  resumed = fit(tmp_path / 'w', epochs=3)
  assert resumed.epochs == 3
  assert [line['epoch'] for line in resumed.history] == [3]
  again = fit(tmp_path / 'w', epochs=3)
  assert [line['epoch'] for line in again.history] == [3]
  (tmp_path / 'w/metrics.jsonl').write_text('{"loss": 1}\n')
  with pytest.raises(InputError, match='lines have no epoch; remove it'):
    fit(tmp_path / 'w', epochs=3)


class Killed(Exception):
  """Stands for a kill at a given moment."""


@pytest.mark.parametrize('images', [data, data_on_disk])
@pytest.mark.parametrize(
  'calls', [4, *(pytest.param(i, marks=pytest.mark.full) for i in (6, 13))]
)
def test_a_stopped_run_goes_on_to_the_same_bits(
  whole, tmp_path, monkeypatch, calls, images
):
  left = [calls]
  original = loop.CompiledSteps.__call__

  def cut_off(self, *args):
    left[0] -= 1
    if left[0] < 0:
      raise Killed
    return original(self, *args)

  with monkeypatch.context() as patch:
    patch.setattr(loop.CompiledSteps, '__call__', cut_off)
    with pytest.raises(Killed):
      fit(tmp_path / 'cut', images=images)
  resumed = fit(tmp_path / 'cut', images=images)
  assert checkpoint.fingerprint(whole.variables) == checkpoint.fingerprint(
    resumed.variables
  )
  assert without_times(whole.history) == without_times(resumed.history)
  lines = (tmp_path / 'cut/metrics.jsonl').read_text().splitlines()
  assert without_times(map(json.loads, lines)) == without_times(whole.history)


@pytest.mark.parametrize(
  'count',
  [1, *(pytest.param(i, marks=pytest.mark.full) for i in (2, 5))],
)
@pytest.mark.parametrize(
  'place',
  [
    'files.write',
    pytest.param('checkpoint.save', marks=pytest.mark.full),
    pytest.param('after checkpoint.save', marks=pytest.mark.full),
  ],
)
def test_a_stop_between_two_files_changes_nothing(
  whole, tmp_path, monkeypatch, place, count
):
  """Stops before or after one of the writes at the end of an epoch."""
  left = [count]
  module, name = place.removeprefix('after ').split('.')
  target = {'checkpoint': checkpoint, 'files': files}[module]
  original = getattr(target, name)

  def cut_off(*args):
    left[0] -= 1
    if left[0] == 0 and not place.startswith('after'):
      raise Killed
    original(*args)
    if left[0] == 0:
      raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(target, name, cut_off)
    with pytest.raises(Killed):
      fit(tmp_path)
  resumed = fit(tmp_path)
  assert without_times(whole.history) == without_times(resumed.history)
  assert checkpoint.fingerprint(whole.variables) == checkpoint.fingerprint(
    resumed.variables
  )


@pytest.mark.full
def test_a_frozen_run_goes_on_too(tmp_path):
  one = fit(tmp_path / 'one', freeze=True, epochs=4)
  fit(tmp_path / 'two', freeze=True, epochs=2)
  two = fit(tmp_path / 'two', freeze=True, epochs=4)
  assert two.cost.resumed
  assert checkpoint.fingerprint(one.variables) == checkpoint.fingerprint(
    two.variables
  )


def test_a_finished_run_is_not_trained_again(tmp_path):
  one, two = fit(tmp_path), fit(tmp_path)
  assert two.cost.images == 0
  assert checkpoint.fingerprint(one.variables) == checkpoint.fingerprint(
    two.variables
  )


def test_best_weights_come_back(tmp_path):
  outcome = fit(tmp_path, epochs=12)
  losses = [line['validation_loss'] for line in outcome.history]
  assert outcome.best_epoch == int(np.argmin(losses)) + 1
  _, _, scorer = parts()
  loss, _ = eval_step.run(
    scorer,
    outcome.variables,
    data(),
    np.arange(40, COUNT),
    batch_size=16,
    num_classes=CLASSES,
    mesh=MESH,
  )
  assert loss / 10 == pytest.approx(min(losses), rel=1e-6)


def test_it_learns(tmp_path):
  outcome = fit(tmp_path, epochs=40, rules=Rules(0.2, 40, 40))
  assert outcome.history[-1]['validation_accuracy'] > 0.9


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  with pytest.raises(loop.DivergedError, match=r'step \d+ with learning rate'):
    fit(tmp_path, rate=1e30)


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
  def altered(step):
    def broken(state, *args):
      state, reported = step(state, *args)
      factor = jnp.where(state.step == 3, jnp.nan, 1.0)
      params = jax.tree.map(lambda leaf: leaf * factor, state.params)
      return state.replace(params=params), reported

    return broken

  with pytest.raises(loop.DivergedError, match='not finite at step 3'):
    fit(tmp_path, altered=altered, batch_size=8, checkpoint_steps=3)
  manager = checkpoint.open_manager(tmp_path / 'checkpoints/latest')
  assert manager.latest_step() is None
  manager.close()


def test_divergence_keeps_the_last_good_checkpoint(tmp_path):
  fit(tmp_path, epochs=2)

  def altered(step):
    def broken(state, *args):
      state, reported = step(state, *args)
      loss = jnp.where(state.step > 7, jnp.nan, reported.loss)
      return state, reported._replace(loss=loss)

    return broken

  with pytest.raises(loop.DivergedError, match='step 8'):
    fit(tmp_path, altered=altered, epochs=4)
  manager = checkpoint.open_manager(tmp_path / 'checkpoints/latest')
  assert manager.latest_step() == 6
  manager.close()
