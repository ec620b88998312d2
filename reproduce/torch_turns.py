"""What measures a PyTorch model, for the scripts that bring one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from reproduce.turn_lines import answer, say

if TYPE_CHECKING:
  import torch


def take_turns(
  model: torch.nn.Module,
  loss: Callable[[torch.Tensor], torch.Tensor],
  args: argparse.Namespace,
  **versions: str,
) -> None:
  """Says the versions, then answers with turns of a model.

  Channels last, on a CPU or the first GPU; bfloat16 by autocast.

  Args:
    model: maps float images (batch, 3, size, size) to an output.
    loss: maps that output to what Adam makes smaller.
    args: from `turn_lines.parse`, with `dtype`.
    **versions: of further libraries.
  """
  import torch

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = model.to(device, memory_format=torch.channels_last)
  images = torch.rand(args.batch, 3, args.size, args.size, device=device)
  images = images.contiguous(memory_format=torch.channels_last)
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
      value = loss(model(images))
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    wait()

  say(versions={'torch': torch.__version__, **versions})
  answer({'inference': infer, 'training': train}, args.batch)
