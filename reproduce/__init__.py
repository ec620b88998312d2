"""Makes the numbers and pictures in `results/` and the pages again."""
