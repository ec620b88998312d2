"""Experiments as config files; also installed as `leukemia_jax.configs`."""
