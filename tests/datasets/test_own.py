"""A user's own data: what is taken from files, arrays, data sets and loaders; what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tinyredux import datasets

SHAPE = (3, 8, 8)
GOOD = np.zeros((4, *SHAPE), np.float32)
BAD = np.where(np.arange(4).reshape(4, 1, 1, 1) == 2, np.float32(np.nan), GOOD)
FOUR = np.arange(4)
PARTS = {"train_images": GOOD, "train_labels": FOUR, "test_images": GOOD, "test_labels": FOUR}
ONE = {
    "no images": ({"pictures": GOOD}, "no array images; found pictures, expected images and optionally labels, train_images"),
    "no batch": (GOOD[0], r"images have shape \(3, 8, 8\), expected \(N, 3, 8, 8\), N >= 1"),
    "nothing": (np.float32(1), r"shape \(\), expected"), "empty": (GOOD[:0], "N >= 1"),
    "float64": (GOOD.astype(float), r"images are float64, expected float32 .*; save them by .astype\('float32'\)"),
    "integers": (GOOD.astype(np.int8), "images are int8, expected float32 .*; uint8 is taken too, and divided by 255"),
    "text": (GOOD.astype(str), "images are <U32"), "other shape": (GOOD[:, :1], r"shape \(4, 1, 8, 8\), expected \(N, 3, 8, 8\)"),
    "channels last": (GOOD.transpose(0, 2, 3, 1), r"looks like channels last, .*images.transpose\(0, 3, 1, 2\)"),
    "NaN": (BAD, "1 images hold NaN or infinite values, the first is number 2"),
    "labels too short": ((GOOD, np.zeros(3, int)), r"labels have shape \(3,\), expected \(4,\)"),
    "labels not whole": ((GOOD, np.zeros(4)), "labels are float64, expected integers.* instead of classes are measured, but not"),
    "labels below zero": ((GOOD, FOUR - 1), "labels go from -1 to 2, expected class numbers from 0"),
    "words": ((GOOD, np.array(["yes", "no", "no", "up"])), r"labels are <U3, .*numpy.unique\(labels, return_inverse=True\)"),
    "one-hot": ((GOOD, np.eye(4, dtype=int)), r"labels have shape \(4, 4\), .*labels.argmax\(axis=1\) where they are one-hot"),
    "a column": ((GOOD, FOUR[:, None]), r"give labels.ravel\(\)"), "images as labels": ((GOOD, GOOD), "not trained here"),
    "pickles": (np.array([None]), "not an .npz archive without pickles"),
}  # fmt: skip
SEVERAL: dict[str, tuple[dict[str, Any], str]] = {
    "no test part": ({"test_images": None, "test_labels": None}, "no test_images; keep some images apart, which nothing is"),
    "no training labels": ({"train_labels": None}, "train_labels are not there; expected train_images, train_labels, test"),
    "labels of no images": ({"validation_labels": FOUR}, "has validation_labels without validation_images"),
    "which part": ({"images": GOOD}, "images beside train_images, .*: which part are they"),
    "validation alone": ({"train_images": None, "train_labels": None, "validation_images": GOOD, "validation_labels": FOUR},
                         "validation_images without train_images"),
    "other shapes": ({"test_images": GOOD[:, :, :4]}, r"test_images have shape \(4, 3, 4, 8\), expected \(N, 3, 8, 8\)"),
    "other types": ({"test_images": GOOD.astype(np.uint8)}, "train_images are float32, those of other parts are not"),
    "one image": ({"train_images": GOOD[:1], "train_labels": FOUR[:1]}, "one training image cannot be trained on and validated"),
}  # fmt: skip


def file(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "own.npz", **{name: array for name, array in arrays.items() if array is not None})
    return str(folder / "own.npz")


@pytest.mark.parametrize("case", ONE)
def test_one_part_that_is_refused(case: str, tmp_path: Path) -> None:
    """Each wrong array is named with what was expected, and what to do."""
    given, message = ONE[case]
    if not isinstance(given, dict):
        given = dict(zip(("images", "labels"), given, strict=True)) if isinstance(given, tuple) else {"images": given}
    with pytest.raises(ValueError, match=message):
        datasets.load(file(tmp_path, **given), SHAPE)


@pytest.mark.parametrize("case", SEVERAL)
def test_parts_that_are_refused(case: str, tmp_path: Path) -> None:
    """So are parts, whether a network is known or not."""
    for shape in (SHAPE, None):
        with pytest.raises(ValueError, match=SEVERAL[case][1]):
            datasets.from_file(Path(file(tmp_path, **PARTS | SEVERAL[case][0])), shape)


def test_an_axis_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"an axis of length 1 is missing, or too many; give images.reshape\(-1, 1, 49, 10\)"):
        datasets.load(file(tmp_path, images=np.zeros((4, 49, 10), np.float32)), (1, 49, 10))
    with pytest.raises(ValueError, match=r"shape \(4, 49, 10\), expected \(N, C, H, W\)"):
        datasets.load(file(tmp_path, images=np.zeros((4, 49, 10), np.float32)))


def test_one_part_is_the_test_part(tmp_path: Path) -> None:
    """Labels of any integer type; a label beyond the network's outputs is refused, and so is training."""
    for name in ("images", "test_images"):
        labels = {name.replace("images", "labels"): np.array([0, 1, 2, 9], np.uint8)}
        data = datasets.load(file(tmp_path, **{name: GOOD + 5}, **labels), SHAPE)
        assert data.test.labels is not None and data.test.labels.dtype == np.int64 and data.shape == SHAPE
        assert len(data.train.images) == len(data.validation.images) == 0 and np.array_equal(data.test.images, GOOD + 5)
    datasets.check_labels(data.test, 10)
    with pytest.raises(ValueError, match="test labels reach 9, the network has 4 outputs"):
        datasets.check_labels(data.test, 4, "test")
    with pytest.raises(ValueError, match="no training images with labels; an array images alone is a test part: name the others"):
        datasets.check_part(data, "training")
    with pytest.raises(FileNotFoundError, match=r"no file .*other\.npz; expected an .npz archive with the arrays train_images"):
        datasets.load(str(tmp_path / "other.npz"))


def numbered(count: int, first: int = 0) -> tuple[datasets.Images, datasets.Labels]:
    """Returns images that hold their number, and their numbers."""
    labels = np.arange(first, first + count)
    return np.broadcast_to(labels.reshape(-1, 1, 1, 1), (count, *SHAPE)).astype(np.float32), labels


def numbers(part: datasets.Split) -> list[int]:
    """Returns the numbers of a part's images, which its labels must be."""
    assert part.labels is not None and np.array_equal(part.images[:, 0, 0, 0], part.labels)
    return [int(label) for label in part.labels]


def test_validation_is_drawn_from_the_training_part_alone() -> None:
    """A tenth, the same every time, in no order; the test part stays as it is; a validation part that is there is kept."""
    data, again = (datasets.of(train=numbered(60), test=numbered(20, 60)) for _ in range(2))
    train, validation = numbers(data.train), numbers(data.validation)
    assert (len(train), len(validation)) == (54, 6) and sorted(train + validation) == list(range(60)) and train != sorted(train)
    assert numbers(data.test) == list(range(60, 80)) and "6 of its training images" in data.source
    assert (data.name, data.sha256, numbers(data.train)) == (again.name, again.sha256, numbers(again.train))
    own = datasets.of(train=numbered(60), validation=numbered(5, 90), test=numbered(20, 60))
    assert sorted(numbers(own.validation)) == list(range(90, 95)) and len(own.train.images) == 60


def test_the_name_is_that_of_the_contents(tmp_path: Path) -> None:
    """A file and the arrays that it holds, however integers are stored, are one set; one value more or less makes another."""
    images, labels = numbered(6)
    parts: dict[str, Any] = {
        "train_images": images,
        "train_labels": labels.astype(np.int16),
        "test_images": images,
        "test_labels": labels,
    }
    data, same = datasets.load(file(tmp_path, **parts)), datasets.of(train=(images, labels), test=(images, labels), name="own")
    assert data.name == same.name and data.name.startswith("own-") and data.sha256.startswith(data.name[4:])
    for part in parts:
        changed = parts[part].copy()
        changed[1] = 5
        assert datasets.load(file(tmp_path, **parts | {part: changed})).sha256 != data.sha256


def test_pixels_are_a_share_of_255(tmp_path: Path) -> None:
    """0 to 1 for a network, and from end to end for one that was quantised elsewhere; float32 is left alone."""
    pixels = np.arange(4 * 192, dtype=np.uint8).reshape(4, *SHAPE)
    data = datasets.load(file(tmp_path, images=pixels), SHAPE)
    assert data.test.images.dtype == np.float32 and np.array_equal(data.test.images, pixels / np.float32(255))
    assert np.allclose(datasets.in_units(data, -128.0, 127.0).test.images, pixels - 128.0, atol=1e-4)
    own = datasets.load(file(tmp_path, images=GOOD + 7))
    assert np.array_equal(datasets.in_units(own, -128.0, 127.0).test.images, GOOD + 7)


class Endless(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """A data set with a length, whose items never end."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full(SHAPE, float(index)), index


class Stream(torch.utils.data.IterableDataset[tuple[torch.Tensor, int]]):
    """The same without a length."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return ((torch.full(SHAPE, float(index)), index) for index in range(6))


def test_what_a_part_may_be() -> None:
    """Arrays, tensors, data sets of torch and loaders, with batches of any size, hold the same."""
    images, labels = numbered(6)
    tensors = torch.from_numpy(images.copy()), torch.from_numpy(labels)
    expected = datasets.of((images, labels), name="a").sha256
    kinds: list[Any] = [TensorDataset(*tensors), Endless(), Stream(), list(zip(images, labels, strict=True))]
    for given in (tensors, *kinds, *(DataLoader(kind, batch_size=size) for kind in kinds[:3] for size in (4, None))):
        assert datasets.of(given, name="a").sha256 == expected


def test_what_a_part_may_not_be() -> None:
    images, labels = numbered(6)
    for given, message in (
        ([], "test: ValueError: it is empty; expected"), (5, "test: TypeError: 'int' object is not iterable"),
        ([images[0], images[1]], "test: .*expected .*such pairs"), ((images, labels, 1), "too many values"),
        ([(images[0], 1), (images[0, :1], 1)], "same shape"), (([[1], [1, 2]], None), "test: ValueError"),
        ((torch.zeros(2, *SHAPE, requires_grad=True), labels[:2]), "requires grad"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            datasets.of(given)
