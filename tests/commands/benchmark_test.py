"""--mode=benchmark: speed, the machine's limits, and others."""

import json

import pytest
from command import refused, run

from leukemia_jax import devices


@pytest.mark.full
def test_a_benchmark_of_a_small_network(benchmarked):
  dtype = devices.fast_dtype()
  printed = (benchmarked / 'printed.txt').read_text()
  assert f'config.model.dtype=auto: {dtype}' in printed
  assert 'images/s in inference' in printed
  own = json.loads((benchmarked / 'benchmark.json').read_text())
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
  page = (benchmarked / 'benchmark.html').read_text()
  assert 'data:image/svg' in page and 'tracing' in page


def test_what_cannot_be_compared_is_refused(tmp_path):
  flags = ('--mode=benchmark', f'--workdir={tmp_path / "speed"}')
  for more, words in (
    (('--compare=flax',), '--compare=flax: there are keras, timm, torch'),
    (
      ('--compare=torch', '--config=configs/unet.py'),
      'other libraries have published sizes',
    ),
    (
      (
        '--compare=keras',
        '--config=configs/inception_resnet_v2.py',
        '--config.train.freeze_backbone=True',
      ),
      'other libraries have published sizes',
    ),
    (
      ('--config.train.accumulate=2',),
      'config.train.accumulate=2: what a step in pieces does is not counted',
    ),
  ):
    assert words in refused(run(*flags, *more))
  done = run(f'--workdir={tmp_path / "speed"}', '--compare=keras')
  assert '--compare goes together with --mode=benchmark' in refused(done)
  assert not (tmp_path / 'speed').exists()
