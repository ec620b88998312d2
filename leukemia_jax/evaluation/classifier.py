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
  predictions = eval_step.predict(
    subject.network,
    subject.variables,
    subject.dataset,
    subject.parts,
    batch_size=subject.scoring.batch_size,
  )
  labels, scores = np.asarray(subject.dataset.labels), {}
  count = len(subject.class_names)
  for part, predicted in predictions.items():
    confusion = np.zeros((count, count))
    truth = labels[subject.parts[part]]
    np.add.at(confusion, (truth, predicted.labels), 1)
    scores[part] = classification.scores(
      confusion,
      float(predicted.losses.sum(dtype=np.float64)),
      subject.class_names,
      subject.scoring.benign_class,
    )
  colour = None
  if 'train' in subject.parts:
    colour = baselines.colour_accuracy(
      baselines.colour_features(np.asarray(subject.dataset.images)),
      np.asarray(subject.dataset.labels),
      subject.parts['train'],
      subject.parts['test'],
    )
  return Scored(
    scores,
    Baselines(colour_3_nearest_neighbours=colour),
    predictions=predictions,
  )
