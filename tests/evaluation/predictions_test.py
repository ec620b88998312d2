"""predictions.csv: what is read of it, and how damage is named."""

import numpy as np
import pytest

from leukemia_jax.errors import InputError
from leukemia_jax.evaluation import predictions

CLASSES = """\
path,part,patient,group,true_class,predicted_class,p_a,p_b,loss
1.png,test,x,0,a,b,0.25,0.75,1.386
2.png,train,y,1,b,b,0.5,0.5,0.693
"""
MASKS = """\
path,part,patient,group,true_class,dice,true_positives,false_positives,\
false_negatives,true_negatives
1.png,test,x,0,,0.5,1,1,1,13
"""


def test_rows_are_read(tmp_path):
  path = tmp_path / 'predictions.csv'
  path.write_text(CLASSES)
  header, rows = predictions.read(path, ['a', 'b'])
  got = predictions.outcomes(rows, ['a', 'b'])
  np.testing.assert_array_equal(got.truth, [0, 1])
  # Of equally likely classes the one that was written.
  np.testing.assert_array_equal(got.predicted, [1, 1])
  np.testing.assert_array_equal(got.probabilities, [[0.25, 0.75], [0.5, 0.5]])
  assert predictions.from_rows(header, rows) == CLASSES
  path.write_text(MASKS)
  _, rows = predictions.read(path, ['a', 'b'])
  np.testing.assert_array_equal(predictions.pixel_counts(rows), [[1, 1, 1, 13]])


@pytest.mark.parametrize(
  ('content', 'before', 'after', 'words'),
  [
    (CLASSES, '0.75', 'x', "line 2, is damaged: .*'x'"),
    (CLASSES, '0.693', '', 'line 3, is damaged: .*'),
    (CLASSES, 'b,b', 'b,c', 'line 3, is damaged: no class of the model'),
    (CLASSES, ',loss', ',lost', 'is damaged: its columns'),
    (CLASSES, ',0.693', '', 'is damaged: its columns'),
    (CLASSES, '2.png', '"2.png', 'cannot be read'),
    (MASKS, ',13', ',1.5', "line 2, is damaged: .*'1.5'"),
    (MASKS, 'dice', 'score', 'is damaged: its columns'),
  ],
)
def test_damage_is_named(content, before, after, words, tmp_path):
  path = tmp_path / 'predictions.csv'
  path.write_text(content.replace(before, after))
  with pytest.raises(InputError, match=f'{path}.*{words}'):
    predictions.read(path, ['a', 'b'])
