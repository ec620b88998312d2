"""Fourteen public image sets as they lie on disk, from drawn images.

Each function makes one in a folder, small, with the names that it really has.
"""

import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

_SIZE = 24


def _save(path: pathlib.Path, seed: int, **options) -> None:
  """One drawn field: noise on pink with a disc."""
  rng = np.random.default_rng(seed)
  pixels = rng.normal((230, 190, 205), 8, (_SIZE, _SIZE, 3))
  pixels[_disc(seed)] = (110, 60, 150)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, **options)


def _disc(seed: int) -> np.ndarray:
  y, x = np.mgrid[:_SIZE, :_SIZE]
  return (y - 8 - seed % 5) ** 2 + (x - 10) ** 2 < 20


def _save_mask(path: pathlib.Path, seed: int) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(_disc(seed).astype(np.uint8) * 255).save(path)


def kaggle_all(folder: pathlib.Path) -> None:
  """This study's: Original and Segmented, four classes."""
  seed = 0
  for name in ('Benign', 'Early', 'Pre', 'Pro'):
    kind = name if name == 'Benign' else f'Malignant-{name}'
    for i in range(1, 5):
      file = f'{name}/WBC-{kind}-{i:03d}.jpg'
      _save(folder / 'Original' / file, seed)
      _save_mask(folder / 'Segmented' / file, seed)
      seed += 1


def cnmc_train(folder: pathlib.Path) -> None:
  """Three folds, patients in the names; one fold nested as mirrors do."""
  seed = 0
  for fold in range(3):
    for label in ('all', 'hem'):
      for patient in range(3 * fold + 1, 3 * fold + 4):
        for cell in (1, 2):
          name = f'UID_{patient}_{1}_{cell}_all.bmp'
          if label == 'hem':
            h = 'h' if cell == 2 and patient == 1 else 'H'
            name = f'UID_{h}{patient}_{1}_{cell}_hem.bmp'
          place = f'fold_{fold}/fold_{fold}' if fold == 0 else f'fold_{fold}'
          _save(folder / 'C-NMC_training_data' / place / label / name, seed)
          seed += 1


def cnmc_prelim(folder: pathlib.Path) -> None:
  """Flat files with a table; the patient stands in the old file name."""
  lines = ['Patient_ID,new_names,labels']
  for i in range(1, 13):
    label = i % 2
    patient = (i + 3) // 4
    old = (
      f'UID_{patient}_{i}_1_all.bmp'
      if label
      else f'UID_H{patient}_{i}_1_hem.bmp'
    )
    lines.append(f'{old},{i}.bmp,{label}')
    _save(folder / 'C-NMC_test_prelim_phase_data' / f'{i}.bmp', i)
  (folder / 'C-NMC_test_prelim_phase_data_labels.csv').write_text(
    '\n'.join(lines) + '\n'
  )


def all_idb1(folder: pathlib.Path) -> None:
  """The class is the last figure of the name; centres of cells beside."""
  (folder / 'xyc').mkdir(parents=True)
  for i in range(1, 11):
    _save(folder / 'im' / f'Im{i:03d}_{i % 2}.jpg', i)
    (folder / 'xyc' / f'Im{i:03d}_{i % 2}.xyc').write_text('10 12\n')


def all_idb2(folder: pathlib.Path) -> None:
  """The same, single cells as TIFF."""
  for i in range(1, 11):
    _save(folder / 'img' / f'Im{i:03d}_{i % 2}.tif', i)


def lmu(folder: pathlib.Path) -> None:
  """Folders of cell codes, a table by whitespace, one suffix twice."""
  lines, seed = [], 0
  for code in ('BAS', 'EBO', 'EOS', 'KSC', 'LYA'):
    for i in range(1, 4):
      path = f'{code}/{code}_{i:04d}.tiff'
      if (code, i) == ('EOS', 2):
        path += '.tiff'
      _save(folder / path, seed, format='TIFF')
      lines.append(f'{path} {code} nan {code if i == 1 else "nan"}')
      seed += 1
  (folder / 'annotations.dat').write_text('\n'.join(lines) + '\n')


def mll(folder: pathlib.Path) -> None:
  """Patients' folders below the classes, and a table of patients."""
  lines, seed = ['patient_id,sex_1f_2m,age,bag_label'], 0
  for label, codes in {
    'CBFB_MYH11': ('AQK', 'BGZ', 'CHD'),
    'NPM1': ('DSF', 'ERT', 'FWW'),
    'control': ('GXS', 'HLA', 'IPO'),
  }.items():
    for code in codes:
      lines.append(f'{code},1,50,{label}')
      for i in range(3):
        _save(folder / 'data' / label / code / f'image_{i}.tif', seed)
        seed += 1
  (folder / 'metadata.csv').write_text('\n'.join(lines) + '\n')


def aml_apl(folder: pathlib.Path) -> None:
  """Patients' folders above the classes; unsigned slides are unlabelled."""
  seed = 0
  for patient in range(1, 6):
    own = folder / f'Patient_{patient:02d}'
    for label in ('Blast', 'Promyelocyte', 'Lymphocyte')[: 2 + patient % 2]:
      for i in range(2):
        _save(own / 'Signed_slides' / label / f'{label}_{i}.jpg', seed)
        seed += 1
    _save(own / 'Unsigned_slides' / '1.jpg', seed)
    seed += 1


def wbcbench(folder: pathlib.Path) -> None:
  """Two phases with a table each; the second one is split."""
  seed = 0
  for place, table in (
    ('phase1', 'phase1_label.csv'),
    ('phase2/train', 'phase2/train.csv'),
    ('phase2/eval', 'phase2/eval.csv'),
    ('phase2/test', 'phase2/test.csv'),
  ):
    lines = ['ID,labels']
    for i in range(6):
      _save(folder / place / f'{i:05d}.jpg', seed)
      lines.append(f'{i:05d}.jpg,{("BL", "LY", "SNE")[i % 3]}')
      seed += 1
    (folder / table).write_text('\n'.join(lines) + '\n')


def acevedo(folder: pathlib.Path) -> None:
  """Class folders; a finer class begins the names."""
  seed = 0
  for label, codes in {
    'basophil': ('BA',),
    'ig': ('MMY', 'MY', 'PMY'),
    'neutrophil': ('BNE', 'SNE'),
  }.items():
    for code in codes:
      for i in range(4):
        _save(folder / label / f'{code}_{100 + i}.jpg', seed)
        seed += 1


def raabin(folder: pathlib.Path) -> None:
  """A training folder with two of tests beside."""
  seed = 0
  for part, count in {'Train': 8, 'TestA': 3, 'TestB': 2}.items():
    for label in ('Basophil', 'Eosinophil', 'Neutrophil'):
      for i in range(count):
        _save(folder / part / label / f'{part}_{i}.jpg', seed)
        seed += 1


def elsafty(folder: pathlib.Path) -> None:
  """Slides' folders above the classes, masks in a tree beside."""
  seed = 0
  for slide in ('Slide A01', 'Slide B02', 'Slide C03'):
    for label in ('01-Rounded RBC', '02-Ovalocyte'):
      for i in range(3):
        file = f'{label}/{i}.png'
        _save(folder / 'Elsafty' / slide / 'Cropped images' / file, seed)
        _save_mask(folder / 'Elsafty' / slide / 'Cropped masks' / file, seed)
        seed += 1


def sn_am(folder: pathlib.Path) -> None:
  """Three masks beside each image."""
  seed = 0
  for label in ('ALL', 'MM'):
    for i in range(1, 7):
      _save(folder / label / f'{label}_{i}.bmp', seed)
      for kind in ('nucleus', 'cyto', 'background'):
        _save_mask(folder / label / f'{label}_{i}_{kind}_mask.bmp', seed)
      seed += 1


def bccd(folder: pathlib.Path) -> None:
  """Boxes as Pascal VOC."""
  (folder / 'Annotations').mkdir(parents=True)
  for i in range(6):
    _save(folder / 'JPEGImages' / f'BloodImage_{i:05d}.jpg', i)
    (folder / 'Annotations' / f'BloodImage_{i:05d}.xml').write_text(
      '<annotation><object><name>WBC</name><bndbox><xmin>1</xmin></bndbox>'
      '</object></annotation>'
    )


def naruenatthanaset(folder: pathlib.Path) -> None:
  """Points: x, y and type a line."""
  (folder / 'Label').mkdir(parents=True)
  for i in range(6):
    _save(folder / 'Dataset' / f'{i}.jpg', i)
    (folder / 'Label' / f'{i}.txt').write_text('12 40 0\n33 8 5\n')


ALL: dict[str, Callable[[pathlib.Path], None]] = {
  made.__name__: made
  for made in (
    kaggle_all,
    cnmc_train,
    cnmc_prelim,
    all_idb1,
    all_idb2,
    lmu,
    mll,
    aml_apl,
    wbcbench,
    acevedo,
    raabin,
    elsafty,
    sn_am,
    bccd,
    naruenatthanaset,
  )
}
