"""How a benchmark and its scripts talk: lines of standard input and output."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

from leukemia_jax.timing import measure_rate


def parse(option: str, choices: tuple[str, ...]) -> argparse.Namespace:
  """What a benchmark says of the model, and a library's own option."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--model', required=True)
  parser.add_argument('--size', type=int, required=True)
  parser.add_argument('--batch', type=int, required=True)
  parser.add_argument(option, choices=choices, required=True)
  return parser.parse_args()


def not_installed(*libraries: str) -> str:
  """What is to be said of the first library that isn't there; '' of none."""
  for name in libraries:
    if importlib.util.find_spec(name) is None:
      return f'{name} is not installed'
  return ''


def say(**content: Any) -> None:
  """Prints a line of JSON."""
  print(json.dumps(content), flush=True)


def answer(calls: dict[str, Callable[[], object]], images: int) -> None:
  """Takes a turn of what each line of standard input asks for."""
  for line in sys.stdin:
    call = calls[line.strip()]
    call()
    say(images_per_second=measure_rate(call, images))
