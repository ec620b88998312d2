"""Speed of timm's models in PyTorch, asked line by line.

    python reproduce/speed_of_timm.py --model=inception_resnet_v2 --size=224
      --batch=16 --dtype=bfloat16

prints the versions, then for each line of standard input, 'inference' or
'training', one turn's images a second, as JSON. Needs torch and timm: channels
last, on a CPU or the first GPU; bfloat16 by autocast.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

NAMES = {
  'inception_resnet_v2': 'inception_resnet_v2',
  'nasnet_large': 'nasnetalarge',
}
# As long a turn of ours takes, s.
_TURN_SECONDS, _FEWEST_CALLS = 2.0, 2


def rate(call: Callable[[], None], images: int) -> float:
  """Images a second over one turn."""
  started, calls = time.perf_counter(), 0
  while calls < _FEWEST_CALLS or time.perf_counter() - started < _TURN_SECONDS:
    call()
    calls += 1
  return calls * images / (time.perf_counter() - started)


def main() -> None:
  """See the module's text."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', required=True)
  parser.add_argument('--size', type=int, required=True)
  parser.add_argument('--batch', type=int, required=True)
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), required=True)
  args = parser.parse_args()
  if args.model not in NAMES:
    print(json.dumps({'missing': f'timm has no {args.model}'}), flush=True)
    return
  try:
    import timm
    import torch
  except ImportError as error:
    print(json.dumps({'missing': str(error)}), flush=True)
    return
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = timm.create_model(NAMES[args.model], num_classes=4)
  model = model.to(device, memory_format=torch.channels_last)
  images = torch.rand(args.batch, 3, args.size, args.size, device=device)
  images = images.contiguous(memory_format=torch.channels_last)
  labels = torch.arange(args.batch, device=device) % 4
  optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
  is_rounded = args.dtype == 'bfloat16'

  def wait() -> None:
    if device == 'cuda':
      torch.cuda.synchronize()

  def infer() -> None:
    with (
      torch.inference_mode(),
      torch.autocast(device, torch.bfloat16, enabled=is_rounded),
    ):
      model(images)
    wait()

  def train() -> None:
    with torch.autocast(device, torch.bfloat16, enabled=is_rounded):
      loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    wait()

  calls = {'inference': infer, 'training': train}
  versions = {'torch': torch.__version__, 'timm': timm.__version__}
  print(json.dumps({'versions': versions}), flush=True)
  for line in sys.stdin:
    what = line.strip()
    model.train(what == 'training')
    calls[what]()
    answer = {'images_per_second': rate(calls[what], args.batch)}
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
