"""The published NASNet-Mobile at 224 px, trained from scratch, on a GPU.

    python main.py --config=configs/nasnet_mobile.py --workdir=W
      --config.data.source=path/to/leukemia.zip

For a CPU make it smaller, as the commands at the end of docs/results.md do.
"""

import ml_collections
from leukemia_jax.configs import nasnet_large


def get_config() -> ml_collections.ConfigDict:
  """As nasnet_large, a twentieth of its size."""
  config = nasnet_large.get_config()
  config.model.name = 'nasnet_mobile'
  config.model.blocks = (4, 4, 4)
  return config
