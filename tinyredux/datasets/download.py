"""Fetches the official CIFAR-10 archive, resuming where it stopped, and turns it into the layout of data/README.md."""

from __future__ import annotations

import hashlib
import http.client
import io
import pickle
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Progress = Callable[[str], None]

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
PARTS = {f"data_batch_{i}": f"cifar10_train_{i}.npz" for i in range(1, 6)} | {"test_batch": "cifar10_test.npz"}
BLOCK_BYTES = 1 << 16
ATTEMPTS = 4
TIMEOUT_SECONDS = 30


class MissingDataError(FileNotFoundError):
    """The data is not on this machine; the message says how to get it."""


class DownloadError(MissingDataError):
    """The file could not be had; what arrived is kept, and the next call goes on from there."""


def fetch_cifar10(folder: Path, progress: Progress | None = None, url: str = URL, sha256: str = SHA256) -> Path:
    """Returns `folder`, with CIFAR-10 in it, downloaded and converted. Raises DownloadError or ValueError."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = folder / url.rsplit("/", 1)[-1]
    if not packed.is_file():
        fetch(url, packed, sha256, progress)
    convert_cifar10(packed, folder, progress)
    packed.unlink()
    return folder


def fetch(url: str, target: Path, sha256: str, progress: Progress | None = None) -> None:
    """Downloads `url` to `target`; a part that is already there is kept, and the rest asked for by a Range request.

    Raises DownloadError where the network gives out, ValueError where the file is not the expected one.
    """
    partial = target.with_name(target.name + ".partial")
    say = progress or (lambda line: None)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append(url, partial, say)
            break
        except (OSError, http.client.HTTPException) as failure:
            have = partial.stat().st_size if partial.is_file() else 0
            lasting = isinstance(failure, urllib.error.HTTPError) and 400 <= failure.code < 500
            if attempt == ATTEMPTS or lasting:
                raise DownloadError(f"{url}: {failure}; {have} bytes are kept in {partial}, run it again to go on") from failure
            say(f"{failure}; trying again from byte {have}")
    found = hashlib.sha256(partial.read_bytes()).hexdigest()
    if found != sha256:
        partial.unlink()
        raise ValueError(f"{url} has sha256 {found}, expected {sha256}; the file was removed, try again or another network")
    partial.replace(target)


def _append(url: str, partial: Path, say: Progress) -> None:
    """Adds what is missing to `partial`. Raises OSError when the server closes before the end."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as failure:
        if failure.code == 416 and have:  # nothing after the last byte: it is whole, and the checksum will tell
            return
        raise
    with answer:
        if have and answer.status != 206:  # the server cannot resume
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with partial.open("ab" if have else "wb") as file:
            shown = -1
            while block := answer.read(BLOCK_BYTES):
                file.write(block)
                have += len(block)
                percent = 100 * have // total if total else 0
                if percent // 5 > shown:
                    shown = percent // 5
                    say(
                        f"{partial.stem}: {have / 1e6:.1f} of {total / 1e6:.1f} MB, {percent} %"
                        if total
                        else f"{have / 1e6:.1f} MB"
                    )
    if total is not None and have < total:
        raise DownloadError(f"the connection closed after {have} of {total} bytes")


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays, lists and dictionaries, and refuses everything else that a pickle can hold."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns NumPy's array constructors alone."""
        if module.startswith("numpy") and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module.startswith("numpy") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # its module moved between NumPy's versions
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, expected arrays only")


def convert_cifar10(packed: Path, folder: Path, progress: Progress | None = None) -> None:
    """Writes cifar10_train_1.npz .. cifar10_train_5.npz and cifar10_test.npz from the official archive.

    Arrays: images (N, 32, 32, 3) uint8, labels (N,) int64, exact (N,) bool. Raises ValueError for another archive.
    """
    try:
        with tarfile.open(packed, "r:gz") as archive:
            for batch, name in PARTS.items():
                member = archive.extractfile(f"cifar-10-batches-py/{batch}")
                assert member is not None
                _write_part(folder / name, member.read())
                if progress:
                    progress(f"{batch} -> {name}")
    except (KeyError, tarfile.TarError, pickle.UnpicklingError, EOFError) as failure:
        raise ValueError(f"{packed} is not CIFAR-10's python version: {failure}; remove it and download again") from failure


def _write_part(path: Path, pickled: bytes) -> None:
    content = _PlainUnpickler(io.BytesIO(pickled), encoding="bytes").load()
    images = np.asarray(content[b"data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.array(content[b"labels"], np.int64)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, images=np.ascontiguousarray(images), labels=labels, exact=np.ones(len(labels), bool))
    partial.replace(path)
