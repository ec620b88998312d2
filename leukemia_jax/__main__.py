"""The command `leukemia-jax`, and `python -m leukemia_jax`."""

from leukemia_jax import interrupts, memory


def main() -> None:
  """Runs the command line; Ctrl-C ends it from here on."""
  interrupts.install()
  # Before a library starts threads.
  memory.keep_freed()
  memory.collect_rarely()
  # Slow to import, so not before.
  from leukemia_jax import cli

  cli.main()


if __name__ == '__main__':
  main()
