"""Arrays in files that users give, .npz and .npy: no size is believed that the file does not have, and no pickle is opened."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tinyredux.files import check_is_file

Labels = npt.NDArray[np.int64]  # (N,)
Part = tuple[npt.NDArray[Any], Labels]  # pixels (N, H, W, 3) uint8 or features (N, C, H, W) float32
Parts = tuple[Part, Part, Part]  # train, validation, test

MOST_ARRAY_BYTES = 1 << 31  # of one array in a file of a user's: what a computer of 4 GiB can still hold
CHUNK_BYTES = 1 << 22


def read_arrays(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays `names` of an .npz archive, and those of `optional` that it has.

    No size is believed that the archive's entry does not have. Raises ValueError for a file that is none, damaged, encrypted,
    with pickles or without one of `names`.
    """
    check_is_file(path, "archive")
    try:
        with zipfile.ZipFile(path) as archive:
            held = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist() if entry.filename.endswith(".npy")}
            found = {}
            for name in (name for name in (*names, *optional) if name in held):
                with archive.open(held[name]) as stream:
                    found[name] = _read_array(stream, held[name].file_size, name)
                    if stream.read(1):  # at its end the checksum is compared
                        raise ValueError(f"{name} has bytes behind its end")
    except MemoryError:
        raise
    except Exception as wrong:  # whatever a damaged archive leads zipfile, zlib and NumPy to
        said = str(wrong).partition("\n")[0] or type(wrong).__name__
        raise ValueError(f"{path} is not an .npz archive without pickles ({said}); write it with numpy.savez") from wrong
    if missing := [name for name in names if name not in found]:
        expected = ", ".join(names) + (f" and optionally {', '.join(optional)}" if optional else "")
        raise ValueError(f"{path} has no array {missing[0]}; found {', '.join(held) or 'none'}, expected {expected}")
    return found


def read_array(path: Path) -> npt.NDArray[Any]:
    """Returns the array of an .npy file. Raises ValueError for anything else."""
    check_is_file(path, "input file")
    try:
        with path.open("rb") as stream:
            return _read_array(stream, path.stat().st_size, "its array")
    except (ValueError, EOFError) as wrong:
        raise ValueError(f"{path} is not a NumPy array file ({wrong}); write it with np.save") from None


def _read_array(stream: IO[bytes], size_bytes: int, name: str) -> npt.NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} has format {version[0]}.{version[1]}, expected 1.0 or 2.0")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, kind = read_header(stream)
    if kind.hasobject:
        raise ValueError(f"{name} holds Python objects, which only a pickle can")
    needed = math.prod(shape) * kind.itemsize
    if min(shape, default=1) < 0 or needed > min(size_bytes, MOST_ARRAY_BYTES):
        raise ValueError(f"{name} claims {needed:,} bytes, there are {size_bytes:,}, and {MOST_ARRAY_BYTES:,} at most are read")
    values = np.empty(needed, np.uint8)
    for start in range(0, needed, CHUNK_BYTES):
        part = stream.read(min(CHUNK_BYTES, needed - start))
        values[start : start + len(part)] = np.frombuffer(part, np.uint8)
        if len(part) < min(CHUNK_BYTES, needed - start):
            raise ValueError(f"{name} ends after {start + len(part):,} of {needed:,} bytes")
    return values.view(kind).reshape(shape, order="F" if by_columns else "C")
