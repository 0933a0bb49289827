"""What a data set is made of, and the arrays in files that users give, .npz and .npy, of which no pickle is opened."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux.files import check_is_file, first_line, require

Images = npt.NDArray[np.float32]  # (N, C, H, W)
Labels = npt.NDArray[np.int64]  # (N,)
Part = tuple[npt.NDArray[Any], Labels]  # pixels (N, H, W, 3) uint8 or features (N, C, H, W) float32
Parts = tuple[Part, Part, Part]  # train, validation, test

MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)  # of CIFAR-10's colours
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) float32 and labels (N,) int64, or None where there are none.

    Pixels (N, H, W, 3) uint8 may stand for the images: they are normalised when `images` is first asked for, so that who needs
    some of a large set, by `first`, does not wait for the others.
    """

    stored: Images | npt.NDArray[np.uint8]
    labels: Labels | None

    @cached_property
    def images(self) -> Images:
        """The images (N, C, H, W) float32."""
        return normalize(self.stored) if self.stored.dtype == np.uint8 else self.stored  # type: ignore[return-value,arg-type]

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.stored)

    def first(self, count: int) -> "Split":
        """Returns the first `count` images."""
        return Split(self.stored[:count], None if self.labels is None else self.labels[:count])

    def after(self, count: int) -> "Split":
        """Returns the images after the first `count`."""
        return Split(self.stored[count:], None if self.labels is None else self.labels[count:])


@dataclass(frozen=True, repr=False)
class Dataset:
    """Train, validation (cut from train) and test, and where they came from."""

    name: str
    source: str
    train: Split
    validation: Split
    test: Split
    sound: bool = False  # rows are moments: shifted in training, never mirrored
    sha256: str = ""  # of a user's own data: of all arrays
    pixels: bool = False  # of a user's own data: all images were uint8 and are now 0 to 1

    def __repr__(self) -> str:
        """Returns the data in a line: how many images each part has."""
        parts = ", ".join(f"{getattr(self, name).count:,} {name}" for name in ("train", "validation", "test"))
        return f"{self.name}: {parts} images {self.shape} from {self.source}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        _, channels, height, width = self.test.first(0).images.shape
        return channels, height, width


def normalize(pixels: npt.NDArray[np.uint8]) -> Images:
    """Returns (N, 3, H, W) float32 of about zero mean and unit deviation from (N, H, W, 3) uint8."""
    scaled = (pixels.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def pixels(images: Images) -> npt.NDArray[np.uint8]:
    """Returns pixels (N, 3, H, W) uint8 of images (N, 3, H, W) that `normalize` made."""
    scaled = images * DEVIATION[:, None, None] + MEAN[:, None, None]
    return np.asarray(np.rint(scaled * np.float32(255)), np.uint8)


def check_labels(split: Split, classes: int, part: str = "") -> None:
    """Raises ValueError where a label names a class that the network does not have; `part` says which labels they are."""
    most, wanted = 0 if split.labels is None else int(split.labels.max(initial=0)), f"expected labels from 0 to {classes - 1}"
    require(most < classes, f"{part}{part and ' '}labels reach {most}, the network has {classes} outputs; {wanted}")


def read_arrays(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays `names` of an .npz archive, and those of `optional` that it has.

    Raises ValueError for a file that is none, damaged, encrypted, too large for memory, with pickles or without one of `names`.
    """
    check_is_file(path, "archive")
    try:
        require(zipfile.is_zipfile(path), "File is not a zip file")
        with np.load(path, allow_pickle=False) as archive:
            held = archive.files
            found = {name: np.asarray(archive[name]) for name in (*names, *optional) if name in held}  # bytes are no array
    except Exception as wrong:  # whatever a damaged archive leads zipfile, zlib and NumPy to
        said = f"is not an .npz archive without pickles ({first_line(wrong)})"
        raise ValueError(f"{path} {said}; write it with numpy.savez") from wrong
    expected = ", ".join(names) + (f" and optionally {', '.join(optional)}" if optional else "")
    for name in names:
        require(name in found, f"{path} has no array {name}; found {', '.join(held) or 'none'}, expected {expected}")
    return found


def read_array(path: Path) -> npt.NDArray[Any]:
    """Returns the array of an .npy file. Raises ValueError for anything else."""
    check_is_file(path, "input file")
    try:
        with path.open("rb") as stream:
            values: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return values
    except Exception as wrong:  # whatever a damaged file leads NumPy to
        raise ValueError(f"{path} is not a NumPy array file ({first_line(wrong)}); write it with np.save") from None
