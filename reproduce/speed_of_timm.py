"""Speed of timm's models in PyTorch, asked line by line.

    python -m reproduce.speed_of_timm --model=inception_resnet_v2
      --size=224 --batch=16 --dtype=bfloat16

prints the versions, then for each line of standard input, 'inference' or
'training', one turn's images a second, as JSON. Needs torch and timm: channels
last, on a CPU or the first GPU; bfloat16 by autocast.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from leukemia_jax.benchmark.turns import measure_rate

_NAMES = {
  'inception_resnet_v2': 'inception_resnet_v2',
  'nasnet_large': 'nasnetalarge',
}


def parse(option: str, choices: tuple[str, ...]) -> argparse.Namespace:
  """What a benchmark says of the model, and a library's own option."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--model', required=True)
  parser.add_argument('--size', type=int, required=True)
  parser.add_argument('--batch', type=int, required=True)
  parser.add_argument(option, choices=choices, required=True)
  return parser.parse_args()


def say(**content: Any) -> None:
  """Prints a line of JSON."""
  print(json.dumps(content), flush=True)


def answer(calls: dict[str, Callable[[], object]], images: int) -> None:
  """Takes a turn of what each line of standard input asks for."""
  for line in sys.stdin:
    call = calls[line.strip()]
    call()
    say(images_per_second=measure_rate(call, images))


def main() -> None:
  """See the module's text."""
  args = parse('--dtype', ('float32', 'bfloat16'))
  if args.model not in _NAMES:
    say(missing=f'timm has no {args.model}')
    return
  try:
    import timm
    import torch
  except ImportError as error:
    say(missing=str(error))
    return
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = timm.create_model(_NAMES[args.model], num_classes=4)
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
    model.eval()
    with (
      torch.inference_mode(),
      torch.autocast(device, torch.bfloat16, enabled=is_rounded),
    ):
      model(images)
    wait()

  def train() -> None:
    model.train()
    with torch.autocast(device, torch.bfloat16, enabled=is_rounded):
      loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    wait()

  say(versions={'torch': torch.__version__, 'timm': timm.__version__})
  answer({'inference': infer, 'training': train}, args.batch)


if __name__ == '__main__':
  main()
