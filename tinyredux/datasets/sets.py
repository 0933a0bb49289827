"""Images and sounds for training, calibration and measuring: CIFAR-10 where it is, a generated set where it is not.

`load` is the one entry: every set comes as a `Dataset` with train, validation and test, and says where it is from.
"""

import math
import os
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyredux.datasets import download as archive
from tinyredux.datasets import generated, persons, speech
from tinyredux.datasets.arrays import Dataset, Images, Labels, Parts, Split, pixels, read_arrays
from tinyredux.datasets.download import MissingDataError as MissingDataError
from tinyredux.datasets.own import from_file
from tinyredux.files import cache_folder, expect, require

Shape = tuple[int, int, int]  # channels, height, width

VALIDATION_IMAGES = 5000
CALIBRATION_IMAGES = 512
IMAGE_SHAPE: Shape = (3, 32, 32)
SYNTHETIC_IMAGES = (6000, 1000, 1000)  # train, validation, test
RANDOM_SEED = 0
RANDOM_IMAGES = 1000
RANDOM_VALUES = 1 << 22  # at most, so that large images stay within 16 MiB
VWW_VALUES = 1 << 29  # at most, so that photographs stay within 2 GiB
SHAPES: dict[str, Shape | None] = {  # of the sets with labels; None: as the network wants them
    "cifar10": IMAGE_SHAPE, "synthetic": IMAGE_SHAPE, "person": IMAGE_SHAPE, "vww": None,
    "keywords": speech.SHAPE, "speech_commands": speech.SHAPE,
}  # fmt: skip
NAMES = (*SHAPES, "random", "FILE.npz")
GET_CIFAR10 = (
    "set TINYREDUX_DATA to a folder with cifar10_train_1.npz .. cifar10_train_5.npz and cifar10_test.npz, fetch it by "
    "`tinyredux data --download` (170 MB), or use `--data synthetic`, which needs nothing"
)


def load(name: str | None = None, shape: Shape | None = None, seed: int = RANDOM_SEED, download: bool = False) -> Dataset:
    """Returns the data called `name`, one of NAMES, for a network that takes images of `shape` (default: the set's own).

    None means CIFAR-10 where it is on this machine (or `download` fetches it), else the synthetic set; for keyword networks the
    keyword set where it is; and random images otherwise: the result's `name` and `source` say which. `seed` is that of the
    random images. Raises MissingDataError where a set is asked for and absent, ValueError for an unknown name or images that
    the network cannot take.
    """
    expect(str | None, name, "the data", "such as 'synthetic' or 'mine.npz'")
    if name and name.endswith(".npz"):
        return from_file(Path(name), shape)
    shape = shape or SHAPES.get(name or "cifar10") or IMAGE_SHAPE
    name = name or _usual(shape, download)
    if name == "random":
        return random_images(shape, seed)
    require(name in NAMES, f"unknown data {name!r}; expected one of {', '.join(NAMES)}")
    own = SHAPES[name] or shape
    require(own == shape, f"{name} has images of {own}, the network takes {shape}; use `--data random` or FILE.npz")
    if name == "synthetic":
        return synthetic()
    if name != "cifar10":
        return _labelled(name, data_folder(), shape)
    folder = cifar10_folder() or (archive.fetch_cifar10(cache_folder()) if download else None)
    if folder is None:
        raise MissingDataError(f"CIFAR-10 is not on this machine: {GET_CIFAR10}")
    return _of_parts(name, folder, cifar10(folder))


def _usual(shape: Shape, download: bool) -> str:
    """Returns which data a network of this input shape gets where none is named."""
    if shape == IMAGE_SHAPE:
        return "cifar10" if download or cifar10_folder() else "synthetic"
    return "keywords" if shape == speech.SHAPE and speech.small_folder(data_folder()) else "random"


@cache
def _labelled(name: str, folder: Path | None, shape: Shape) -> Dataset:
    """Returns a set of sounds or photographs of persons that lies in `folder`, read once and kept in memory."""
    if name == "vww":
        return _of_parts(name, folder, persons.visual_wake_words(folder, shape[1:], VWW_VALUES // math.prod(shape)))
    read = {"keywords": speech.keywords, "speech_commands": speech.speech_commands, "person": persons.small}
    return _of_parts(name, folder, read[name](folder))


def _of_parts(name: str, source: object, parts: Parts) -> Dataset:
    """Returns a data set of its three parts, pixels (N, H, W, 3) uint8 or features."""
    train, validation, test = (Split(x, labels) for x, labels in parts)
    return Dataset(name, str(source), train, validation, test, sound=SHAPES[name] == speech.SHAPE)


def in_units(data: Dataset, low: float, high: float) -> Dataset:
    """Returns a set in the units of a network that was trained elsewhere and takes values from `low` to `high`.

    Pixels are spread from 0 at `low` to 255 at `high`, a user's own too; sounds are MFCC as they are, random images have their
    deviations 3 at the ends, and what else a user gives is left alone.
    """
    if data.name not in SHAPES and data.name != "random" and not data.pixels:
        return data

    def convert(images: Images) -> Images:
        if data.sound:
            return images * speech.DEVIATION + speech.MEAN
        share = (images / 6 + 0.5).clip(0, 1) if data.name == "random" else images
        share = share if data.name == "random" or data.pixels else pixels(images) / np.float32(255)
        return np.asarray(np.float32(low) + share * np.float32(high - low), np.float32)

    train, validation, test = (Split(convert(part.images), part.labels) for part in (data.train, data.validation, data.test))
    return replace(data, train=train, validation=validation, test=test)


def calibration(data: Dataset, file: Path | None = None, count: int = CALIBRATION_IMAGES) -> Images:
    """Returns images that set the activations' ranges: of `file`, else of the training part, else random ones.

    Those of a file are its training images; of one with one part alone, all.

    The random ones have the mean and deviation of each channel of the test images, and nothing else from them.
    """
    if file is not None:
        own = from_file(file, data.shape)
        return own.train.images if own.train.count else own.test.images
    if data.train.count:
        return data.train.first(count).images
    mean, deviation = (measure(data.test.images, (0, 2, 3), keepdims=True) for measure in (np.mean, np.std))
    return np.asarray(_normal(RANDOM_SEED + 1, (count, *data.shape)) * deviation + mean, np.float32)


def cifar10_folder() -> Path | None:
    """Returns the folder that holds the CIFAR-10 archives: TINYREDUX_DATA first, then the user's cache."""
    places = (data_folder(), cache_folder())
    return next((folder for folder in places if folder and (folder / "cifar10_test.npz").is_file()), None)


def data_folder() -> Path | None:
    """Returns the user's folder of data sets, TINYREDUX_DATA, or None."""
    return Path(folder) if (folder := os.environ.get("TINYREDUX_DATA")) else None


def cifar10_pixels(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Returns pixels (N, 32, 32, 3) uint8 and labels (N,) of part 'train' or 'test'."""
    names = [f"cifar10_train_{i}.npz" for i in range(1, 6)] if part == "train" else ["cifar10_test.npz"]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise MissingDataError(f"CIFAR-10 in {folder} lacks {', '.join(missing)}: {GET_CIFAR10}")
    parts = [read_arrays(folder / name, ["images", "labels"]) for name in names]
    return np.concatenate([p["images"] for p in parts]), np.concatenate([p["labels"] for p in parts]).astype(np.int64)


def cifar10(folder: Path) -> Parts:
    """Returns pixels and labels of CIFAR-10; validation: a seeded 5,000 of the training set. Read again where a file changed."""
    return _cifar10(folder, tuple(path.stat().st_mtime_ns for path in sorted(folder.glob("cifar10_*.npz"))))


@lru_cache(1)
def _cifar10(folder: Path, written: tuple[int, ...]) -> Parts:
    pixels, labels = cifar10_pixels(folder, "train")
    order = np.random.default_rng(0).permutation(len(labels))
    held, kept = order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:]
    return (pixels[kept], labels[kept]), (pixels[held], labels[held]), cifar10_pixels(folder, "test")


@cache
def synthetic(counts: tuple[int, int, int] = SYNTHETIC_IMAGES) -> Dataset:
    """Returns the generated set: 6,000 training, 1,000 validation and 1,000 test images, made once and kept in memory."""
    train, validation, test = (generated.pixels_and_labels(count, seed) for seed, count in enumerate(counts))
    return _of_parts("synthetic", "generated from seed 0", (train, validation, test))


def random_images(shape: Shape, seed: int = RANDOM_SEED) -> Dataset:
    """Returns images of normal noise without labels, for a network without data."""
    count = max(16, min(RANDOM_IMAGES, RANDOM_VALUES // math.prod(shape)))
    test, train = (Split(_normal(one, (count, *shape)), None) for one in (seed, seed + 1))
    return Dataset("random", f"normal noise from seed {seed}", train, test.first(0), test)


def _normal(seed: int, shape: tuple[int, ...]) -> Images:
    """Returns about normal values, each the sum of twelve uniform ones: additions alone, so alike on every machine."""
    draws, count = generated.Draws(seed), math.prod(shape)
    total = sum((draws.small(count) for _ in range(12)), np.zeros(count, np.int32))
    return np.asarray((total - 6 * 65535) / np.float32(65536), np.float32).reshape(shape)
