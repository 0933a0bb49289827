"""Fetches the official CIFAR-10 archive with pooch and turns it into the layout of data/README.md.

pooch speaks to the server, shows progress on a terminal and computes the checksum. It begins every attempt at the first byte,
and 170 MB take minutes in a lecture hall: so asking for the rest of what is there (a Range request) is written here.
"""

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux.files import write_whole

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
PARTS = {f"data_batch_{i}": f"cifar10_train_{i}.npz" for i in range(1, 6)} | {"test_batch": "cifar10_test.npz"}
RECORD_BYTES = 1 + 3 * 32 * 32  # a label and an image, colour by colour
BLOCK_BYTES = 1 << 16  # a connection that breaks loses what came after the last whole block
TIMEOUT_SECONDS = 30
ATTEMPTS = 4


class MissingDataError(FileNotFoundError):
    """The data is not on this machine; the message says how to get it."""


def fetch_cifar10(folder: Path, url: str = URL, sha256: str = SHA256) -> Path:
    """Returns `folder`, with CIFAR-10 in it, downloaded and converted. Raises MissingDataError or ValueError."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = folder / url.rsplit("/", 1)[-1]
    if not packed.is_file():
        fetch(url, packed, sha256)
    convert_cifar10(packed, folder)
    packed.unlink()
    return folder


def fetch(url: str, target: Path, sha256: str) -> None:
    """Downloads `url` to `target`; a part that is already there is kept, and only the rest is asked for.

    Raises MissingDataError where the network gives out, ValueError where the file is not the expected one.
    """
    from pooch import file_hash  # type: ignore[import-untyped]

    partial = target.with_name(target.name + ".partial")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append(url, partial)
            break
        except OSError as failure:
            status = getattr(getattr(failure, "response", None), "status_code", 0)
            have = partial.stat().st_size if partial.is_file() else 0
            if status == 416 and have:  # nothing after the last byte: it is whole, and the checksum will tell
                break
            if attempt == ATTEMPTS or failure.errno or 400 <= status < 500:  # a full disk, a wrong address: asking does not help
                network = f"the server cannot be reached or broke off ({type(failure).__name__}), check the network"
                said = failure if failure.errno or status else network
                raise MissingDataError(f"{url}: {said}; {have} bytes are kept in {partial}, run it again to go on") from failure
    found = file_hash(str(partial))
    if found != sha256:
        partial.unlink()
        raise ValueError(f"{url} has sha256 {found}, expected {sha256}; the file was removed, try again or another network")
    partial.replace(target)


def _append(url: str, partial: Path) -> None:
    """Adds what is missing to `partial`. Raises an OSError of requests when the server closes before the end."""
    from pooch import HTTPDownloader

    with partial.open("ab") as file:

        def start_over(answer: Any, **_: Any) -> None:
            if answer.status_code == 200:  # the server cannot resume and sends everything; 206 is the rest alone
                file.truncate(0)

        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={file.tell()}-"} if file.tell() else {})
        HTTPDownloader(
            progressbar=sys.stderr.isatty(), chunk_size=BLOCK_BYTES, timeout=TIMEOUT_SECONDS, headers=headers,
            hooks={"response": start_over},
        )(url, file, None)  # fmt: skip


def convert_cifar10(packed: Path, folder: Path) -> None:
    """Writes cifar10_train_1.npz .. cifar10_train_5.npz and cifar10_test.npz from the official archive.

    Arrays: images (N, 32, 32, 3) uint8, labels (N,) int64, exact (N,) bool. Raises ValueError for another archive.
    """
    try:
        with tarfile.open(packed, "r:gz") as archive:
            for batch, name in PARTS.items():
                member = archive.extractfile(f"cifar-10-batches-bin/{batch}.bin")
                assert member is not None
                _write_part(folder / name, member.read())
    except (KeyError, tarfile.TarError, ValueError, EOFError) as failure:
        raise ValueError(f"{packed} is not CIFAR-10's binary version: {failure}; remove it and download again") from failure


def _write_part(path: Path, content: bytes) -> None:
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    images, labels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0].astype(np.int64)
    packed = io.BytesIO()
    np.savez(packed, images=np.ascontiguousarray(images), labels=labels, exact=np.ones(len(labels), bool))
    write_whole(path, packed.getvalue())
