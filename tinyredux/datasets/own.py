"""A user's own data: FILE.npz, arrays, or torch's data sets and loaders. What they hold is what the network sees.

Parts are checked, not changed, with one exception: pixels of uint8 become their share of 255. Nothing is chosen by test images:
a validation part that is missing is drawn from the training part by a seed, always the same. Training and validation images
are put in an order drawn by that seed, for calibration and statistics look at the first ones, and files are often sorted by
class.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux.datasets.arrays import Dataset, Split, read_arrays
from tinyredux.files import first_line, require

Array = npt.NDArray[Any]
Given = tuple[Array, Array | None]  # images and labels of a part, as a user gives them
PARTS = ("train", "validation", "test")
ARRAYS = tuple(f"{part}_{kind}" for part in PARTS for kind in ("images", "labels"))
FORMAT = (
    "train_images, train_labels, test_images, test_labels and, if you like, validation_images, validation_labels; or images and "
    "labels, which count as a test part: images (N, C, H, W) float32 as the network takes them or uint8, labels (N,) integers"
)
OUT_OF_SCOPE = "networks that give values instead of classes are measured, but not trained here"
HELD_OUT = 0.1  # of the training images, to validate with
ORDER_SEED = 0


def from_file(path: Path, shape: tuple[int, ...] | None = None) -> Dataset:
    """Returns the data of an .npz archive for a network that takes images of `shape` (None: of any).

    Its arrays are those of FORMAT; without a training part, train and validation are empty. Raises FileNotFoundError without the
    file, ValueError for arrays that do not fit, naming them.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file {path}; expected an .npz archive with the arrays {FORMAT}")
    arrays = read_arrays(path, [], ["images", "labels", *ARRAYS])
    if not any(name.endswith("images") for name in arrays):
        read_arrays(path, ["images"], ["labels", *ARRAYS])  # which raises, and names the arrays that are there
    for name in arrays:
        images = name.replace("labels", "images")
        require(images in arrays, f"{path} has {name} without {images}; expected {FORMAT}")
    found = {part: (arrays[f"{part}_images"], arrays.get(f"{part}_labels")) for part in PARTS if f"{part}_images" in arrays}
    if "images" in arrays:
        said = f"{path} has images beside {', '.join(name for name in arrays if '_' in name)}: which part are they?"
        require(not found, f"{said} call them train_images, validation_images or test_images")
        found = {"test": (arrays["images"], arrays.get("labels"))}
    return _dataset(found, path.stem, str(path), shape, "images" in arrays)


def of(
    test: Any, train: Any = None, validation: Any = None, *, name: str = "arrays", shape: tuple[int, ...] | None = None
) -> Dataset:  # fmt: skip
    """Returns the data of arrays, for training, pruning, tuning, exploring and measuring; `name` is what records call it.

    A part is (images, labels): images (N, C, H, W) float32 as the network takes them or uint8, labels (N,) integers, arrays or
    tensors on the CPU; or anything that gives pairs of these for one image or for a batch: a torch Dataset or DataLoader. A
    loader that shuffles gives other data, and so other weights, each time. `shape` (C, H, W) is what the network takes, if it is
    to be checked here. Raises ValueError for parts that do not fit, as for files.
    """
    parts = dict(zip(PARTS, (train, validation, test), strict=True))
    found = {part: _pair(value, part) for part, value in parts.items() if value is not None}
    return _dataset(found, name, "arrays in memory", shape)


def _pair(value: Any, part: str) -> Given:
    """Returns the images and labels of what a user gives for a part."""
    try:
        if isinstance(value, tuple):
            images, labels = value
            return np.asarray(images), None if labels is None else np.asarray(labels)
        indexed = hasattr(value, "__len__") and not hasattr(value, "__iter__")  # a torch Dataset need not end by IndexError
        items = [(np.asarray(x), np.asarray(y)) for x, y in (map(value.__getitem__, range(len(value))) if indexed else value)]
        require(items, "it is empty")
        join = np.concatenate if items[0][0].ndim == 4 else np.stack
        return join([x for x, _ in items]), join([y for _, y in items])
    except Exception as wrong:  # whatever a user's data set raises
        said = f"{part}: {type(wrong).__name__}: {first_line(wrong)}"
        raise ValueError(f"{said}; expected (images, labels), or a torch Dataset or DataLoader that gives such pairs") from wrong


def _dataset(parts: dict[str, Given], name: str, source: str, shape: tuple[int, ...] | None, plain: bool = False) -> Dataset:
    """Returns the data set of the parts that there are. `plain`: the test part is called images, not test_images."""
    require("test" in parts, f"{source} has no test_images; keep some images apart, which nothing is chosen by, as test_images")
    require("train" in parts or "validation" not in parts, f"{source} has validation_images without train_images; add these")
    shape = shape or next(iter(parts.values()))[0].shape[1:]  # that of the first part, where no network is known
    kinds, content, splits = {images.dtype for images, _ in parts.values()}, hashlib.sha256(), dict[str, Split]()
    for part, (images, labels) in parts.items():
        called = source + (": " if plain else f": {part}_")
        _check_images(images, f"{called}images", shape)
        require(len(kinds) == 1, f"{called}images are {images.dtype}, those of other parts are not; give all in one type")
        require(labels is not None or len(parts) == 1, f"{called}labels are not there; expected {FORMAT}")
        numbers = None if labels is None else _class_numbers(labels, f"{called}labels", len(images))
        for array in (images, numbers):
            content.update(f"{part} {array is not None and (array.dtype.str, array.shape)}".encode())
            content.update(b"" if array is None else np.ascontiguousarray(array).data)
        scaled = images / np.float32(255) if images.dtype == np.uint8 else images
        splits[part] = Split(np.ascontiguousarray(scaled, np.float32), numbers)
    none = splits["test"].first(0)
    train, validation = (_in_order(splits.get(part, none)) for part in ("train", "validation"))
    if "train" in splits and "validation" not in splits:
        held = round(HELD_OUT * train.count) or 1
        require(held < train.count, f"{source}: one training image cannot be trained on and validated with; give more")
        validation, train = train.first(held), train.after(held)
        source += f"; {held:,} of its training images, drawn by a seed, validate"
    own = f"{re.sub('[^0-9A-Za-z_-]', '_', name)}-{content.hexdigest()[:8]}"
    pixels = kinds == {np.dtype(np.uint8)}
    return Dataset(own, source, train, validation, splits["test"], sha256=content.hexdigest(), pixels=pixels)


def _in_order(split: Split) -> Split:
    """Returns a part in the order that the seed draws."""
    order = np.random.default_rng(ORDER_SEED).permutation(split.count)
    return Split(split.images[order], None if split.labels is None else split.labels[order])


def _check_images(images: Array, where: str, shape: tuple[int, ...]) -> None:
    """Raises ValueError for images that no network takes, or not the one that takes `shape`."""
    advice = "save them by .astype('float32')" if images.dtype.kind == "f" else "uint8 is taken too, and divided by 255"
    right = images.dtype in (np.float32, np.uint8)
    require(right, f"{where} are {images.dtype}, expected float32 as the network takes them; {advice}")
    found, wanted = images.shape[1:], ", ".join(map(str, shape)) if len(shape) == 3 else "C, H, W"
    said = f"{where} have shape {images.shape}, expected (N, {wanted})"
    if found != shape:
        last = len(found) == 3 and (found[2], *found[:2]) == shape
        require(not last, f"{said}: looks like channels last, expected (N, C, H, W); give images.transpose(0, 3, 1, 2)")
        alike = [size for size in found if size != 1] == [size for size in shape if size != 1]
        require(not alike, f"{said}: an axis of length 1 is missing, or too many; give images.reshape(-1, {wanted})")
    require(images.ndim == 4 and found == shape and len(images), f"{said}, N >= 1")
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    bad = f"{(~finite).sum()} images hold NaN or infinite values, the first is number {finite.argmin()}"
    require(finite.all(), f"{where}: {bad}; remove them")


def _class_numbers(labels: Array, where: str, count: int) -> npt.NDArray[np.int64]:
    """Returns labels as int64. Raises ValueError for what does not name a class for each image."""
    said = f"{where} have shape {labels.shape}, expected ({count},), one for each image"
    for_each = labels.ndim >= 2 and len(labels) == count
    flat = "labels.ravel()" if labels.shape[-1:] == (1,) else "labels.argmax(axis=1) where they are one-hot"
    require(not for_each, f"{said}; give {flat}; {OUT_OF_SCOPE}")
    require(labels.shape == (count,), said)
    text = labels.dtype.kind in "USO"
    advice = "number the classes by numpy.unique(labels, return_inverse=True)[1]" if text else OUT_OF_SCOPE
    require(labels.dtype.kind in "iu", f"{where} are {labels.dtype}, expected integers, class numbers from 0; {advice}")
    least, most = int(labels.min()), int(labels.max())
    require(0 <= least and most < 1 << 31, f"{where} go from {least} to {most}, expected class numbers from 0")
    return np.asarray(labels, np.int64)


def check_part(data: Dataset, part: str, labelled: bool = True) -> None:
    """Raises ValueError where the data has no images of the `part` "training" or "validation", and usually labels with them."""
    split = data.validation if part == "validation" else data.train
    named = "an array images alone is a test part: name the others train_images, train_labels, test_images, test_labels"
    advice = named if data.sha256 else "use cifar10, synthetic, another set with labels, or FILE.npz"
    there = split.count and (split.labels is not None or not labelled)
    require(there, f"{data.name} has no {part} images{' with labels' * labelled}; {advice}")
