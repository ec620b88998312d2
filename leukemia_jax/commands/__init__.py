"""One file a mode of the command line, each with a function `run`."""
