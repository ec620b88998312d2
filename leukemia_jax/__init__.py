"""Leukemia classification and segmentation from blood smears, in JAX."""

import pathlib

__version__ = '0.5.0'

# In a checkout `leukemia_jax.configs` is the folder beside the package.
_CHECKOUT = pathlib.Path(__file__).parents[1]
if (_CHECKOUT / 'configs/default.py').is_file():
  __path__.append(str(_CHECKOUT))
