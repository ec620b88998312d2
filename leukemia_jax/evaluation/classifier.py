"""A classifier's scores, beside what colours alone give away."""

import numpy as np

from leukemia_jax.audit import baselines
from leukemia_jax.evaluation import eval_step
from leukemia_jax.evaluation.scored import Scored, Subject
from leukemia_jax.metrics import classification
from leukemia_jax.workdir.result import Baselines


def score(subject: Subject) -> Scored:
  """Scores a classifier.

  Args:
    subject: the classifier and the set.

  Returns:
    Scores by part; and if there is a training part, what is reached on the test
    part without looking at a cell.
  """
  step, scores = eval_step.make_eval_step(subject.network), {}
  for part, indices in subject.parts.items():
    loss, confusion = eval_step.run(
      step,
      subject.variables,
      subject.dataset,
      indices,
      batch_size=subject.scoring.batch_size,
      num_classes=len(subject.class_names),
    )
    scores[part] = classification.scores(
      confusion, loss, subject.class_names, subject.scoring.benign_class
    )
  colour = None
  if 'train' in subject.parts:
    colour = baselines.colour_accuracy(
      baselines.colour_features(np.asarray(subject.dataset.images)),
      np.asarray(subject.dataset.labels),
      subject.parts['train'],
      subject.parts['test'],
    )
  return Scored(scores, Baselines(colour_3_nearest_neighbours=colour))
