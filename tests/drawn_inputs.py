"""Small inputs that people really have, from reports about other image tools.

Every image is drawn here: discs on pink. `KINDS` makes each in a folder.
"""

import inspect
import os
import pathlib
import struct
import unicodedata

import numpy as np
from PIL import Image

SIZE = 48


def smear(seed, size=None, cells=3, radius=6):
  """A drawn field of view and its mask: uint8 (h, w, 3) and bool (h, w)."""
  width, height = (
    (size, size) if isinstance(size, int) else size or (SIZE, SIZE)
  )
  rng = np.random.default_rng(seed)
  image = rng.normal((232, 190, 205), 6, (height, width, 3))
  y, x = np.mgrid[:height, :width]
  mask = np.zeros((height, width), bool)
  for _ in range(cells):
    cy, cx = rng.uniform(radius, [height - radius, width - radius])
    disc = (y - cy) ** 2 + (x - cx) ** 2 <= rng.uniform(0.8, 1.2) * radius**2
    image[disc] = rng.normal((110, 60, 150), 8, (int(disc.sum()), 3))
    mask |= disc
  return image.clip(0, 255).astype(np.uint8), mask


def save(path, pixels, **options):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  image.save(path, **options)


def classes(
  folder, names=('Benign', 'Malignant'), count=12, first=0, ext='.png', **k
):
  """Plain class folders: classes differ by the size of their discs."""
  for label, name in enumerate(names):
    for i in range(count):
      image, _ = smear(
        1000 * label + first + i, radius=4 + 3 * (label % 4), **k
      )
      save(
        pathlib.Path(folder, name, f'{name[:3].strip()}-{i:03d}{ext}'), image
      )


def pairs(
  folder,
  images='images',
  masks='masks',
  name='{}.png',
  mask_name='{}.png',
  count=12,
  draw=lambda m: m.astype(np.uint8) * 255,
  size=None,
):
  for i in range(count):
    image, mask = smear(i, size=size)
    save(pathlib.Path(folder, images, name.format(f'f{i:03d}')), image)
    save(pathlib.Path(folder, masks, mask_name.format(f'f{i:03d}')), draw(mask))


# ------------------------------------------------------------ layouts of a set


def presplit(folder):
  """train/, val/ and test/ with the class folders inside."""
  for n, part in enumerate(('train', 'val', 'test')):
    classes(folder / part, count=12 if part == 'train' else 5, first=100 * n)


def presplit_unlabelled_test(folder):
  """train/<Class>/ beside a test/ folder of loose images."""
  classes(folder / 'train')
  for i in range(8):
    save(folder / 'test' / f'{i}.png', smear(9000 + i)[0])


def masks_beside_images(folder):
  """Class folders in which every image lies beside its own mask."""
  for label, name in enumerate(('benign', 'malignant', 'normal')):
    for i in range(8):
      image, mask = smear(100 * label + i, radius=4 + 2 * label)
      save(folder / name / f'{name} ({i + 1}).png', image)
      save(
        folder / name / f'{name} ({i + 1})_mask.png',
        mask.astype(np.uint8) * 255,
      )


def patients(folder):
  """<Class>/<patient>/<field>.png: four fields of six patients a class."""
  for label, name in enumerate(('ALL', 'HEM')):
    for patient in range(6):
      for field in range(4):
        seed = 1000 * label + 10 * patient + field
        image, _ = smear(seed, radius=4 + 3 * label)
        save(
          folder / name / f'patient_{label}{patient:02d}' / f'{field}.png',
          image,
        )


def imgs_and_masks(folder):
  """Pairs in folders that another well-known trainer calls imgs and masks."""
  pairs(folder, images='imgs')


def mask_suffix(folder):
  """images/x.jpg with masks/x_mask.png."""
  pairs(folder, name='{}.jpg', mask_name='{}_mask.png')


def one_mask_a_cell(folder):
  """<id>/images/<id>.png with <id>/masks/<cell>.png, one file a cell."""
  for i in range(10):
    field = f'field{i:02d}'
    image = np.full((SIZE, SIZE, 3), (232, 190, 205), np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    for cell in range(3):
      disc = (y - 10 - 12 * cell) ** 2 + (x - 8 - 4 * (i % 8)) ** 2 < 25
      image[disc] = (110, 60, 150)
      save(
        folder / field / 'masks' / f'cell{cell}.png',
        disc.astype(np.uint8) * 255,
      )
    save(folder / field / 'images' / f'{field}.png', image)


def csv_labels(folder):
  """One folder of images and a table of labels."""
  lines = ['file,label']
  for i in range(12):
    save(folder / 'images' / f'{i}.png', smear(i)[0])
    lines.append(f'{i}.png,{"ALL" if i % 2 else "HEM"}')
  (folder / 'labels.csv').write_text('\n'.join(lines) + '\n')


def system_junk(folder):
  """What systems and notebooks leave: hidden folders, thumbnails, notes."""
  classes(folder)
  for path in (
    '.ipynb_checkpoints/x.png',
    'Benign/.DS_Store',
    'Benign/Thumbs.db',
    'Malignant/desktop.ini',
    '__MACOSX/Benign/._Ben-000.png',
    '.DS_Store',
  ):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b'junk')


def side_files(folder):
  """A note, a table and an annotation in a class folder."""
  classes(folder)
  (folder / 'Benign' / 'notes.txt').write_text('stained on Monday\n')
  (folder / 'Benign' / 'Ben-000.json').write_text('{"shapes": []}\n')
  (folder / 'Malignant' / 'list.csv').write_text('a,b\n')


def linked_files(folder):
  """Every image is a link to a store beside the folder, as data managers do."""
  store = folder / 'store'
  classes(store)
  for path in sorted(store.rglob('*.png')):
    link = folder / 'set' / path.relative_to(store)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(path, link.parent))


# ------------------------------------------------------------- names, archives


def two_spellings(folder):
  """A set and a second one whose accented class name is composed otherwise."""
  classes(folder / 'set', names=('Bénigne', 'Maligne'))
  other = unicodedata.normalize('NFD', 'Bénigne')
  classes(folder / 'other', names=(other, 'Maligne'), first=500)


def other_scripts(folder):
  """Class names in Chinese and Arabic, with blanks and brackets."""
  classes(folder, names=('早期 前B (一)', 'سليم', 'Pro-B'))


def numbers(folder):
  """Class folders 0 to 10, named by number."""
  classes(folder, names=tuple(str(i) for i in range(11)), count=4)


# ------------------------------------------------------------- kinds of images


def dark_16_bit(folder):
  """12-bit camera values in 16-bit grey TIFF: the largest is 4095 of 65535."""
  for label, name in enumerate(('Benign', 'Malignant')):
    for i in range(12):
      grey = smear(1000 * label + i, radius=4 + 3 * label)[0].mean(-1)
      save(folder / name / f'{i}.tif', (grey * 16).astype(np.uint16))


def channel_pages(folder):
  """Composite TIFF: red, green and blue as three grey pages of one file."""
  for label, name in enumerate(('Benign', 'Malignant')):
    for i in range(12):
      image = smear(1000 * label + i, radius=4 + 3 * label)[0]
      pages = [Image.fromarray(image[..., c]) for c in range(3)]
      path = folder / name / f'{i}.tif'
      path.parent.mkdir(parents=True, exist_ok=True)
      pages[0].save(path, save_all=True, append_images=pages[1:])


def phone_formats(folder):
  """HEIC-like and AVIF files among the images, as phones save them."""
  classes(folder)
  box = struct.pack('>I4s4sI4s', 24, b'ftyp', b'heic', 0, b'mif1') + b'heic'
  for i in range(3):
    (folder / 'Benign' / f'IMG_{i}.HEIC').write_bytes(box + bytes(2000))
  for i in range(2):
    Image.fromarray(smear(70 + i)[0]).save(folder / 'Benign' / f'IMG_{i}.avif')


def odd_but_fine(folder):
  """Every kind that a reader should take, under right and wrong suffixes."""
  classes(folder, count=6)
  image, mask = smear(50, size=(64, 40))
  rgb = Image.fromarray(image)
  at = folder / 'Benign'
  rgb.save(at / 'PROGRESSIVE.JPG', 'JPEG', progressive=True)
  rgb.convert('CMYK').save(at / 'cmyk.jpeg', 'JPEG')
  rgb.save(at / 'really-a-jpeg.png', 'JPEG')
  rgb.save(at / 'really-a-png.tif', 'PNG')
  rgb.quantize(16).save(at / 'palette.png', transparency=0)
  rgb.convert('1').save(at / 'one-bit.png')
  rgb.convert('LA').save(at / 'grey-alpha.png')
  exif = Image.Exif()
  exif[0x0112] = 6
  rgb.save(at / 'rotated.jpg', exif=exif)
  rgb.save(at / 'animated.gif', save_all=True, append_images=[rgb.rotate(90)])
  rgb.save(at / 'animated.webp', save_all=True, append_images=[rgb.rotate(90)])
  rgb.save(at / 'two.mpo', 'MPO', save_all=True, append_images=[rgb])
  rgb.save(at / 'wide.bmp')
  Image.fromarray(np.repeat(image[:1], 1, 0)).save(at / 'one-row.png')
  rgb.save(at / 'lzw.tiff', compression='tiff_lzw')
  rgb.save(at / 'j2k.jp2', 'JPEG2000')


def bad_images(folder):
  """Cut off, empty, a web page, a pointer of Git LFS, a float TIFF."""
  classes(folder, count=8)
  at = folder / 'Malignant'
  whole = (at / 'Mal-000.png').read_bytes()
  (at / 'cut.png').write_bytes(whole[: len(whole) // 2])
  (at / 'empty.png').write_bytes(b'')
  (at / 'page.jpg').write_bytes(b'<!doctype html><title>404</title>')
  (at / 'pointer.png').write_bytes(
    b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n'
  )
  Image.fromarray(smear(1)[0].mean(-1).astype(np.float32)).save(
    at / 'float.tif'
  )


def conflicting_twins(folder):
  """The same pictures in both classes, under other names."""
  classes(folder)
  for i in range(6):
    data = (folder / 'Benign' / f'Ben-{i:03d}.png').read_bytes()
    (folder / 'Malignant' / f'again-{i}.png').write_bytes(data)


# ----------------------------------------------------------------------- masks


def masks_0_1(folder):
  """Masks of 0 and 1."""
  pairs(folder, draw=lambda m: m.astype(np.uint8))


def masks_classes(folder):
  """Masks of 0, 1 and 2: ground, nucleus, cytoplasm, in a palette PNG."""

  def draw(mask):
    values = mask.astype(np.uint8)
    values[::2] *= 2
    image = Image.fromarray(values, 'P')
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
    return image

  pairs(folder, draw=draw)


def masks_dark_on_white(folder):
  """Cells black on white."""
  pairs(folder, draw=lambda m: np.where(m, 0, 255).astype(np.uint8))


def masks_jpeg(folder):
  """Masks of 0 and 255 saved as JPEG: no longer two values."""
  for i in range(12):
    image, mask = smear(i)
    save(folder / 'images' / f'{i}.png', image)
    save(folder / 'masks' / f'{i}.jpg', mask.astype(np.uint8) * 255, quality=60)


def masks_half_size(folder):
  """Masks drawn on a copy of half the size."""
  for i in range(12):
    image, mask = smear(i, size=64)
    save(folder / 'images' / f'{i}.png', image)
    save(folder / 'masks' / f'{i}.png', mask[::2, ::2].astype(np.uint8) * 255)


def masks_of_turned_squares(folder):
  """Square JPEGs that EXIF turns; their masks were drawn without that."""
  exif = Image.Exif()
  exif[0x0112] = 6
  for i in range(12):
    image, mask = smear(i, size=48)
    path = folder / 'images' / f'{i}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, exif=exif, quality=95)
    save(folder / 'masks' / f'{i}.png', mask.astype(np.uint8) * 255)


def masks_of_turned_photos(folder):
  """The same with photos that are not square: sizes differ by the turn."""
  exif = Image.Exif()
  exif[0x0112] = 6
  for i in range(12):
    image, mask = smear(i, size=(64, 48))
    path = folder / 'images' / f'{i}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, exif=exif, quality=95)
    save(folder / 'masks' / f'{i}.png', mask.astype(np.uint8) * 255)


def two_masks_one_image(folder):
  """masks/x.png and masks/x.tif for images/x.png, not the same."""
  pairs(folder)
  for i in range(12):
    empty = np.zeros((SIZE, SIZE), np.uint8)
    save(folder / 'masks' / f'f{i:03d}.tif', empty)


# --------------------------------------------------------------------- numbers


def tiny_class(folder):
  """Forty images of one class, two of the other."""
  classes(folder, names=('Benign',), count=40)
  classes(folder, names=('Rare',), count=2, first=700)


def imbalanced(folder):
  """Sixty images of one class, four of the other."""
  classes(folder, names=('Benign',), count=60)
  classes(folder, names=('Rare',), count=4, first=700)


def one_class(folder):
  """One class folder, as a laboratory's controls are sent."""
  classes(folder, names=('Benign',), count=12, first=800)


def unlabelled(folder):
  """A folder of images, nothing else."""
  for i in range(8):
    save(folder / f'{i}.png', smear(9000 + i)[0])


def thirty_classes(folder):
  """Thirty classes of four images."""
  classes(folder, names=tuple(f'type {i:02d}' for i in range(30)), count=4)


def plain(folder):
  """Two classes of twelve images: for what is about running, not data."""
  classes(folder)


def plain_pairs(folder):
  """Twelve images with masks of 0 and 255."""
  pairs(folder)


# --------------------------------------------------------------------- weights


KINDS = {
  name: made
  for name, made in list(globals().items())
  if inspect.isfunction(made)
  and list(inspect.signature(made).parameters) == ['folder']
}
