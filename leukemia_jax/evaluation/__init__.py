"""A trained model's scores, beside those of simple baselines."""
