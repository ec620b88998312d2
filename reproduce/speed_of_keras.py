"""Speed of Keras' own models, asked line by line; see speed_of_timm.

    python -m reproduce.speed_of_keras --model=nasnet_large --size=224
      --batch=16 --backend=jax

needs keras, and jax or torch.
"""

import os

from reproduce.turn_lines import answer, not_installed, parse, say

_NAMES = {
  'inception_resnet_v2': 'InceptionResNetV2',
  'nasnet_large': 'NASNetLarge',
  'nasnet_mobile': 'NASNetMobile',
}


def main() -> None:
  """See the module's text."""
  args = parse('--backend', ('jax', 'torch'))
  absent = not_installed('keras', args.backend)
  if args.model not in _NAMES or absent:
    say(missing=absent or f'no {args.model}')
    return
  os.environ['KERAS_BACKEND'] = args.backend
  import keras
  import numpy as np

  model = getattr(keras.applications, _NAMES[args.model])(
    weights=None, input_shape=(args.size, args.size, 3), classes=4
  )
  model.compile(optimizer='adam', loss='sparse_categorical_crossentropy')
  shape = (args.batch, args.size, args.size, 3)
  images = np.random.default_rng(0).random(shape, np.float32)
  labels = np.arange(args.batch) % 4
  say(versions={'keras': keras.__version__})
  answer(
    {
      'inference': lambda: np.asarray(model.predict_on_batch(images)),
      'training': lambda: model.train_on_batch(images, labels),
    },
    args.batch,
  )


if __name__ == '__main__':
  main()
