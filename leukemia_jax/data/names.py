"""What folders and files are usually called, in image sets that people have."""

import fnmatch
import pathlib
import re
import unicodedata
from collections.abc import Collection

# A name's words, in lower case. Sources: the layouts of public image sets, and
# reports about other image tools.
IMAGE_WORDS = frozenset(
  'image images img imgs im ims original originals photo photos picture '
  'pictures raw frame frames input inputs jpegimages data dataset rgb bild '
  'bilder foto fotos'.split()
)
MASK_WORDS = frozenset(
  'mask masks gt gts label labels lbl lbls annotation annotations annot annots '
  'annotated segmented segmentation segmentations seg segs groundtruth truth '
  'gold trimap trimaps binary bw roi rois contours instances manual masken '
  'maski masque masques'.split()
)
_PARTS = {
  'train': 'train training trn tr',
  'validation': 'val valid validation validate eval evaluation dev',
  'test': 'test testing tests holdout tst ts',
}
_PART_WORDS = {word: part for part, ws in _PARTS.items() for word in ws.split()}
_UNLABELLED_WORDS = frozenset(
  'unlabelled unlabeled unsigned unannotated unclassified unsorted'.split()
)
_PATIENT = re.compile(
  r'(^|[^a-z])(patient|subject|case|donor|individual|person|slide|sample|'
  r'specimen|uid|pid)[ _.-]*(id|no|nr)?([ _.-]*([a-z]{0,2}\d|x+$)|'
  r'[ _.-]+[a-z]{1,3}$)|^(p|pt|pat|sub|subj)[ _.-]*\d'
)
_FOLD = re.compile(r'(k?fold|split|cv)[ _.-]*\d+')
_PHASE = re.compile(r'(phase|round|stage)[ _.-]*\d+')
_MAGNIFICATION = re.compile(r'(x\d+|\d+x)')
# Files that hold an image, in formats that are read.
IMAGE_SUFFIXES = tuple(
  '.bmp .dib .gif .j2c .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .mpo .pbm .pgm '
  '.png .pnm .ppm .tif .tiff .webp'.split()
)
# Formats of microscopes, phones and cameras, and what opens them.
_FOREIGN = {
  "a microscope format; export it as TIFF or PNG, with Fiji or the maker's "
  'program': '.czi .nd2 .lif .lsm .oib .oif .vsi .ims .stk .zvi',
  'a whole slide; export fields of it as TIFF, with QuPath': (
    '.svs .ndpi .mrxs .scn .bif .vms'
  ),
  'DICOM; export it as PNG, with any DICOM viewer': '.dcm .dicom',
  'a format of phones; save it as JPEG or PNG': '.heic .heif .hif .avif',
  "a camera's raw format; save it as TIFF or PNG": (
    '.cr2 .cr3 .nef .arw .dng .orf .rw2 .raf'
  ),
}
_FOREIGN_SUFFIXES = {
  suffix: words for words, text in _FOREIGN.items() for suffix in text.split()
}
# What systems, network drives, cameras and notebooks leave.
_SYSTEM = frozenset(
  '__macosx __pycache__ thumbs.db ehthumbs.db desktop.ini @eadir #recycle '
  '@recycle @recently-snapshot @tmp @sharebin @__thumb #snapshot ~snapshot '
  '$recycle.bin recycler recycled lost+found lost.dir thumbnails thumbnail '
  'thumbs thumb _thumbs _gsdata_ msocache _vti_cnf trash papierkorb '
  'thevolumesettingsfolder'.split()
) | {
  'system volume information',
  'network trash folder',
  'temporary items',
  'recycle bin',
  'icon\r',
}
_SYSTEM_ENDS = ('.photoslibrary', '.lrdata')
_FOUND = re.compile(r'found\.\d{3}')


def normalise(name: str) -> str:
  """A name as it is compared: composed (NFC), since systems differ in that."""
  return unicodedata.normalize('NFC', name)


def fold(name: str) -> str:
  """A name without case, composed."""
  return normalise(normalise(name).casefold())


def natural_key(path: str) -> list[tuple[int, str]]:
  """Sorts 'a-2.jpg' before 'a-10.jpg'."""
  parts = re.split(r'(\d+)', path)
  return [(int(p), '') if p.isdecimal() else (-1, p) for p in parts]


def stem(path: str) -> str:
  """A file's name without folder and suffix."""
  name = path.rpartition('/')[2]
  return name.rpartition('.')[0] or name


def words(name: str) -> tuple[str, ...]:
  """A name's words and numbers: 'TestA_2' gives test, a, 2."""
  apart = re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', normalise(name))
  return tuple(re.findall(r'\d+|[^\W\d_]+', apart.casefold()))


def is_system(path: str) -> bool:
  """Whether a path is, or lies in, what a system left."""
  return any(
    part.startswith(('.', '~$'))
    or part.casefold() in _SYSTEM
    or part.casefold().endswith(_SYSTEM_ENDS)
    or _FOUND.fullmatch(part.casefold())
    for part in path.split('/')
  )


def set_aside(path: str) -> str:
  """The folder of a path that a system may have made, or a user; or ''.

  Args:
    path: for which `is_system` holds.

  Returns:
    The path up to a folder such as `Trash`, a word that a class may have.
  """
  parts = path.split('/')
  first = next(i for i, name in enumerate(parts) if is_system(name))
  return '/'.join(parts[: first + 1]) if parts[first].isalpha() else ''


def is_image(path: str) -> bool:
  """Whether a file is an image that is read, by its suffix."""
  return path.casefold().endswith(IMAGE_SUFFIXES)


def foreign_format(path: str) -> str:
  """What to do with an image in a format that isn't read; '' if it is."""
  suffix = pathlib.PurePosixPath(path).suffix.casefold()
  words = _FOREIGN_SUFFIXES.get(suffix, '')
  return f'{suffix[1:].upper()} is {words}' if words else ''


def matching(pattern: str, paths: Collection[str]) -> list[str]:
  """The paths that a pattern with `*` names, or that it is."""
  wanted = normalise(pattern)
  return [
    path
    for path in paths
    if (own := normalise(path)) == wanted or fnmatch.fnmatchcase(own, wanted)
  ]


def is_mask(name: str) -> bool:
  """Whether a folder or file is called a mask."""
  own = words(name)
  return bool(MASK_WORDS & set(own)) or 'ground truth' in ' '.join(own)


def rest(name: str) -> tuple[str, ...]:
  """A folder's words besides those that say images or masks."""
  said = IMAGE_WORDS | MASK_WORDS | {'ground', 'truth'}
  return tuple(word for word in words(name) if word not in said)


def is_unlabelled(name: str) -> bool:
  """Whether a folder says that its images have no label."""
  return bool(_UNLABELLED_WORDS & set(words(name)))


def part(name: str) -> str:
  """'train', 'validation', 'test' for a part's name, else ''."""
  own = words(name)
  # An external validation is a test.
  if {'external', 'validation'} <= set(own):
    return 'test'
  parts = {_PART_WORDS[w] for w in (*own, ''.join(own)) if w in _PART_WORDS}
  return parts.pop() if len(parts) == 1 else ''


def is_part_word(name: str) -> bool:
  """Whether a name is a part's and nothing else."""
  return fold(name) in _PART_WORDS


def are_folds(names: Collection[str]) -> bool:
  """Whether folders are named as folds of a cross-validation."""
  return all(_FOLD.fullmatch(fold(name)) for name in names)


def are_phases(names: Collection[str]) -> bool:
  """Whether folders are named as phases of a challenge."""
  return all(_PHASE.fullmatch(fold(name)) for name in names)


def are_magnifications(names: Collection[str]) -> bool:
  """Whether folders are named as magnifications: 40x, x100."""
  return all(_MAGNIFICATION.fullmatch(fold(name)) for name in names)


def are_patients(names: Collection[str]) -> bool:
  """Whether folders are named as patients, cases or slides."""
  return all(_PATIENT.search(fold(name)) for name in names)


def patient_pattern(name: str) -> str:
  """A regular expression that may find the patient in such a name; or ''."""
  match = _PATIENT.search(fold(name))
  if match is None:
    return ''
  word = normalise(name)[slice(*match.span())]
  word = re.sub(r'[A-Za-z]?\d.*$', '', word.lstrip('_- .'))
  return f'{re.escape(word)}([A-Za-z]?\\d+)' if word else ''


def has_digit(name: str) -> bool:
  """Whether a name holds a digit, as codes and numbers do."""
  return bool(re.search(r'\d', name))


def are_numbered(names: Collection[str]) -> bool:
  """Whether names differ by a number alone: run1, run2."""
  forms = {re.sub(r'\d+', '#', fold(name)) for name in names}
  return len(forms) == 1 and '#' in forms.pop()


def are_codes(names: Collection[str]) -> bool:
  """Whether names are codes: each has a digit, or all are short capitals."""
  if all(map(has_digit, names)):
    return True
  lengths = {len(name) for name in names}
  return len(lengths) == 1 and all(
    re.fullmatch(r'[A-Z]{2,6}', name) for name in names
  )


def search(pattern: str, text: str) -> str | None:
  """The first group of a match, or all of it; None without one."""
  match = re.search(pattern, normalise(text), re.IGNORECASE)
  if match is None:
    return None
  return next(
    (group for group in match.groups() if group is not None), match[0]
  )
