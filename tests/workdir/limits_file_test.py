"""limits.npz: what is written comes back; damage is said."""

import numpy as np
import pytest

from leukemia_jax.errors import InputError
from leukemia_jax.metrics.outliers import Detector
from leukemia_jax.workdir import limits_file
from leukemia_jax.workdir.limits_file import HeldOut, Limits


def drawn():
  rng = np.random.default_rng(0)
  return Limits(
    Detector(rng.random((3, 5)), rng.random((5, 5))),
    HeldOut(rng.random(7), rng.random((7, 3)), rng.integers(3, size=7)),
  )


def test_what_is_written_comes_back(tmp_path):
  limits = drawn()
  limits_file.write(tmp_path, limits)
  again = limits_file.read(tmp_path)
  pairs = zip((*limits[0], *limits[1]), (*again[0], *again[1]), strict=True)
  for first, second in pairs:
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
  ('damage', 'why'),
  [
    ('missing', 'No such file'),
    ('cut', 'cannot be read: File is not a zip file'),
    ('pickled', 'allow_pickle=False'),
    ('misfit', 'its arrays do not fit each other'),
  ],
)
def test_damage_is_said(tmp_path, damage, why):
  path, limits = tmp_path / limits_file.NAME, drawn()
  if damage == 'misfit':
    held_out = limits.validation._replace(labels=np.full(7, 3))
    limits = limits._replace(validation=held_out)
  if damage != 'missing':
    limits_file.write(tmp_path, limits)
  if damage == 'cut':
    path.write_bytes(path.read_bytes()[:-100])
  if damage == 'pickled':
    arrays = limits.detector._asdict() | limits.validation._asdict()
    means = np.empty(limits.detector.means.shape, object)
    np.savez(path, **arrays | {'means': means})
  with pytest.raises(InputError, match=rf'limits\.npz.*{why}'):
    limits_file.read(tmp_path)
