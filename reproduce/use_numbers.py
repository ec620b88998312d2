"""Numbers about using models: cells, explanations, speed, the page."""

from typing import Any

from leukemia_jax.reporting import pages
from reproduce.stored import read


def _with_ends(own: dict[str, Any], digits: int) -> str:
  low, high = own['interval_95']
  return f'{own["mean"]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def cells() -> dict[str, str]:
  """How well cells of new patients are separated and sized."""
  measured = read('cells')
  errors = measured['diameter_error']
  return {
    'images': str(measured['images']),
    'patients': str(measured['patients']),
    'number': f'{measured["cells"]:,}',
    'loose': f'{measured["f1"]["0.5"]:.3f}',
    'strict': f'{measured["f1"]["0.75"]:.3f}',
    'median': pages.percent(errors['median']),
    'high': pages.percent(errors['percentile_90']),
  }


def explanations() -> dict[str, str]:
  """Whether heat lies on cells, and is faithful."""
  measured = read('explanations')
  numbers = {
    'images': str(measured['images']),
    'patients': str(measured['patients']),
  }
  for way, short in (('hires_cam', 'cam'), ('integrated_gradients', 'ig')):
    own = measured['ways'][way]
    numbers[f'{short} on cells'] = _with_ends(own['concentration'], 1)
    numbers[f'{short} deletion'] = _with_ends(own['random_minus_deletion'], 3)
    numbers[f'{short} insertion'] = _with_ends(own['insertion_minus_random'], 3)
  return numbers


def predict() -> dict[str, str]:
  """How much of a prediction's time is the network's own."""
  measured = read('predict')
  full, default = measured['full_size'], measured['default']
  speed, memory = full['images_per_second'], default['memory_bytes']
  return {
    'ours': f'{speed["predict"]:.2f}',
    'network': f'{speed["network"]:.2f}',
    'share': pages.percent(full['ratio'], 0),
    'images': f'{default["images"]:,}',
    'speed': f'{default["images_per_second"]:.0f}',
    'decoding': pages.percent(default['decoding_share'], 0),
    'half': f'{memory["first_half"] / 1e9:.2f}',
    'whole': f'{memory["whole"] / 1e9:.2f}',
  }


def serving() -> dict[str, str]:
  """The page under several clients."""
  measured = read('serving')
  memory = measured['memory_bytes']
  return {
    'clients': str(measured['clients']),
    'answers': f'{measured["answers"]:,}',
    'speed': f'{measured["answers_per_second"]:.0f}',
    'median': f'{measured["seconds_median"]:.2f}',
    'high': f'{measured["seconds_percentile_99"]:.2f}',
    'early': f'{memory["after_10_seconds"] / 1e9:.2f}',
    'late': f'{memory["at_the_end"] / 1e9:.2f}',
  }
