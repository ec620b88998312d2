"""Takes turns of a benchmark's programs with the package of some checkout.

    python speed_of_checkout.py CHECKOUT CONFIG BATCH

prints the dtype that `auto` chooses, then answers each line of standard
input, 'inference' or 'training', with images a second at 224 px in float32, as
JSON. What measures is this checkout's, also where the other has no benchmark.
"""

import contextlib
import importlib
import importlib.util
import pathlib
import sys

_ROOT = pathlib.Path(__file__).parents[1]


def main() -> None:
  """Compiles both programs, and takes turns."""
  checkout, name, batch = sys.argv[1:]
  sys.path.insert(0, checkout)
  import leukemia_jax

  # Only for what the checkout itself lacks.
  leukemia_jax.__path__.append(str(_ROOT / 'leukemia_jax'))
  sys.path.append(str(_ROOT))
  # How many images a step takes is of what measures.
  own = importlib.util.spec_from_file_location(
    'leukemia_jax.devices', _ROOT / 'leukemia_jax/devices.py'
  )
  assert own and own.loader
  devices = importlib.util.module_from_spec(own)
  sys.modules['leukemia_jax.devices'] = leukemia_jax.devices = devices
  own.loader.exec_module(devices)
  if (pathlib.Path(checkout) / 'leukemia_jax/memory.py').exists():
    from leukemia_jax import memory

    memory.keep_freed()
  # Of this folder, where Python looks for what a script imports.
  import turn_lines

  from leukemia_jax import build, tasks
  from leukemia_jax.benchmark import programs

  file, _, argument = name.partition(':')
  module = importlib.import_module(f'leukemia_jax.configs.{file}')
  config = module.get_config(*([argument] if argument else []))
  config.data.image_size, config.train.batch_size = 224, int(batch)
  # What 'auto' is for random weights.
  config.model.preprocess = 'unit'
  task = tasks.for_model(config.model.name)
  inputs = build.inputs(config, task.targets)
  network = tasks.make_network(task, config, task.num_outputs(4))
  with contextlib.redirect_stdout(sys.stderr):
    timed = {
      'inference': programs.inference(config, network, inputs),
      'training': programs.training(config, network, inputs),
    }
  turn_lines.say(auto=devices.fast_dtype())
  for line in sys.stdin:
    turn_lines.say(images_per_second=timed[line.strip()].turn())


if __name__ == '__main__':
  main()
