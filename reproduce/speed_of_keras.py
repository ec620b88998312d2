"""Speed of Keras' own models, asked line by line; see speed_of_timm.py.

    python reproduce/speed_of_keras.py --model=nasnet_large --size=224
      --batch=16 --backend=jax

needs keras, and jax or torch.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import sys

# A script is run by its path.
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from speed_of_timm import rate

_NAMES = {
  'inception_resnet_v2': 'InceptionResNetV2',
  'nasnet_large': 'NASNetLarge',
  'nasnet_mobile': 'NASNetMobile',
}


def main() -> None:
  """See the module's text."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', required=True)
  parser.add_argument('--size', type=int, required=True)
  parser.add_argument('--batch', type=int, required=True)
  parser.add_argument('--backend', choices=('jax', 'torch'), required=True)
  args = parser.parse_args()
  absent = [
    name
    for name in ('keras', args.backend)
    if importlib.util.find_spec(name) is None
  ]
  if args.model not in _NAMES or absent:
    why = f'{absent[0]} is not installed' if absent else f'no {args.model}'
    print(json.dumps({'missing': why}), flush=True)
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
  calls = {
    'inference': lambda: np.asarray(model.predict_on_batch(images)),
    'training': lambda: model.train_on_batch(images, labels),
  }
  print(json.dumps({'versions': {'keras': keras.__version__}}), flush=True)
  for line in sys.stdin:
    call = calls[line.strip()]
    call()
    answer = {'images_per_second': rate(call, args.batch)}
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
