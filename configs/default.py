"""Every key, with what it means: a small network on synthetic smears.

    python main.py --workdir=runs/first

trains in about five minutes on two cores and gets above 90 % on the patients
of the test part. The other files here are deltas on this one. Any key can be
set on the command line: --config.train.learning_rate=0.0003
"""

import ml_collections


def _data() -> ml_collections.ConfigDict:
  """What is read, and how."""
  data = ml_collections.ConfigDict()
  # 'synthetic', 'kaggle', or the path of a folder or .zip in any usual layout;
  # --mode=prepare says how it is read. See docs/datasets.md.
  data.source = 'synthetic'
  # What an image shows: a 'field' of many cells, or one 'cell'.
  data.unit = 'field'
  # A table with columns for path, label, patient, part: its path, which may
  # hold *; 'auto' takes one in the source if no folder is a class; '' none.
  data.table = 'auto'
  # Its columns where they have unusual names: ('path=ID','label=labels').
  data.columns = ()
  # What labels in a table mean: ('0=hem','1=all').
  data.label_names = ()
  # Where the class stands in the path: a regular expression, its group or all.
  data.label = ''
  # 'auto' (the table's, else a folder level that is clearly one), '' for none,
  # 'folder' (the level that is neither class nor part), 'folder:N' (the N-th
  # from the top), or a regular expression on the path with one group.
  data.patient = 'auto'
  # Which masks to take where an image has several: how their names end.
  data.mask_suffix = ''
  # Value of images deeper than 8 bits that is white; 0: their largest.
  data.white_level = 0
  # Whether EXIF turns images; False if masks were drawn without the turn.
  data.turn_by_exif = True
  # Whether links that lead out of the source are read.
  data.follow_links = False
  # Side of the images, px: the shorter side is scaled, the middle kept.
  data.image_size = 112
  # Factor on that: evaluate a set whose cells are twice as large with 0.5.
  data.scale = 1.0
  # Where prepared records are stored, by files' sizes, times and numbers on the
  # disk (checksums in a zip); safe to delete.
  data.cache_dir = '~/.cache/leukemia_jax'
  # Whether images stay on disk and are decoded whenever they are needed, for
  # sets that don't fit memory. Slower, and the same numbers.
  data.stream = False
  # What bad images do: 'error' names them and stops, 'skip' leaves them out.
  data.on_bad_image = 'error'
  # Largest image, width x height in px, refused before it is decoded.
  data.max_pixels = 50_000_000
  # Largest total size that a .zip may unpack to, in bytes.
  data.max_bytes = 8 * 2**30
  # To segment, which pixels of a mask file are cells: 'max_channel>60' for
  # cells cut out on black, 'grey>128' the study's, 'grey>0' for masks of 0, 1.
  data.mask_rule = 'max_channel>60'
  # Fill holes, open, and drop specks of fewer pixels, at the mask's own size.
  data.clean_masks = False
  data.clean_minimum_area = 60
  # Leave images whose mask is empty out of the training part.
  data.drop_empty_masks = False
  # What is taken out of every image of every class, since it may give the class
  # away: the corners (scale bars), all but cells (by masks), the colour of the
  # light and stain (by the background), or all colour.
  data.hide_corners = False
  data.neutral_background = False
  data.white_balance = False
  data.grey = False
  # Diameter of the smallest cell, as a share of image_size: scores of cells
  # leave specks out, and separate cells that touch, by it. In the published
  # images it is 13 of 224 px and more, some cut off at the border.
  data.smallest_cell = 0.036
  # The class of healthy samples, for benign-versus-malignant scores.
  data.benign_class = 'Benign'
  return data


def _split() -> ml_collections.ConfigDict:
  """How a set is split; keys of config.data too."""
  split = ml_collections.ConfigDict()
  # 'source' takes the source's own parts (train, validation, test), 'random'
  # splits anew, 'auto' takes the source's where they are whole; with folds, or
  # protocols that are not by groups, it splits anew too.
  split.split = 'auto'
  # 1 splits class by class (700/150/150 of 1,000), 2 all images at once.
  split.option = 1
  # 'split_then_balance' splits originals by group, repeats what is rare and
  # augments while training; a study, whose features are fixed, repeats alone.
  # 'balance_then_split' is the study's: augmented copies first, so copies of
  # one image land in training and in test. 'split' repeats and copies nothing.
  # 'disjoint_from_study_tests' trains on what no test part of the first two
  # holds: for a backbone that a study then uses.
  split.protocol = 'split_then_balance'
  # What must not be torn apart: 'record' (a patient where known, else equal
  # images), 'blocks' (runs of consecutive files, a proxy for patients),
  # 'contiguous' (folds that are runs of files, class by class), 'none'.
  split.grouping = 'record'
  # Length of such a run, in files.
  split.block = 40
  # Folds of a cross-validation by group, stratified by class; 1 for one split.
  split.folds = 1
  # Which fold is the test part, from 0; -1 for each in turn.
  split.fold = -1
  # Of contiguous folds, the files on each side that are not trained on.
  split.embargo = 0
  # Images every class is filled up to; 0: 1,000, scaled to the set's size.
  split.per_class = 0
  return split


def _synthetic() -> ml_collections.ConfigDict:
  """The built-in set."""
  synthetic = ml_collections.ConfigDict()
  # Factor on the study's 3,256 images and 89 patients: 1,303 and 35.
  synthetic.scale = 0.4
  # The set is a function of this and the scale, not of config.seed.
  synthetic.seed = 0
  return synthetic


def _augment() -> ml_collections.ConfigDict:
  """What happens to training images."""
  augment = ml_collections.ConfigDict()
  # Brightness and contrast factors are drawn from 1 -+ these.
  augment.brightness_delta = 0.1
  augment.contrast_delta = 0.1
  # Stain and tint: densities change by factors up to exp(this); 0 for none.
  augment.stain = 0.0
  # Largest rotation to either side, degrees.
  augment.rotation = 20.0
  # What fills the corners: 'edge' repeats the border, 'constant' is black.
  augment.fill = 'edge'
  # Lowest and highest JPEG quality; () for none.
  augment.jpeg_quality = (50, 100)
  augment.flip_horizontal = True
  augment.flip_vertical = True
  return augment


def _model() -> ml_collections.ConfigDict:
  """The network, and what its weights start from."""
  model = ml_collections.ConfigDict()
  # 'inception_resnet_v2', 'nasnet_large', 'nasnet_mobile'; to segment, 'unet',
  # 'unet_fpn'.
  model.name = 'inception_resnet_v2'
  # 'none' starts from random weights, 'imagenet' from Keras' published ones
  # (fetched once, into data.cache_dir); or a .h5, .weights.h5 or .keras file of
  # Keras' model; or a workdir, for its best weights; or the folder of an
  # export, or one on the Hugging Face hub: hf:OWNER/NAME@REVISION.
  model.weights = 'none'
  # Input scale: 'unit' is [0, 1], the study's; 'backbone' is [-1, 1], what
  # ImageNet's weights expect; 'auto' is what the weights were made with (a
  # Keras file can't tell).
  model.preprocess = 'auto'
  # Before each layer of a classifier's head; a U-Net has none.
  model.dropout_rate = 0.2
  # Factor on the number of filters, and residual blocks (NASNet: normal cells)
  # of the three stages; 1.0 and (10, 20, 10) are the published network.
  model.width = 0.25
  model.blocks = (1, 1, 1)
  # How often a U-Net halves the image; 0 for all others.
  model.depth = 0
  # A U-Net's: batch norm after its convolutions; and rematerialisation, which
  # computes activations again in the backward pass instead of storing them.
  model.batch_norm = False
  model.remat = False
  # Of the batch norms' statistics; Keras has 0.99, short runs need less.
  model.momentum = 0.9
  # 'float32' or 'bfloat16' computation; parameters and head are float32.
  # 'auto' takes bfloat16 where a processor computes that has matrix units for
  # it; a GPU gets float32, whose products JAX rounds to TF32 on newer ones.
  model.dtype = 'float32'
  return model


def _study() -> ml_collections.ConfigDict:
  """--mode=study: heads on the fixed features of frozen backbones."""
  study = ml_collections.ConfigDict()
  study.models = ('inception_resnet_v2', 'nasnet_large')
  study.options = (1, 2)
  study.learning_rates = (0.1, 0.01, 0.001, 0.0001)
  study.dropout_rates = (0.4, 0.2, 0.0)
  # Trainings of each row, from seeds of their own on the same split.
  study.repeats = 1
  # One row of the grid of those four, from 0 on; -1 for all.
  study.row = -1
  # Images outside of all test parts that set the batch norms' statistics of
  # backbones with random weights; 0 leaves them as drawn.
  study.calibration_images = 256
  # Workdirs of finished segmentation runs whose scores the report joins.
  study.segmentation = ()
  # Each backbone's own values of config.model. With a run's workdir as weights
  # width and blocks follow from that run.
  for name, blocks in (
    ('inception_resnet_v2', (10, 20, 10)),
    ('nasnet_large', (6, 6, 6)),
    ('nasnet_mobile', (4, 4, 4)),
  ):
    study[name] = ml_collections.ConfigDict(
      {'weights': 'none', 'preprocess': 'auto', 'width': 1.0, 'blocks': blocks}
    )
  return study


def _train() -> ml_collections.ConfigDict:
  """How long, in what pieces, on what loss."""
  train = ml_collections.ConfigDict()
  train.learning_rate = 1e-3
  train.epochs = 16  # at most
  # Images a step; predictions on a CPU take fewer.
  train.batch_size = 32
  # Pieces that a batch is cut into, one after the other: less memory, here and
  # where images are scored or predicted.
  train.accumulate = 1
  # What a classifier minimises: 'cross_entropy', or 'keras_clipped', the
  # study's, whose gradient dies where a probability is below 1e-7.
  train.loss = 'cross_entropy'
  # What a U-Net minimises: 'bce', 'dice', 'bce+dice' or 'focal'.
  train.mask_loss = 'bce'
  # Train the head alone, on a backbone in inference mode.
  train.freeze_backbone = False
  # How the rate falls: by the 'plateau' rule below, the study's, or along half
  # a 'cosine', to zero after the last epoch.
  train.decay = 'plateau'
  # The rate is multiplied by `plateau_factor` after `plateau_patience` epochs
  # without a validation loss that is lower by 1e-4; training ends, however the
  # rate falls, after `stop_patience` without a lower one, by however little.
  train.plateau_factor = 0.2
  train.plateau_patience = 3
  train.stop_patience = 8
  # Steps between checkpoints, besides one after each epoch.
  train.checkpoint_steps = 200
  # Steps in one compiled call on a GPU. Always one on a CPU, where gradients of
  # convolutions run 30 times slower inside a loop, and with data.stream.
  train.steps_per_call = 1
  return train


def _mesh() -> ml_collections.ConfigDict:
  """What a training runs on."""
  mesh = ml_collections.ConfigDict()
  # Devices, such as GPUs, that share each batch; 0 for all. The batch stays
  # `train.batch_size`, and so do the results up to rounding.
  mesh.devices = 1
  return mesh


def _evaluate() -> ml_collections.ConfigDict:
  """What --mode=evaluate does besides."""
  evaluate = ml_collections.ConfigDict()
  # Labelled images of the set that a temperature is fitted to, so that
  # probabilities hold at this laboratory too; 0 for none.
  evaluate.recalibrate = 0
  return evaluate


def _predict() -> ml_collections.ConfigDict:
  """What --mode=predict says of new images."""
  predict = ml_collections.ConfigDict()
  # Share of images like the training images that may be flagged as unlike them.
  predict.false_alarms = 0.05
  # Share of images whose set of possible classes shall hold the true one; an
  # image whose set has several is flagged as uncertain.
  predict.coverage = 0.95
  # Factor on the size of new images, as 0.5 where cells are twice as large as
  # in training; 'auto' measures it.
  predict.scale = 'auto'
  # Images on the page of a prediction; the tables hold all.
  predict.sheet = 500
  return predict


def _report() -> ml_collections.ConfigDict:
  """What pages show."""
  report = ml_collections.ConfigDict()
  # Whether pages of runs, evaluations and audits show images of the set, which
  # its terms may forbid: 'yes', 'no', or 'auto' for synthetic ones alone. Paths
  # stand in their place. A page of predictions shows its own unless it is 'no'.
  report.include_images = 'auto'
  # Whether a classifier is compared with what simple properties tell (colour,
  # sharpness, corners), trained on the same images.
  report.shortcuts = True
  return report


def get_config() -> ml_collections.ConfigDict:
  """The default experiment."""
  config = ml_collections.ConfigDict()
  # Every random draw comes from this: splits, weights, order, augmentation.
  config.seed = 0
  config.data = _data()
  config.data.update(_split())
  config.synthetic = _synthetic()
  config.augment = _augment()
  config.model = _model()
  config.study = _study()
  config.train = _train()
  config.mesh = _mesh()
  config.evaluate = _evaluate()
  config.predict = _predict()
  config.report = _report()
  return config
