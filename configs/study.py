"""The study's 48 runs: heads on frozen backbones at 224 px, in minutes.

    python main.py --mode=study --config=configs/study.py --workdir=W
      --config.data.source=path/to/leukemia.zip
      --config.study.inception_resnet_v2.weights=imagenet
      --config.study.nasnet_large.weights=imagenet

trains all rows; --config=configs/study.py:17 trains row 17 alone, into the same
tables. --config.data.protocol=split_then_balance splits before it balances, so
that no image is in two parts. As it was first done: --config.train.loss=
keras_clipped and, for each backbone, --config.study.NAME.preprocess=unit.
"""

import ml_collections
from leukemia_jax.configs import default


def get_config(row: str = '-1') -> ml_collections.ConfigDict:
  """All rows, or one by its number."""
  config = default.get_config()
  try:
    config.study.row = int(row)
  except ValueError:
    raise ValueError(f'{row!r} is no number of a row') from None
  config.data.image_size = 224
  config.data.protocol = 'balance_then_split'
  config.augment.fill = 'constant'
  config.train.epochs = 60
  return config
