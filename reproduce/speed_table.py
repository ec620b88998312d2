"""The table of speeds beside other libraries'."""

import pathlib

from leukemia_jax.reporting import pages
from reproduce.stored import link, read

# Columns, and their names beside one network or another.
_OTHERS = {
  ': PyTorch float32': ('timm_fp32', 'torch_fp32'),
  ': PyTorch bfloat16': ('timm_bf16', 'torch_bf16'),
  ': Keras on JAX': ('keras_jax',),
}


def speeds(page: pathlib.Path) -> str:
  """Images a second of each network, and their ratios to others'."""
  cells = []
  for name, measured in read('speeds').items():
    for what in ('inference', 'training'):
      rate = measured[what]['images_per_second']
      ratios = measured['ratios'][what]
      cells.append(
        [
          link('speeds.json', name, page),
          what,
          f'{rate["median"]:.1f} ({rate["lowest"]:.1f} to '
          f'{rate["highest"]:.1f})',
          *(
            ', '.join(f'{ratios[n]:.2f}' for n in names if n in ratios)
            for names in _OTHERS.values()
          ),
          pages.percent(measured[what]['share_of_products'], 0),
        ]
      )
  header = [
    'ours',
    '',
    'images/s (lowest to highest)',
    *_OTHERS,
    '% of a large product',
  ]
  return pages.table(header, cells)
