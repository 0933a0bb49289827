"""The images and sounds that the book trains and measures on, downloaded once or drawn from a seed.

`sets` loads a data set by its name; `generated` draws the synthetic one, which needs no download; `speech` and `persons`
prepare Speech Commands and Visual Wake Words; `own` is a user's data, in FILE.npz or in memory; `arrays` says what a set is.
"""

from tinyredux.datasets import generated
from tinyredux.datasets.arrays import (
    DEVIATION,
    MEAN,
    Dataset,
    Images,
    Labels,
    Split,
    check_labels,
    normalize,
    pixels,
    read_array,
    read_arrays,
)
from tinyredux.datasets.download import MissingDataError
from tinyredux.datasets.own import check_part, from_file, of
from tinyredux.datasets.sets import (
    GET_CIFAR10,
    SHAPES,
    calibration,
    cifar10_folder,
    data_folder,
    in_units,
    load,
    random_images,
    synthetic,
)
from tinyredux.files import cache_folder

__all__ = [
    "DEVIATION", "GET_CIFAR10", "MEAN", "SHAPES", "Dataset", "Images", "Labels", "MissingDataError", "Split",
    "cache_folder", "calibration", "check_labels", "check_part", "cifar10_folder", "data_folder", "from_file", "generated",
    "in_units", "load", "normalize", "of", "pixels", "random_images", "read_array",
    "read_arrays", "synthetic",
]  # fmt: skip
