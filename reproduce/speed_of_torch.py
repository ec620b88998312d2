"""Speed of a plain U-Net in PyTorch, asked line by line; see speed_of_timm.

    python -m reproduce.speed_of_torch --model=unet --size=224 --batch=4
      --dtype=float32

has the layers of `leukemia_jax.models.unet` at its published size. Needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reproduce.torch_turns import take_turns
from reproduce.turn_lines import not_installed, parse, say

if TYPE_CHECKING:
  import torch

_FILTERS = (64, 128, 256, 512, 1024)


def make_unet() -> torch.nn.Module:
  """Float images (batch, 3, height, width) to logits (batch, 1, ...)."""
  import torch
  from torch import nn

  def double(before: int, filters: int) -> nn.Module:
    return nn.Sequential(
      nn.Conv2d(before, filters, 3, padding=1),
      nn.ReLU(inplace=True),
      nn.Conv2d(filters, filters, 3, padding=1),
      nn.ReLU(inplace=True),
    )

  class UNet(nn.Module):
    """Two convolutions a level, skips, transposed convolutions."""

    def __init__(self) -> None:
      super().__init__()
      self.down = nn.ModuleList(
        double(before, filters)
        for before, filters in zip((3, *_FILTERS), _FILTERS, strict=False)
      )
      levels = list(zip(_FILTERS[1:], _FILTERS, strict=False))[::-1]
      self.widen = nn.ModuleList(
        nn.ConvTranspose2d(
          before, filters, 3, stride=2, padding=1, output_padding=1
        )
        for before, filters in levels
      )
      self.up = nn.ModuleList(
        double(2 * filters, filters) for _, filters in levels
      )
      self.logits = nn.Conv2d(_FILTERS[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
      skips = []
      for block in self.down[:-1]:
        x = block(x)
        skips.append(x)
        x = nn.functional.max_pool2d(x, 2)
      x = self.down[-1](x)
      for widen, block in zip(self.widen, self.up, strict=True):
        x = block(torch.cat([widen(x), skips.pop()], 1))
      logits: torch.Tensor = self.logits(x)
      return logits

  return UNet()


def main() -> None:
  """See the module's text."""
  args = parse('--dtype', ('float32', 'bfloat16'))
  if args.model != 'unet' or args.size % 2 ** (len(_FILTERS) - 1):
    say(missing=f'a plain U-Net is no {args.model} at {args.size} px')
    return
  if absent := not_installed('torch'):
    say(missing=absent)
    return
  import torch

  def loss(logits: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(
      logits.float(), (logits.detach() > 0).float()
    )

  take_turns(make_unet(), loss, args)


if __name__ == '__main__':
  main()
