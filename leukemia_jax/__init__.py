"""Leukemia classification from blood-smear images, in JAX."""

__version__ = '0.1.0'
