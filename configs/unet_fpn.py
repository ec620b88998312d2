"""The study's U-Net with feature pyramids; else as configs/unet.py."""

import ml_collections

from configs import unet


def get_config() -> ml_collections.ConfigDict:
  """Full size: 38.1 million parameters."""
  config = unet.get_config()
  config.model.name = 'unet_fpn'
  return config
