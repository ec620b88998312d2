"""The runs that rows of tables come from, as flags of the command line."""

import shlex


def _small(name: str, width: float) -> tuple[str, ...]:
  """The published network, made small enough for two cores."""
  return (
    f'--config=configs/{name}.py',
    '--config.data.source={data}',
    '--config.data.image_size=96',
    f'--config.model.width={width}',
    '--config.model.blocks=(1,1,1)',
    '--config.model.momentum=0.9',
    '--config.model.dtype=float32',
    '--config.train.epochs=20',
  )


_SMALL = _small('inception_resnet_v2', 0.25)
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
  'synthetic': ('synthetic smears, new patients', ()),
  'real_split_then_balance': ('real images, split then balanced', _SMALL),
  'real_nasnet_mobile': (
    'real images, split then balanced',
    _small('nasnet_mobile', 0.5),
  ),
  'real_balance_then_split': (
    "real images, balanced then split (the study's protocol)",
    (*_SMALL, '--config.data.protocol=balance_then_split'),
  ),
  'real_blocks': (
    'real images, blocks of 40 file numbers held out',
    (*_SMALL, '--config.data.grouping=blocks'),
  ),
}
_FOLDS = (*_SMALL, '--config.data.folds=5', '--config.data.block=37')
CROSS_VALIDATION: dict[str, tuple[str, tuple[str, ...]]] = {
  'real_contiguous_folds': (
    'real images, five contiguous folds, embargo of 37 files',
    (
      *_FOLDS,
      '--config.data.grouping=contiguous',
      '--config.data.embargo=37',
    ),
  ),
  'real_block_folds': (
    'real images, five folds of random blocks of 37 files',
    (*_FOLDS, '--config.data.grouping=blocks'),
  ),
}
# What each counter-measure to shortcuts leaves, under the same folds.
_CONTIGUOUS = CROSS_VALIDATION['real_contiguous_folds'][1]
_HIDE_CORNERS = '--config.data.hide_corners=True'
_WHITE_BALANCE = '--config.data.white_balance=True'
_NEUTRAL = '--config.data.neutral_background=True'
_GREY = '--config.data.grey=True'
_STAIN = '--config.augment.stain=0.2'
COUNTER_MEASURES: dict[str, tuple[str, tuple[str, ...]]] = {
  'real_hide_corners': ('corners hidden', (*_CONTIGUOUS, _HIDE_CORNERS)),
  'real_stain': ('stain augmentation', (*_CONTIGUOUS, _STAIN)),
  'real_white_balance': ('white balance', (*_CONTIGUOUS, _WHITE_BALANCE)),
  'real_neutral_background': (
    'neutral background',
    (*_CONTIGUOUS, _NEUTRAL),
  ),
  'real_grey': ('grey', (*_CONTIGUOUS, _GREY)),
  'real_all_measures': (
    'all measures but grey',
    (*_CONTIGUOUS, _HIDE_CORNERS, _WHITE_BALANCE, _NEUTRAL, _STAIN),
  ),
}
_AUDIT = (
  '--mode=audit',
  '--config.data.source={data}',
  '--config.data.image_size=224',
)
_AUDIT_BY_FOLDS = (
  *_AUDIT,
  '--config.data.folds=5',
  '--config.data.block=37',
  '--config.data.grouping=contiguous',
  '--config.data.embargo=37',
)
# What simple properties tell before and after each counter-measure, and how
# many test images of the study's own protocol have a twin in training.
AUDITS: dict[str, tuple[str, tuple[str, ...]]] = {
  'audit_as_it_is': ('as they are', _AUDIT_BY_FOLDS),
  'audit_hide_corners': (
    'corners hidden',
    (*_AUDIT_BY_FOLDS, _HIDE_CORNERS),
  ),
  'audit_white_balance': (
    'white balance',
    (*_AUDIT_BY_FOLDS, _WHITE_BALANCE),
  ),
  'audit_neutral_background': (
    'neutral background',
    (*_AUDIT_BY_FOLDS, _NEUTRAL),
  ),
  'audit_grey': ('grey', (*_AUDIT_BY_FOLDS, _GREY)),
  'audit_all_measures': (
    'all but grey',
    (*_AUDIT_BY_FOLDS, _HIDE_CORNERS, _WHITE_BALANCE, _NEUTRAL),
  ),
  'audit_study_protocol': (
    "the study's protocol",
    (*_AUDIT, '--config.data.protocol=balance_then_split'),
  ),
}
# Their masks are a function of exact colours: flips alone keep them true.
_REAL_UNET = (
  '--config=configs/unet.py',
  '--config.data.source={data}',
  '--config.train.epochs=20',
  '--config.augment.brightness_delta=0.0',
  '--config.augment.contrast_delta=0.0',
  '--config.augment.rotation=0.0',
  '--config.augment.jpeg_quality=()',
)
SEGMENTATION: dict[str, tuple[str, tuple[str, ...]]] = {
  'unet_synthetic': (
    'synthetic smears, new patients',
    ('--config=configs/unet.py',),
  ),
  'unet_real': ('real images, masks as released', _REAL_UNET),
  'unet_real_cleaned': (
    'real images, masks cleaned',
    (*_REAL_UNET, '--config.data.clean_masks=True'),
  ),
}
# Trained on no image that a test part of the study holds, in either protocol.
BACKBONES: dict[str, tuple[str, tuple[str, ...]]] = {
  f'disjoint_{name}': (
    "real images, disjoint from the studies' test parts",
    (*_small(name, width), '--config.data.protocol=disjoint_from_study_tests'),
  )
  for name, width in (('inception_resnet_v2', 0.25), ('nasnet_mobile', 0.5))
}
_STUDY = (
  '--mode=study',
  '--config=configs/study.py',
  '--config.data.source={data}',
  '--config.data.image_size=96',
  "--config.study.models=('inception_resnet_v2','nasnet_mobile')",
  '--config.study.inception_resnet_v2.weights='
  '{runs}/disjoint_inception_resnet_v2',
  '--config.study.nasnet_mobile.weights={runs}/disjoint_nasnet_mobile',
  '--config.study.repeats=3',
  "--config.study.segmentation=('{runs}/unet_real','{runs}/unet_real_cleaned')",
)
STUDIES: dict[str, tuple[str, tuple[str, ...]]] = {
  'study_balance_then_split': (
    "balanced then split (the study's protocol)",
    _STUDY,
  ),
  'study_split_then_balance': (
    'split then balanced',
    (*_STUDY, '--config.data.protocol=split_then_balance'),
  ),
  'study_keras_clipped': (
    "balanced then split, the study's clipped loss",
    (*_STUDY, '--config.train.loss=keras_clipped'),
  ),
}


def command(
  name: str, flags: tuple[str, ...], data: str, runs: str
) -> list[str]:
  """The command of a run, without the interpreter."""
  filled = [flag.format(data=data, runs=runs) for flag in flags]
  return ['main.py', f'--workdir={runs}/{name}', *filled]


def typed_command(name: str, flags: tuple[str, ...]) -> str:
  """The command of a run, for a person to type."""
  parts = command(name, flags, 'leukemia.zip', 'runs')
  quoted = [f'"{p}"' if "'" in p else shlex.quote(p) for p in parts]
  return f'python {" ".join(quoted)}'
