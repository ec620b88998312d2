"""--mode=benchmark: speed, the machine's limits, and others."""

import json

import pytest
from command import SMALL, refused, run

from leukemia_jax import devices


@pytest.mark.full
def test_a_benchmark_of_a_small_network(tmp_path):
  done = run(
    *('--mode=benchmark', f'--workdir={tmp_path / "speed"}', *SMALL),
    '--config.model.dtype=auto',
  )
  assert done.returncode == 0, done.stderr
  dtype = devices.fast_dtype()
  assert f'config.model.dtype=auto: {dtype} on this processor' in done.stdout
  assert 'images/s in inference' in done.stdout
  own = json.loads((tmp_path / 'speed/benchmark.json').read_text())
  assert own['dtype'] == dtype
  limits = own['machine']
  for name in ('inference', 'training'):
    program = own[name]
    rate = program['images_per_second']
    assert 0 < rate['lowest'] <= rate['median'] <= rate['highest']
    assert program['share_of_products'] == pytest.approx(
      program['flops'] * rate['median'] / limits['products']
    )
  # A forward and a backward pass.
  assert own['training']['flops'] > 2 * own['inference']['flops']
  assert own['decoding']['median'] > 0 and own['augmentation']['median'] > 0
  assert own['compared'] == own['ratios'] == {'inference': {}, 'training': {}}
  page = (tmp_path / 'speed/benchmark.html').read_text()
  assert 'data:image/svg' in page and 'tracing' in page


def test_what_cannot_be_compared_is_refused(tmp_path):
  flags = ('--mode=benchmark', f'--workdir={tmp_path / "speed"}')
  for more, words in (
    (('--compare=torch',), '--compare=torch: there are keras, timm'),
    (('--compare=keras',), 'other libraries have published classifiers'),
    (
      ('--compare=keras', '--config=configs/unet.py'),
      'other libraries have published classifiers',
    ),
  ):
    assert words in refused(run(*flags, *more))
  done = run(f'--workdir={tmp_path / "speed"}', '--compare=keras')
  assert '--compare goes together with --mode=benchmark' in refused(done)
  assert not (tmp_path / 'speed').exists()
