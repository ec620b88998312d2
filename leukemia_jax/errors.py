"""The one exception that means: what came from outside can't be used."""


class InputError(ValueError):
  """Bad input: says what is wrong, where (file, key, value), and what to do.

  The command line prints it as one error and exits with status 1.
  """


class TooFewGroupsError(InputError):
  """A class has images for every part of a split, but too few groups."""
