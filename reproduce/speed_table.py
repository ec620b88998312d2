"""The table of speeds beside other libraries'."""

import pathlib

from leukemia_jax.reporting import pages
from reproduce.stored import link, read

_LIBRARIES = {
  'timm_fp32': 'timm float32',
  'timm_bf16': 'timm bfloat16',
  'keras_jax': 'Keras on JAX',
  'keras_torch': 'Keras on PyTorch',
  'torch_fp32': 'PyTorch float32',
  'torch_bf16': 'PyTorch bfloat16',
}


def speeds(page: pathlib.Path) -> str:
  """Images a second of each network, and its ratios to others'."""
  cells = []
  for name, measured in read('speeds').items():
    for what in ('inference', 'training'):
      rate = measured[what]['images_per_second']
      ratios = [
        f'{_LIBRARIES[library]} {ratio:.2f}'
        for library, ratio in measured['ratios'][what].items()
      ]
      cells.append(
        [
          link('speeds.json', name, page) if what == 'inference' else '',
          what,
          f'{rate["median"]:.1f} ({rate["lowest"]:.1f} to '
          f'{rate["highest"]:.1f})',
          ', '.join(ratios),
          pages.percent(measured[what]['share_of_products'], 0),
        ]
      )
  header = [
    'network',
    '',
    'images/s (lowest to highest)',
    'ours to theirs',
    '% of the largest product',
  ]
  return pages.table(header, cells)
