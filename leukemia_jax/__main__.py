"""The command `leukemia-jax`, and `python -m leukemia_jax`."""

from leukemia_jax import interrupts, memory


def main() -> None:
  """Runs the command line; Ctrl-C ends it from here on."""
  # Before any thread: each that starts earlier has a heap of its own, which
  # later threads then share, and which is given back to Linux.
  memory.keep_freed()
  interrupts.install()
  memory.collect_rarely()
  # Slow to import, so not before.
  from leukemia_jax import cli

  cli.main()


if __name__ == '__main__':
  main()
