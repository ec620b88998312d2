"""The records of result.json; the names of their fields are its keys."""

import dataclasses

from leukemia_jax.audit.baselines import ColourRule
from leukemia_jax.data.masks import ClassCoverage
from leukemia_jax.metrics.calibration import CalibrationScores
from leukemia_jax.metrics.classification import ClassificationScores
from leukemia_jax.metrics.conformal import Rates
from leukemia_jax.metrics.ranking import RankingScores
from leukemia_jax.metrics.segmentation import MaskScores

NO_PATIENTS = 'no patients known'
Scores = ClassificationScores | MaskScores


@dataclasses.dataclass(frozen=True)
class ModelRecord:
  """The model; `num_outputs` are classes, or 1 for masks."""

  name: str
  width: float
  blocks: list[int]
  depth: int
  image_size: int
  num_outputs: int
  parameters: int
  statistics: int


@dataclasses.dataclass(frozen=True)
class SplitRecord:
  """How the set was split; see `config.data`."""

  option: int
  protocol: str
  grouping: str
  split: str = 'random'
  block: int | None = None
  folds: int | None = None
  fold: int | None = None
  embargo: int | None = None


@dataclasses.dataclass(frozen=True)
class MaskRecord:
  """How masks were read, and what looks wrong; counts are of files."""

  rule: str
  cleaned: bool
  bad: int
  unpaired: int
  by_class: dict[str, ClassCoverage]
  warnings: list[str]
  dropped_empty: int | None = None


@dataclasses.dataclass(frozen=True)
class DataRecord:
  """The set.

  Attributes:
    source: its name alone: where it lies is nobody's business.
    fingerprint: SHA-256 over all files, their ids and classes.
    scale: `config.data.scale`.
    classes: those of the model; to segment, those of the set.
    images: number of images.
    unit: 'field' or 'cell': what an image shows.
    groups: number of groups that are not torn apart.
    patients: number of patients, or NO_PATIENTS.
    skipped: number of bad images that were left out.
    split: of a training run.
    patients_by_part: of a training run, where patients are known.
    counts: images by part and class, repeated ones counted again.
    in_no_part: of a training run, images that no part holds, whatever the
      reason: copies of held-out ones, an embargo, an empty mask, ...
    test_copies_in_training: test images that equal a training image, turned and
      mirrored ones too.
    held_out_seen_by_weights: held-out images that the starting weights have
      learnt from, by part.
    masks: if they were read.
    left_out_as_trained_on: of an evaluation, images that were not scored.
    patients_named_as_learnt: of an evaluation of another set, number of its
      patients that are named as some that the model has learnt from.
    spectrum: of a training run's images; see `metrics.magnification`.
  """

  source: str
  fingerprint: str
  scale: float
  classes: list[str]
  images: int
  groups: int
  skipped: int
  unit: str = 'field'
  patients: int | str = NO_PATIENTS
  patients_by_part: dict[str, int] | None = None
  split: SplitRecord | None = None
  counts: dict[str, dict[str, int]] | None = None
  in_no_part: int = 0
  test_copies_in_training: int | None = None
  held_out_seen_by_weights: dict[str, int] | None = None
  masks: MaskRecord | None = None
  left_out_as_trained_on: int | None = None
  patients_named_as_learnt: int | None = None
  spectrum: list[float] | None = None


@dataclasses.dataclass(frozen=True)
class Shortcut:
  """The best of the shortcuts: chosen on validation, scored on the test part.

  Attributes:
    name: of the property; see `audit.properties`. '' if each fold has its own.
    model: 'forest' or 'neighbours'; likewise.
    balanced_accuracy: what it reaches.
    above: how much more the model reaches, in balanced accuracy.
    above_interval_95: of that difference, over groups drawn for both at once;
      None where a class has a single group.
  """

  name: str
  model: str
  balanced_accuracy: float
  above: float
  above_interval_95: list[float] | None = None


@dataclasses.dataclass(frozen=True)
class Baselines:
  """What is reached on the test part without a network.

  Attributes:
    colour_3_nearest_neighbours: accuracy; see `audit.baselines`.
    colour_balanced_accuracy: the same baseline's balanced accuracy.
    shortcut: what the best simple property reaches.
    background: scores of masks that are all background.
    colour_rule: scores of the masks of `rule`.
    rule: the colour rule fitted to the training part.
  """

  colour_3_nearest_neighbours: float | None = None
  colour_balanced_accuracy: float | None = None
  shortcut: Shortcut | None = None
  background: MaskScores | None = None
  colour_rule: MaskScores | None = None
  rule: ColourRule | None = None


@dataclasses.dataclass(frozen=True)
class CrossValidation:
  """Several folds, each tested by a model that was trained without it.

  Attributes:
    folds: number of folds.
    scores: of each fold's test part, by name.
    mean: over folds, by name of the score.
    standard_deviation: over folds, by name of the score.
  """

  folds: int
  scores: dict[str, list[float]]
  mean: dict[str, float]
  standard_deviation: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Intervals:
  """95 % intervals of the test part's scores; see `metrics.bootstrap`.

  Attributes:
    groups: number of groups that they are over.
    group: what such a group is.
    ends: by where the score stands, as 'test.accuracy'; without scores that
      have none.
    smallest: number of groups of the class that has fewest.
  """

  groups: int
  group: str
  ends: dict[str, list[float]]
  smallest: int | None = None


@dataclasses.dataclass(frozen=True)
class Ranking:
  """How well each class is told from all others, at every threshold.

  Attributes:
    by_class: by name of the class.
    malignant: all but the benign class.
  """

  by_class: dict[str, RankingScores]
  malignant: RankingScores | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Whether the test part's probabilities are how often they are correct.

  Attributes:
    raw: of the model's probabilities.
    scaled: of those with a temperature.
    temperature: fitted to the validation part; None if each fold has its own.
    fitted_to: number of images that it was fitted to.
    local: whether these were of a new laboratory, and not the validation part.
  """

  raw: CalibrationScores
  scaled: CalibrationScores | None = None
  temperature: float | None = None
  fitted_to: int | None = None
  local: bool = False


@dataclasses.dataclass(frozen=True)
class LimitScores:
  """What the flags of predictions do on the test part.

  Attributes:
    rates: that were asked for; thresholds come from the validation part.
    false_alarms: share of the test images that are flagged as unlike the
      training images.
    coverage: share of the test images whose set of classes holds the true one.
    uncertain: share of the test images whose set has several classes.
  """

  rates: Rates
  false_alarms: float
  coverage: float
  uncertain: float


@dataclasses.dataclass(frozen=True)
class ErrorOverDraws:
  """An expected calibration error over draws of images.

  Attributes:
    mean: over the draws.
    middle_95: ends of the middle 95 % of them.
  """

  mean: float
  middle_95: list[float]


@dataclasses.dataclass(frozen=True)
class Recalibration:
  """What a temperature fitted to a few images of another set does.

  Attributes:
    images: number of images that it was fitted to.
    draws: number of draws of such images; each was scored on the others.
    temperature: of the first draw, which is kept.
    temperatures: ends of the middle 95 % over the draws.
    raw: without a temperature.
    home: with that of the training run.
    local: with that of the draw.
  """

  images: int
  draws: int
  temperature: float
  temperatures: list[float]
  raw: ErrorOverDraws
  home: ErrorOverDraws
  local: ErrorOverDraws


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a command took; times in seconds."""

  seconds: float
  peak_memory_bytes: int | None
  prepare_seconds: float | None = None
  compile_seconds: float | None = None
  train_seconds: float | None = None
  images_per_second: float | None = None
  resumed: bool | None = None
  devices: int | None = None


@dataclasses.dataclass(frozen=True)
class Environment:
  """The versions and the device that numbers come from."""

  versions: dict[str, str]
  device: str


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished training run or evaluation.

  Attributes:
    task: 'classification' or 'segmentation'.
    model: the model.
    data: the set.
    parameters_sha256: see `checkpoint.fingerprint`.
    test: scores of the test part; likewise `validation` and `train`, where the
      model's own set was scored.
    baselines: beside those of the test part.
    cost: of the command.
    versions: of packages.
    device: that computed.
    threshold: probability above which a pixel is predicted a cell.
    epochs: of training.
    best_epoch: that of the weights, from 1.
    checkpoint: name of the run that an evaluation scored.
    cross_validation: of several folds; `test` is then of all images, each
      scored by the model that was not trained on it.
    intervals: of the scores of the test part.
    ranking: of a classifier, on the test part.
    calibration: of a classifier, on the test part.
    limits: of a classifier's training run, on the test part.
    recalibration: of an evaluation that fitted a temperature of its own.
  """

  task: str
  model: ModelRecord
  data: DataRecord
  parameters_sha256: str
  test: Scores
  baselines: Baselines
  cost: Cost
  versions: dict[str, str]
  device: str
  train: Scores | None = None
  validation: Scores | None = None
  threshold: float | None = None
  epochs: int | None = None
  best_epoch: int | None = None
  checkpoint: str | None = None
  cross_validation: CrossValidation | None = None
  intervals: Intervals | None = None
  ranking: Ranking | None = None
  calibration: Calibration | None = None
  limits: LimitScores | None = None
  recalibration: Recalibration | None = None

  def class_scores(self, part: str) -> ClassificationScores:
    """A classifier's scores of a part."""
    scores = getattr(self, part)
    assert isinstance(scores, ClassificationScores)
    return scores

  def mask_scores(self, part: str) -> MaskScores:
    """A segmenter's scores of a part."""
    scores = getattr(self, part)
    assert isinstance(scores, MaskScores)
    return scores
