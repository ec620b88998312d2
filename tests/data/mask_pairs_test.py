"""Which files are masks, and of which images; what is not clear is refused."""

import pytest

from leukemia_jax.data import mask_pairs
from leukemia_jax.errors import InputError

STEMS = tuple('abcd')


def tree(*forms: str) -> list[str]:
  """Paths, each form filled with each stem."""
  return [form.format(stem) for form in forms for stem in STEMS]


def paired(paths, suffix='') -> dict[str, tuple[str, ...]]:
  pairs = mask_pairs.pair(sorted(paths), suffix)
  assert set(pairs.folders) == set(pairs.masks)
  assert not pairs.unpaired
  return pairs.masks


@pytest.mark.parametrize(
  ('image', 'mask'),
  [
    ('images/{}.png', 'masks/{}.png'),
    ('Bilder/{}.jpg', 'Masken/{}.png'),
    ('raw/{}.png', 'binary/{}.png'),
    ('RGB/{}.png', 'BW/{}.png'),
    ('cells/{}.png', 'masks/{}.png'),
    ('X/{}.png', 'mask/{}_mask.png'),
    ('images_1024/{}.png', 'masks_1024/{}.png'),
    ('imagesTr/{}_0000.png', 'labelsTr/{}.png'),
    ('x/img_{}.png', 'x/mask_{}.png'),
    ('x/{}.png', 'x/{}.mask.png'),
    ('x/{}.png', 'x/{}_annotated.png'),
    ('{}/image.png', '{}/mask.png'),
    ('images/{}.jpg', 'masks/{}.jpg.png'),
    ('Main Dataset/baso/{}.bmp', 'Ground Truth/baso/expert1/{}_expert.bmp'),
    ('Benign/{}.png', 'Benign/masks/{}.png'),
    ('train/{}.jpg', 'train_masks/{}_mask.gif'),
  ],
)
def test_pairs(image, mask):
  masks = paired(tree(image, mask))
  assert masks == {image.format(stem): (mask.format(stem),) for stem in STEMS}


@pytest.mark.parametrize(
  ('images', 'masks'),
  [
    (('Pro/u', 'Pro/v', 'Benign/x'), ('Pro/u', 'Benign/x', 'Benign/y')),
    (('a', 'b', 'b_1'), ('a', 'a_1', 'b', 'b_1')),
  ],
)
def test_a_mask_of_a_missing_image_is_no_others(images, masks):
  paths = [f'images/{name}.png' for name in images]
  pairs = mask_pairs.pair([*paths, *(f'masks/{name}.png' for name in masks)])
  assert pairs.masks == {
    f'images/{name}.png': (f'masks/{name}.png',)
    for name in images
    if name in masks
  }
  left = set(masks) - set(images)
  assert left <= {path[6:-4] for path in pairs.unpaired}


@pytest.mark.parametrize(
  ('image', 'masks'),
  [
    ('images/{0}.png', ('masks/{0}_1.png', 'masks/{0}_2.png')),
    ('images/{0}.png', ('masks/{0}.png', 'masks/{0}_1.png')),
    ('{0}/images/1.png', ('{0}/masks/1.png', '{0}/masks/2.png')),
    ('{0}/images/{0}.png', ('{0}/masks/{0}.png', '{0}/masks/{0}_1.png')),
  ],
)
def test_cells_of_an_image_are_joined(image, masks):
  paths = tree(image, *masks)
  assert paired(paths) == {
    image.format(stem): tuple(mask.format(stem) for mask in masks)
    for stem in STEMS
  }


def test_a_tree_of_masks_for_each_class_is_of_one_kind():
  forms = [
    f'{name}{more}/{{}}.png'
    for name in ('Benign', 'Malignant')
    for more in ('', '_masks')
  ]
  masks = paired(tree(*forms))
  assert masks['Benign/a.png'] == ('Benign_masks/a.png',)
  assert masks['Malignant/a.png'] == ('Malignant_masks/a.png',)


@pytest.mark.parametrize(
  ('forms', 'kinds'),
  [
    (
      ('x/{}.png', 'x/{}_nucleus_mask.png', 'x/{}_cyto_mask.png'),
      ('_cyto_mask', '_nucleus_mask'),
    ),
    (
      ('images/{}.png', 'nucleus_masks/{}.png', 'cyto_masks/{}.png'),
      ('cyto_masks', 'nucleus_masks'),
    ),
  ],
)
def test_kinds_to_choose_from(forms, kinds):
  pairs = mask_pairs.pair(sorted(tree(*forms)))
  assert not pairs.masks and set(pairs.folders) == set(tree(forms[0]))
  assert pairs.kinds == kinds
  for kind in kinds:
    masks = paired(tree(*forms), kind)
    assert all(kind in mask for own in masks.values() for mask in own)


@pytest.mark.parametrize(
  ('forms', 'words', 'suffix'),
  [
    (('images/{}.png', 'nuclei/{}.png'), 'in two ways', 'nuclei'),
    (('c/{}.bmp', 'c/{}.png'), 'files are there twice', '.png'),
    (('c/{}.png', 'c/{}_thumb.png'), 'and more', '_thumb'),
    (('c/{}.png', 'c/{}_mask.png', 'c/{}_overlay.png'), 'and more', '_mask'),
  ],
)
def test_what_is_not_clear_is_refused_with_a_way_out(forms, words, suffix):
  with pytest.raises(InputError, match=words) as caught:
    mask_pairs.pair(sorted(tree(*forms)))
  assert 'config.data.mask_suffix' in str(caught.value)
  masks = paired(tree(*forms), suffix)
  assert masks == {
    forms[0].format(stem): (forms[1].format(stem),) for stem in STEMS
  }


def test_what_lies_beside_both_trees_is_left_out():
  paths = tree('images/{}.png', 'masks/{}.png', 'overlays/{}.png')
  pairs = mask_pairs.pair(sorted(paths))
  assert set(pairs.masks) == set(tree('images/{}.png'))
  assert set(pairs.outside) == set(tree('overlays/{}.png'))


def test_a_mask_without_its_image_is_no_image():
  paths = [*tree('x/{}.png', 'x/{}_mask.png'), 'x/z_mask.png']
  pairs = mask_pairs.pair(sorted(paths))
  assert 'x/z_mask.png' not in pairs.folders
  assert pairs.unpaired == ('x/z_mask.png',)


def test_classes_of_cells_are_no_masks():
  paths = tree('band/{}.png', 'seg/{}.png', 'segmented/x{}.png')
  pairs = mask_pairs.pair(sorted(paths))
  assert not pairs.masks and len(pairs.folders) == 12
