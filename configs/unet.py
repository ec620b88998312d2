"""The study's U-Net: 224 px, 35 epochs, float32, on pairs of image and mask.

For `leukemia_jax.train` in Python: the commands train classifiers.
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  """Full size: 34.5 million parameters."""
  config = default.get_config()
  config.data.image_size = 224
  config.model.name = 'unet'
  config.model.width = 1.0
  config.model.blocks = ()
  config.model.depth = 4
  config.train.epochs = 35
  return config
