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
from leukemia_jax.training import calls, loop
from leukemia_jax.training.plateau_and_stopping import Rules
from leukemia_jax.workdir import checkpoint

MESH = sharding.make_mesh(1, 16)
RULES = Rules(plateau_factor=0.2, plateau_patience=2, stop_patience=4)


def schedule(rules=RULES, **changes) -> loop.Schedule:
  values = {
    'epochs': 5,
    'batch_size': 16,
    'scored_at_once': 16,
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


def log(workdir):
  """The epochs' lines without times."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [
    {k: v for k, v in json.loads(line).items() if k != 'seconds'}
    for line in lines
  ]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that nothing stops: its outcome, and its log."""
  folder = tmp_path_factory.mktemp('whole')
  return fit(folder), log(folder)


def test_a_log_that_is_lost_is_not_counted_anew(tmp_path):
  fit(tmp_path / 'w', epochs=2)
  (tmp_path / 'w/metrics.jsonl').unlink()
  resumed = fit(tmp_path / 'w', epochs=3)
  assert resumed.epochs == 3
  assert [line['epoch'] for line in log(tmp_path / 'w')] == [3]
  assert fit(tmp_path / 'w', epochs=3).epochs == 3
  assert [line['epoch'] for line in log(tmp_path / 'w')] == [3]
  (tmp_path / 'w/metrics.jsonl').write_text('{"loss": 1}\n')
  with pytest.raises(InputError, match='lines have no epoch; remove it'):
    fit(tmp_path / 'w', epochs=3)


class Killed(Exception):
  """Stands for a kill at a given moment."""


@pytest.mark.parametrize('images', [data, data_on_disk])
@pytest.mark.parametrize(
  'count', [4, *(pytest.param(i, marks=pytest.mark.full) for i in (6, 13))]
)
def test_a_stopped_run_goes_on_to_the_same_bits(
  whole, tmp_path, monkeypatch, count, images
):
  left = [count]
  original = calls.CompiledSteps.__call__

  def cut_off(self, *args):
    left[0] -= 1
    if left[0] < 0:
      raise Killed
    return original(self, *args)

  with monkeypatch.context() as patch:
    patch.setattr(calls.CompiledSteps, '__call__', cut_off)
    with pytest.raises(Killed):
      fit(tmp_path / 'cut', images=images)
  resumed = fit(tmp_path / 'cut', images=images)
  assert checkpoint.fingerprint(whole[0].variables) == checkpoint.fingerprint(
    resumed.variables
  )
  assert log(tmp_path / 'cut') == whole[1]


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
  assert log(tmp_path) == whole[1]
  assert checkpoint.fingerprint(whole[0].variables) == checkpoint.fingerprint(
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


def test_several_steps_in_a_call(tmp_path, whole):
  fit(tmp_path / 'cut', steps_per_call=2, epochs=3)
  resumed = fit(tmp_path / 'cut', steps_per_call=2)
  once = fit(tmp_path / 'once', steps_per_call=2)
  assert resumed.cost.resumed
  assert checkpoint.fingerprint(resumed.variables) == checkpoint.fingerprint(
    once.variables
  )
  first, alone = log(tmp_path / 'once')[0], whole[1][0]
  assert first == pytest.approx(alone, rel=1e-3)


def test_a_finished_run_is_not_trained_again(tmp_path):
  one, two = fit(tmp_path), fit(tmp_path)
  assert two.cost.images == 0
  assert checkpoint.fingerprint(one.variables) == checkpoint.fingerprint(
    two.variables
  )


def test_best_weights_come_back(tmp_path):
  outcome = fit(tmp_path, epochs=12)
  losses = [line['validation_loss'] for line in log(tmp_path)]
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
  fit(tmp_path, epochs=40, rules=Rules(0.2, 40, 40))
  assert log(tmp_path)[-1]['validation_accuracy'] > 0.9


@pytest.mark.parametrize(
  ('steps_per_call', 'checkpoint_steps', 'steps'),
  [(8, 200, 97), (8, 3, 91), (1, 3, 10), (16, 5, 7), (4, 4, 12)],
)
def test_calls_have_two_lengths_at_most(
  steps_per_call, checkpoint_steps, steps
):
  for epoch in range(5):
    first, end = epoch * steps, (epoch + 1) * steps
    step, since = first, 0
    for count, saves in calls.plan(
      *(first, end),
      steps_per_call=steps_per_call,
      checkpoint_steps=checkpoint_steps,
    ):
      step += count
      assert count == steps_per_call or step == end
      crossed = step // checkpoint_steps > (step - count) // checkpoint_steps
      assert saves == (crossed and step < end)
      since = 0 if saves else since + count
      # No more is lost than was asked for, and one call.
      assert since < checkpoint_steps + steps_per_call
    assert step == end


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  with pytest.raises(calls.DivergedError, match=r'step \d+ with learning rate'):
    fit(tmp_path, rate=1e30)


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
  def altered(step):
    def broken(state, *args):
      state, reported = step(state, *args)
      factor = jnp.where(state.step == 3, jnp.nan, 1.0)
      params = jax.tree.map(lambda leaf: leaf * factor, state.params)
      return state.replace(params=params), reported

    return broken

  with pytest.raises(calls.DivergedError, match='not finite at step 3'):
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

  with pytest.raises(calls.DivergedError, match='step 8'):
    fit(tmp_path, altered=altered, epochs=4)
  manager = checkpoint.open_manager(tmp_path / 'checkpoints/latest')
  assert manager.latest_step() == 6
  manager.close()
