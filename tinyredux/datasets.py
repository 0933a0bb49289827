"""Images for training, calibration and measuring: CIFAR-10 where it is, a generated set where it is not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]  # (N, C, H, W)
Labels = npt.NDArray[np.int64]  # (N,)

CLASSES = 10
VALIDATION_IMAGES = 5000
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) float32 and labels (N,) int64, or None where there are none."""

    images: Images
    labels: Labels | None

    def first(self, count: int) -> Split:
        """Returns the first `count` images."""
        return Split(self.images[:count], None if self.labels is None else self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """Train, validation (cut from train) and test, and where they came from."""

    name: str
    source: str
    train: Split
    validation: Split
    test: Split


def normalize(pixels: npt.NDArray[np.uint8]) -> Images:
    """Returns (N, 3, H, W) float32 of about zero mean and unit deviation from (N, H, W, 3) uint8."""
    scaled = (pixels.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def cifar10_folder() -> Path | None:
    """Returns the folder that holds the CIFAR-10 archives: TINYREDUX_DATA first, then the user's cache."""
    for folder in (os.environ.get("TINYREDUX_DATA"), str(cache_folder())):
        if folder and (Path(folder) / "cifar10_test.npz").is_file():
            return Path(folder)
    return None


def cache_folder() -> Path:
    """Returns the folder for downloads and checkpoints: TINYREDUX_CACHE, or ~/.cache/tinyredux."""
    return Path(os.environ.get("TINYREDUX_CACHE", Path.home() / ".cache" / "tinyredux"))


def cifar10_pixels(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Returns pixels (N, 32, 32, 3) uint8 and labels (N,) of part 'train' or 'test'."""
    names = [f"cifar10_train_{i}.npz" for i in range(1, 6)] if part == "train" else ["cifar10_test.npz"]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"CIFAR-10 in {folder} lacks {', '.join(missing)}; expected the layout of data/README.md")
    parts = [np.load(folder / name) for name in names]
    return np.concatenate([p["images"] for p in parts]), np.concatenate([p["labels"] for p in parts]).astype(np.int64)


def cifar10(folder: Path) -> Dataset:
    """Returns CIFAR-10, normalised; validation is a seeded 5,000 of the training set."""
    pixels, labels = cifar10_pixels(folder, "train")
    order = np.random.default_rng(0).permutation(len(labels))
    held, kept = order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:]
    test_pixels, test_labels = cifar10_pixels(folder, "test")
    return Dataset(
        "cifar10", str(folder),
        Split(normalize(pixels[kept]), labels[kept]),
        Split(normalize(pixels[held]), labels[held]),
        Split(normalize(test_pixels), test_labels),
    )  # fmt: skip
