"""A classifier's scores, beside what colours alone give away."""

from collections.abc import Mapping

import numpy as np

from leukemia_jax.audit import baselines
from leukemia_jax.evaluation import assessment, eval_step
from leukemia_jax.evaluation.assessment import Outcomes
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.evaluation.scored import Scored, Subject, Temperature
from leukemia_jax.metrics import calibration, classification
from leukemia_jax.workdir.records import Baselines


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
    truth = labels[subject.parts[part]]
    scores[part] = classification.scores(
      _confusion(truth, predicted.labels, count),
      float(predicted.losses.sum(dtype=np.float64)),
      subject.class_names,
      subject.scoring.benign_class,
    )
  test = subject.parts['test']
  of_test = predictions['test']
  temperature = _temperature(subject, predictions)
  assessed = assessment.of_classes(
    Outcomes(
      labels[test], of_test.probabilities, of_test.losses, *temperature or ()
    ),
    subject.over,
    subject.class_names,
    subject.scoring.benign_class,
  )
  colour = None
  if 'train' in subject.parts:
    predicted_labels = baselines.colour_labels(
      baselines.colour_features(np.asarray(subject.dataset.images)),
      labels,
      subject.parts['train'],
      test,
    )
    colour = _confusion(labels[test], predicted_labels, count)
  return Scored(
    scores,
    _colour_baselines(colour),
    predictions,
    assessed,
  )


def _temperature(
  subject: Subject, predictions: Mapping[str, ClassPredictions]
) -> Temperature | None:
  """The training run's; while that is scored, fitted to its validation part."""
  if subject.fitted is not None:
    return subject.fitted.temperature
  indices = subject.parts['validation']
  fitted = calibration.fit_temperature(
    predictions['validation'].probabilities,
    np.asarray(subject.dataset.labels)[indices],
  )
  return Temperature(fitted, len(indices))


def _confusion(
  truth: np.ndarray, predicted: np.ndarray, count: int
) -> np.ndarray:
  confusion = np.zeros((count, count))
  np.add.at(confusion, (truth, predicted), 1)
  return confusion


def _colour_baselines(confusion: np.ndarray | None) -> Baselines:
  """What colours alone give away, as scores."""
  if confusion is None:
    return Baselines()
  means = classification.of_confusions(confusion[None])
  return Baselines(
    colour_3_nearest_neighbours=float(means['accuracy'][0]),
    colour_balanced_accuracy=float(means['balanced_accuracy'][0]),
  )
