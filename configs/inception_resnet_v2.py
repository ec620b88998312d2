"""The published InceptionResNetV2 at 224 px, trained from scratch, on a GPU.

    python main.py --config=configs/inception_resnet_v2.py --workdir=W
      --config.data.source=path/to/leukemia.zip

For a CPU make it smaller, as the commands at the end of docs/results.md do.
"""

import ml_collections
from leukemia_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
  """Full size, 60 epochs, bfloat16, the study's batch and stopping rules."""
  config = default.get_config()
  config.data.image_size = 224
  config.model.width = 1.0
  config.model.blocks = (10, 20, 10)
  config.model.momentum = 0.99
  config.model.dtype = 'bfloat16'
  config.train.epochs = 60
  config.train.steps_per_call = 8
  return config
