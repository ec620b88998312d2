"""What a run chooses, it chooses without its test part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import catalogue
from leukemia_jax.configs import default, unet

from leukemia_jax import build, tasks
from leukemia_jax.data import splits
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.evaluation import assessment, classifier, segmenter
from leukemia_jax.evaluation.scored import Subject
from leukemia_jax.training import initial_weights, setup

COUNT, CLASSES = 60, 3
PARTS = {
  'train': np.arange(30),
  'validation': np.arange(30, 45),
  'test': np.arange(45, COUNT),
}


def subject(config, dataset) -> Subject:
  """A network of random weights, and the set."""
  config = initial_weights.resolve_auto(config)
  task = tasks.for_model(config.model.name)
  inputs = build.inputs(config, task.targets)
  network = tasks.make_network(task, config, task.num_outputs(CLASSES))
  known = catalogue(np.asarray(dataset.labels))
  return Subject(
    network,
    setup.random_state(config, network, inputs).variables(),
    known.class_names,
    dataset,
    known,
    splits.originals(np.arange(COUNT)),
    PARTS,
    scoring=build.scoring(config, inputs),
    groups=assessment.set_groups(
      known, inputs.spec.protocol, inputs.keys.split
    ),
  )


@pytest.mark.full
def test_a_classifier():
  config = default.get_config()
  config.data.image_size, config.model.width = 75, 0.05
  rng = np.random.default_rng(0)
  labels = (np.arange(COUNT) % CLASSES).astype(np.int32)
  images = rng.integers(0, 200, (COUNT, 75, 75, 3), dtype=np.uint8)
  images[np.arange(COUNT), :, :, labels] += 55

  def chosen(labels):
    data = Dataset(jnp.asarray(images), jnp.asarray(labels))
    scored = classifier.score(subject(config, data))
    shortcut = scored.baselines.shortcut
    return scored.parts['test'].loss, (
      *(
        shortcut.name,
        shortcut.model,
        scored.assessment.calibration.temperature,
      ),
      *(np.asarray(x).tolist() for x in jax.tree.leaves(scored.limits)),
    )

  others = labels.copy()
  others[PARTS['test']] = (labels[PARTS['test']] + 1) % CLASSES
  (score, own), (other_score, other) = chosen(labels), chosen(others)
  assert score != other_score and own == other
  # It would see another validation part.
  others[PARTS['validation']] = (labels[PARTS['validation']] + 1) % CLASSES
  assert chosen(others)[1] != own


@pytest.mark.full
def test_a_segmenter():
  config = unet.get_config()
  config.data.image_size, config.model.width, config.model.depth = 48, 0.125, 2
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (COUNT, 48, 48, 3), dtype=np.uint8)
  masks = 255 * (images[..., :1] > 127).astype(np.uint8)

  def chosen(masks):
    labels = jnp.asarray(np.arange(COUNT) % CLASSES, jnp.int32)
    data = Dataset(jnp.asarray(images), labels, jnp.asarray(masks))
    scored = segmenter.score(subject(config, data))
    choices = scored.threshold, scored.baselines.rule
    return scored.parts['test'].dice, choices

  others = masks.copy()
  others[PARTS['test']] = 255 - masks[PARTS['test']]
  (score, own), (other_score, other) = chosen(masks), chosen(others)
  assert score != other_score and own == other
  others[PARTS['validation']] = 0
  others[PARTS['validation'], 0, 0] = 255
  assert chosen(others)[1] != own
