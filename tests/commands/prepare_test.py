"""--mode=prepare: counts, sheets, names of any kind."""

import conftest
import pytest
from command import SMALL, refused, run


@pytest.mark.full
def test_prepare_counts_and_draws(tmp_path, cache):
  done = run(f'--workdir={tmp_path}/w', '--mode=prepare', cache, *SMALL)
  assert done.returncode == 0, done.stderr
  assert '| Benign | 15 |' in done.stdout
  for name in ('classes.png', 'augmented.png'):
    assert (tmp_path / 'w' / name).stat().st_size > 10_000


@pytest.mark.full
def test_names_with_spaces_and_other_scripts(tmp_path, cache):
  conftest.save_images(
    tmp_path / 'meine Bilder/été', {'白血病 1': 4, 'gesund': 4}, size=75
  )
  done = run(
    f'--workdir={tmp_path}/Lauf 1',
    '--mode=prepare',
    cache,
    *SMALL,
    f'--config.data.source={tmp_path}/meine Bilder',
  )
  assert done.returncode == 0, done.stderr
  assert '| 白血病 1 | 4 |' in done.stdout
  assert (tmp_path / 'Lauf 1/classes.png').exists()


def test_it_leaves_another_runs_workdir_alone(tmp_path, cache):
  from leukemia_jax.configs import default

  from leukemia_jax.workdir import claim

  config = default.get_config()
  claim.claim(tmp_path / 'w', 'train', config)
  flags = ['--mode=prepare', cache, '--config.seed=4']
  error = refused(run(f'--workdir={tmp_path}/w', *flags))
  assert 'seed: 0 saved, 4 now' in error
