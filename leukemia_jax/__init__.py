"""Leukemia classification and segmentation from blood smears, in JAX."""

__version__ = '0.2.0'
