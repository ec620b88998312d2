"""The published NASNet-Large at 224 px, trained from scratch, on a GPU.

    python main.py --config=configs/nasnet_large.py --workdir=W
      --config.data.source=path/to/leukemia.zip

With --config.model.weights=imagenet --config.train.freeze_backbone=True it
trains a head on ImageNet's features, as the study did; configs/study.py has the
study's protocol.
"""

import ml_collections
from leukemia_jax.configs import inception_resnet_v2


def get_config() -> ml_collections.ConfigDict:
  """As inception_resnet_v2, with six normal cells a stage.

  The momentum stays 0.99: Keras' 0.9997 lags thousands of steps behind.
  """
  config = inception_resnet_v2.get_config()
  config.model.name = 'nasnet_large'
  config.model.blocks = (6, 6, 6)
  return config
