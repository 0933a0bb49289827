"""The images and sounds that the book trains and measures on, downloaded once or drawn from a seed.

`sets` loads a data set by its name; `generated` draws the synthetic one, which needs no download; `speech` and `persons`
prepare Speech Commands and Visual Wake Words; `arrays` reads a user's .npz and .npy files.
"""

from __future__ import annotations

from tinyredux.datasets import generated
from tinyredux.datasets.arrays import Labels, read_array
from tinyredux.datasets.download import MissingDataError
from tinyredux.datasets.sets import (
    DEVIATION,
    GET_CIFAR10,
    IMAGE_SHAPE,
    MEAN,
    SHAPES,
    SYNTHETIC_IMAGES,
    Dataset,
    Images,
    Split,
    calibration,
    check_labels,
    cifar10_folder,
    cifar10_pixels,
    from_file,
    load,
    normalize,
    random_images,
    synthetic,
)
from tinyredux.files import cache_folder

__all__ = [
    "DEVIATION", "GET_CIFAR10", "IMAGE_SHAPE", "MEAN", "SHAPES", "SYNTHETIC_IMAGES", "Dataset", "Images", "Labels",
    "MissingDataError", "Split", "cache_folder", "calibration", "check_labels", "cifar10_folder", "cifar10_pixels", "from_file",
    "generated", "load", "normalize", "random_images", "read_array", "synthetic",
]  # fmt: skip
