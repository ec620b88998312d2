"""Training: the compiled step, the loop, and what they start from."""
