"""The command line; see `python main.py --help`."""

from leukemia_jax import __main__

if __name__ == '__main__':
  __main__.main()
