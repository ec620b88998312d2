"""U-Net with feature pyramids; else as configs/unet.py.

    python main.py --config=configs/unet_fpn.py --workdir=runs/unet_fpn

The study's size, 38.1 million parameters: --config=configs/unet_fpn.py:study
"""

import ml_collections
from leukemia_jax.configs import unet


def get_config(size: str = 'small') -> ml_collections.ConfigDict:
  """'small', or the 'study' size."""
  config = unet.get_config(size)
  config.model.name = 'unet_fpn'
  return config
