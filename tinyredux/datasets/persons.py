"""Person or no person: the small 32x32 set, and Visual Wake Words for users who have it.

Label 1 is a person, label 0 none.
"""

import hashlib
from pathlib import Path

import numpy as np

from tinyredux.datasets.arrays import Part, Parts, read_arrays
from tinyredux.datasets.download import MissingDataError

SMALL_FILE = "person32_cifar100.npz"
FOLDER = "vww"
CLASSES = ("non_person", "person")  # a label is the place here
GET_SMALL = f"set TINYREDUX_DATA to a folder with {SMALL_FILE}"
GET_FULL = (
    f"set TINYREDUX_DATA to a folder in which {FOLDER}/person/ and {FOLDER}/non_person/ hold the photographs as .jpg files, "
    "as in MLPerf Tiny's vw_coco2014_96"
)


def small(folder: Path | None) -> Parts:
    """Returns train, validation (a seeded eighth of the training images) and test of the 32x32 set.

    Raises MissingDataError without the file.
    """
    if folder is None or not (folder / SMALL_FILE).is_file():
        raise MissingDataError(f"the person set is not on this machine: {GET_SMALL}")
    arrays = read_arrays(folder / SMALL_FILE, ["images", "labels", "split"])
    images, labels, split = arrays["images"], arrays["labels"].astype(np.int64), arrays["split"]
    order = np.random.default_rng(0).permutation(np.flatnonzero(split == 0))
    held, kept, test = order[: len(order) // 8], order[len(order) // 8 :], np.flatnonzero(split == 1)
    return (images[kept], labels[kept]), (images[held], labels[held]), (images[test], labels[test])


def visual_wake_words(folder: Path | None, size: tuple[int, int], limit: int) -> Parts:
    """Returns train, validation and test of the full set, with its photographs reduced to `size` (height, width).

    The file name decides the part: of ten hash values eight are for training. At most `limit` photographs are taken, those
    with the least hash, for all are held in memory as float32. Raises MissingDataError without the folder or the package pillow.
    """
    root = folder / FOLDER if folder else Path(FOLDER)
    if folder is None or not all((root / name).is_dir() for name in CLASSES):
        raise MissingDataError(f"Visual Wake Words is not on this machine: {GET_FULL}")
    named = [(hashlib.sha1(path.name.encode()).hexdigest(), path) for name in CLASSES for path in (root / name).glob("*.jpg")]
    if not named:
        raise MissingDataError(f"{root} holds no .jpg files: {GET_FULL}")
    parts: tuple[list[Path], list[Path], list[Path]] = [], [], []
    for digest, path in sorted(named)[:limit]:
        parts[max(0, int(digest[-8:], 16) % 10 - 7)].append(path)
    train, validation, test = (_read(paths, size) for paths in parts)
    return train, validation, test


def _read(paths: list[Path], size: tuple[int, int]) -> Part:
    try:
        from PIL import Image
    except ImportError as missing:
        raise MissingDataError("reading photographs needs the package pillow: `pip install pillow`") from missing
    images = np.empty((len(paths), *size, 3), np.uint8)
    for image, path in zip(images, paths, strict=True):
        with Image.open(path) as photograph:
            image[:] = np.asarray(photograph.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return images, np.array([CLASSES.index(path.parent.name) for path in paths], np.int64)
