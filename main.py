"""The command line; see `python main.py --help`."""

from leukemia_jax import cli

if __name__ == '__main__':
  cli.main()
