"""A temperature from a few labelled images of a new laboratory."""

import jax
import numpy as np

from leukemia_jax.data import splits
from leukemia_jax.evaluation.assessment import IntervalGroups, Outcomes
from leukemia_jax.metrics import calibration
from leukemia_jax.workdir.records import ErrorOverDraws, Recalibration

_DRAWS = 100


def recalibrate(
  key: jax.Array, outcomes: Outcomes, over: IntervalGroups, count: int
) -> tuple[Recalibration, np.ndarray] | None:
  """Fits a temperature to some images, and scores it on the others, over draws.

  Args:
    key: PRNG key that draws the images.
    outcomes: of all images, with the temperature of the training run.
    over: their groups; images of a group that is drawn from are not scored.
    count: images to fit to.

  Returns:
    The errors of calibration before and after, and the indices of the images
    of the first draw, whose temperature is kept; None if a draw leaves no
    group to score.
  """
  rng = splits.generator(key)
  truth, of_image = outcomes.truth, over.groups.of_image
  home = 1.0 if outcomes.temperature is None else outcomes.temperature
  first = np.zeros(0, int)
  temperatures, errors = [], []
  for draw in range(_DRAWS):
    chosen = rng.permutation(len(truth))[:count]
    others = np.flatnonzero(~np.isin(of_image, of_image[chosen]))
    if not len(others):
      return None
    temperature = calibration.fit_temperature(
      outcomes.probabilities[chosen], truth[chosen]
    )
    temperatures.append(temperature)
    errors.append(
      [
        _error(outcomes.probabilities[others], truth[others], value)
        for value in (1.0, home, temperature)
      ]
    )
    if draw == 0:
      first = np.sort(chosen)
  raw, before, after = map(_summarise, np.transpose(errors))
  record = Recalibration(
    images=count,
    draws=_DRAWS,
    temperature=temperatures[0],
    temperatures=_middle(np.array(temperatures)),
    raw=raw,
    home=before,
    local=after,
  )
  return record, first


def _error(
  probabilities: np.ndarray, truth: np.ndarray, temperature: float | np.ndarray
) -> float:
  scaled = calibration.with_temperature(probabilities, temperature)
  totals = calibration.sums(scaled, truth).sum(0)
  return float(calibration.of_sums(totals[None])['error'][0])


def _summarise(errors: np.ndarray) -> ErrorOverDraws:
  return ErrorOverDraws(float(errors.mean()), _middle(errors))


def _middle(values: np.ndarray) -> list[float]:
  """Ends of the middle 95 % of the draws."""
  return np.quantile(values, (0.025, 0.975)).tolist()
