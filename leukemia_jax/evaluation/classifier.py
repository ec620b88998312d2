"""A classifier's scores, beside what colours alone give away."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from leukemia_jax.audit import baselines, shortcuts
from leukemia_jax.data.splits import PARTS
from leukemia_jax.evaluation import assessment, comparison, eval_step, limits
from leukemia_jax.evaluation.assessment import (
  IntervalGroups,
  LimitOutcomes,
  Outcomes,
)
from leukemia_jax.evaluation.eval_step import ClassPredictions
from leukemia_jax.evaluation.scored import (
  MaskPredictions,
  Scored,
  Subject,
  Temperature,
)
from leukemia_jax.metrics import calibration, classification
from leukemia_jax.workdir.limits_file import Limits
from leukemia_jax.workdir.records import Baselines, Shortcut


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
      classification.count(truth, predicted.labels, count),
      float(predicted.losses.sum(dtype=np.float64)),
      subject.class_names,
      subject.scoring.benign_class,
    )
  own, over = outcomes(subject, predictions), subject.over_test()
  learnt = None
  if subject.fitted is None:
    learnt, flagged = _limits(subject, predictions, own.temperature)
    own = own._replace(limits=flagged)
  assessed = assessment.of_classes(
    own,
    over,
    subject.class_names,
    subject.scoring.benign_class,
  )
  reached, shortcut = Baselines(), None
  if 'train' in subject.parts:
    reached = _colour_baselines(subject)
    if subject.scoring.probes_shortcuts:
      shortcut = shortcuts.best_shortcut(
        subject.dataset.images, labels, *(subject.parts[p] for p in PARTS)
      )
      reached = dataclasses.replace(
        reached,
        shortcut=above_shortcut(
          own,
          shortcut.labels,
          over,
          name=shortcut.name,
          model=shortcut.model,
        ),
      )
  return Scored(
    scores,
    reached,
    predictions,
    assessed,
    shortcut_labels=shortcut.labels if shortcut else None,
    limits=learnt,
  )


def above_shortcut(
  own: Outcomes,
  labels: np.ndarray,
  over: IntervalGroups,
  *,
  name: str = '',
  model: str = '',
) -> Shortcut:
  """How much more a classifier reaches than a shortcut.

  Args:
    own: of the classifier, n images.
    labels: int, shape (n,), predicted by the shortcut.
    over: groups of the images.
    name: see `Shortcut`.
    model: see `Shortcut`.

  Returns:
    The record.
  """
  predicted = [own.predicted, labels]
  difference = comparison.compare_labels(
    *(own.truth, predicted, own.probabilities.shape[1]),
    *(over.groups, over.rng()),
  )['balanced_accuracy']
  return Shortcut(
    *(name, model, difference.second, difference.difference),
    above_interval_95=difference.interval_95,
  )


def outcomes(
  subject: Subject,
  predictions: Mapping[str, ClassPredictions | MaskPredictions],
) -> Outcomes:
  """What was said of each image of the test part, with its temperature."""
  own = predictions['test']
  assert isinstance(own, ClassPredictions)
  return Outcomes(
    np.asarray(subject.dataset.labels)[subject.parts['test']],
    *(own.labels, own.probabilities, own.losses),
    *(_temperature(subject, predictions) or ()),
  )


def _temperature(
  subject: Subject,
  predictions: Mapping[str, ClassPredictions | MaskPredictions],
) -> Temperature | None:
  """The training run's; while that is scored, fitted to its validation part."""
  if subject.fitted is not None:
    return subject.fitted.temperature
  indices, own = subject.parts['validation'], predictions['validation']
  assert isinstance(own, ClassPredictions)
  fitted = calibration.fit_temperature(
    own.probabilities,
    np.asarray(subject.dataset.labels)[indices],
  )
  return Temperature(fitted, len(indices))


def _limits(
  subject: Subject,
  predictions: Mapping[str, ClassPredictions | MaskPredictions],
  temperature: assessment.Temperatures | None,
) -> tuple[Limits, LimitOutcomes]:
  """What a run's images look like to its classifier."""
  labels = np.asarray(subject.dataset.labels)
  parts = []
  for part in PARTS:
    predicted = predictions[part]
    assert isinstance(predicted, ClassPredictions)
    parts.append((predicted, labels[subject.parts[part]]))
  assert isinstance(temperature, float)
  learnt = limits.fit(*parts[0], *parts[1])
  return learnt, limits.apply(
    learnt, *parts[2], temperature=temperature, rates=subject.scoring.rates
  )


def _colour_baselines(subject: Subject) -> Baselines:
  """What colours alone give away, as scores."""
  labels, test = np.asarray(subject.dataset.labels), subject.parts['test']
  predicted = baselines.colour_labels(
    baselines.colour_features(subject.dataset.images),
    labels,
    subject.parts['train'],
    test,
  )
  confusion = classification.count(
    labels[test], predicted, len(subject.class_names)
  )
  means = classification.of_confusions(confusion[None])
  return Baselines(
    colour_3_nearest_neighbours=float(means['accuracy'][0]),
    colour_balanced_accuracy=float(means['balanced_accuracy'][0]),
  )
