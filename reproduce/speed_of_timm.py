"""Speed of timm's models in PyTorch, asked line by line.

    python -m reproduce.speed_of_timm --model=inception_resnet_v2
      --size=224 --batch=16 --dtype=bfloat16

prints the versions, then for each line of standard input, 'inference' or
'training', one turn's images a second, as JSON. Needs torch and timm.
"""

from reproduce.torch_turns import take_turns
from reproduce.turn_lines import not_installed, parse, say

_NAMES = {
  'inception_resnet_v2': 'inception_resnet_v2',
  'nasnet_large': 'nasnetalarge',
}


def main() -> None:
  """See the module's text."""
  args = parse('--dtype', ('float32', 'bfloat16'))
  if args.model not in _NAMES:
    say(missing=f'timm has no {args.model}')
    return
  if absent := not_installed('torch', 'timm'):
    say(missing=absent)
    return
  import timm
  import torch

  def loss(logits: torch.Tensor) -> torch.Tensor:
    labels = torch.arange(len(logits), device=logits.device) % 4
    return torch.nn.functional.cross_entropy(logits, labels)

  model = timm.create_model(_NAMES[args.model], num_classes=4)
  take_turns(model, loss, args, timm=timm.__version__)


if __name__ == '__main__':
  main()
