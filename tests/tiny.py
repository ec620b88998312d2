"""A tiny network and set with all kinds of state, for tests of training."""

import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from leukemia_jax.build import Network
from leukemia_jax.data.dataset import Dataset
from leukemia_jax.data.records import OnDisk, Reading
from leukemia_jax.evaluation import eval_step
from leukemia_jax.metrics import classification, losses
from leukemia_jax.training.optimizer import make_optimizer
from leukemia_jax.training.state import init_state
from leukemia_jax.training.step import make_train_step

COUNT, CLASSES, SIZE = 50, 3, 8
KEY = jax.random.key(3)


class Tiny(nn.Module):
  """A network with all kinds of state: batch norm, dropout."""

  @nn.compact
  def __call__(self, images, *, train):
    x = nn.Conv(6, (3, 3), strides=2, name='backbone')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    features = x.mean((1, 2))
    x = nn.Dropout(0.3, deterministic=not train)(features)
    return nn.Dense(CLASSES)(x), {'features': x}


def data() -> Dataset:
  """Images whose brightest channel is their class, more or less."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, CLASSES, COUNT).astype(np.int32)
  images = rng.integers(0, 120, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
  images[np.arange(COUNT), :, :, labels] += 60
  return Dataset(jnp.asarray(images), jnp.asarray(labels))


def data_on_disk() -> Dataset:
  """The same, decoded whenever a batch asks for them."""
  in_memory = data()
  stored = []
  for image, label in zip(in_memory.images, in_memory.labels, strict=True):
    file = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(file, 'PNG')
    texts = dict.fromkeys(('id', 'patient', 'part', 'pixel_hash', 'mask'), b'')
    stored.append({'image': file.getvalue(), 'label': label} | texts)
  images = OnDisk(stored, np.arange(COUNT), Reading(SIZE), 3)
  return in_memory._replace(images=images)


def flip(key, image):
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


NETWORK = Network(
  Tiny(),
  'unit',
  losses.class_objective,
  classification.confusion_matrix,
  CLASSES,
)


def parts(freeze=False, rate=1e-2):
  tx = make_optimizer(freeze)
  state = init_state(
    jax.random.key(1),
    NETWORK.model,
    tx,
    shape=(SIZE, SIZE, 3),
    learning_rate=rate,
  )
  step = make_train_step(NETWORK, tx=tx, augment=flip)
  return state, step, eval_step.make_eval_step(NETWORK)
