"""Data: where it comes from, what is refused, the download against a local server, and how hard the synthetic set is."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tinyredux import datasets
from tinyredux.cli import app as cli
from tinyredux.datasets import download, generated, sets


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without CIFAR-10; returns its cache folder."""
    monkeypatch.delenv("TINYREDUX_DATA", raising=False)
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def batch(seed: int, count: int = 20) -> tuple[np.ndarray, list[int]]:
    """Returns random pixels and labels in the official batch's form."""
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (count, 3072), dtype=np.uint8), [int(label) for label in draws.integers(0, 10, count)]


def official_archive() -> bytes:
    """The official archive in small: a label and an image of 3072 bytes, again and again."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for i, name in enumerate(download.PARTS):
            images, labels = batch(i)
            content = b"".join(bytes([label, *image]) for image, label in zip(images, labels, strict=True))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file with ranges; the first `cuts` answers stop half way."""

    content = b""
    cuts = 0
    ranges = True
    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        """Answers from the asked byte on."""
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        first = int(re.findall(r"\d+", wanted)[0]) if wanted and self.ranges else 0
        if not self.path.endswith(".tar.gz") or first >= len(self.content):
            return self.send_error(416 if first else 404)
        rest = self.content[first:]
        self.send_response(206 if wanted and self.ranges else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if self.cuts else rest)
        type(self).cuts = 0

    def log_message(self, *parts: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """A local server with a small archive; gives its address."""
    Server.content, Server.cuts, Server.ranges, Server.asked = official_archive(), 0, True, []
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/cifar.tar.gz"
    running.shutdown()
    running.server_close()


def sha256() -> str:
    """Returns the checksum of what the server holds."""
    return hashlib.sha256(Server.content).hexdigest()


def test_download_converts_into_our_layout(no_data: Path, server: str) -> None:
    """Pixels and labels arrive in the order and layout of data/README.md, and the archive is gone."""
    assert download.fetch_cifar10(no_data, server, sha256()) == no_data
    assert sorted(path.name for path in no_data.iterdir()) == sorted(download.PARTS.values())
    data, labels = batch(5)
    pixels, found = sets.cifar10_pixels(no_data, "test")
    assert np.array_equal(pixels[3, 4, 5], data.reshape(20, 3, 32, 32)[3, :, 4, 5]) and list(found) == labels
    assert len(sets.cifar10_pixels(no_data, "train")[0]) == 100
    assert datasets.cifar10_folder() == no_data


@pytest.mark.parametrize(("attempts", "kept"), [(1, None), (4, None), (4, b""), (4, b"old")])
def test_download_goes_on(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, attempts: int, kept: bytes | None
) -> None:
    """What one attempt kept, the next does not fetch again, in the same run or the next. Status 416 means that nothing is
    missing; an answer from byte 0, of a server without ranges, replaces what was kept."""
    monkeypatch.setattr(download, "ATTEMPTS", attempts)
    Server.ranges, Server.cuts, partial = kept != b"old", int(kept is None), tmp_path / "a.partial"
    half = len(Server.content) // 2 // download.BLOCK_BYTES * download.BLOCK_BYTES
    if kept is not None:
        partial.write_bytes(kept or Server.content)
    if attempts == 1:
        with pytest.raises(datasets.MissingDataError, match="run it again to go on"):
            download.fetch(server, tmp_path / "a", sha256())
        assert partial.stat().st_size == half > 0
    download.fetch(server, tmp_path / "a", sha256())
    assert (tmp_path / "a").read_bytes() == Server.content
    assert kept is not None or attempts > 1 or Server.asked == [None, f"bytes={half}-"]


@pytest.mark.parametrize(("address", "place", "checksum", "words"), [
    ("", "a", "0000", r"sha256 .* expected 0000"), ("x", "a", "", "404"),
    ("http://127.0.0.1:9/cifar.tar.gz", "a", "", r"cannot be reached .*, check the network; 0 bytes are kept"),
    ("http://127.0.0.1:9/cifar.tar.gz", "none/a", "", "No such file or directory"),
])  # fmt: skip
def test_download_refuses(tmp_path: Path, server: str, address: str, place: str, checksum: str, words: str) -> None:
    """A wrong file is named and removed; not found is final, after one request; nobody listens at port 9; no place to write."""
    with pytest.raises((ValueError, datasets.MissingDataError), match=words):
        download.fetch(address if "://" in address else server + address, tmp_path / place, checksum)
    assert len(Server.asked) <= 1 and (words == "404" or "://" in address or list(tmp_path.iterdir()) == [])


def test_conversion_refuses_other_archives(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="not CIFAR-10's binary version"):
        download.convert_cifar10(tmp_path / "a", tmp_path)
    with tarfile.open(tmp_path / "b", "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        member.size = 3072
        archive.addfile(member, io.BytesIO(bytes(3072)))
    with pytest.raises(ValueError, match="cannot reshape array of size 3072"):
        download.convert_cifar10(tmp_path / "b", tmp_path)


def test_order_of_the_places(
    no_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TINYREDUX_DATA before the cache before the synthetic set; a missing part is named. `tinyredux data` says which is here."""
    monkeypatch.setattr(sets, "VALIDATION_IMAGES", 40)
    assert cli.main(["data", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["data"], answer["images"]) == ("synthetic", {"train": 6000, "validation": 1000, "test": 1000})
    assert cli.main(["data", "cifar10"]) == 3 and "--download" in capsys.readouterr().err
    assert cli.main(["data", "mnist"]) == 2 and "unknown data 'mnist'; expected one of cifar10, syn" in capsys.readouterr().err
    with pytest.raises(datasets.MissingDataError, match=r"TINYREDUX_DATA.*--download.*synthetic"):
        datasets.load("cifar10")
    for folder, seed in ((no_data, 0), (tmp_path / "own", 1)):
        folder.mkdir(exist_ok=True)
        for name in download.PARTS.values():
            data, labels = batch(seed)
            np.savez(folder / name, images=data.reshape(-1, 32, 32, 3), labels=labels)
    assert datasets.load().source == str(no_data)
    monkeypatch.setenv("TINYREDUX_DATA", str(tmp_path / "own"))
    own = datasets.load("cifar10")
    assert own.source == str(tmp_path / "own") and own.name == "cifar10"
    assert (len(own.train.images), len(own.validation.images), len(own.test.images)) == (60, 40, 20)
    (tmp_path / "own" / "cifar10_train_2.npz").unlink()
    with pytest.raises(datasets.MissingDataError, match=r"lacks cifar10_train_2\.npz"):
        datasets.load("cifar10")


def test_synthetic_pixels_are_those_of_the_data_card() -> None:
    """Every machine makes the same pixels, classes in equal numbers."""
    card = (Path(__file__).parents[2] / "data" / "README.md").read_text()
    for seed, count in enumerate(sets.SYNTHETIC_IMAGES):
        pixels, labels = generated.pixels_and_labels(count, seed)
        assert hashlib.sha256(pixels.tobytes()).hexdigest() in card
        assert set(np.bincount(labels)) == {count // 10}


def test_random_images_are_normal_seeded_and_fewer_when_large() -> None:
    """Mean 0, deviation 1, the same every time."""
    data = datasets.load("random", (3, 16, 16))
    assert data.test.labels is None and data.test.images.shape == (1000, 3, 16, 16) and data.test.images.dtype == np.float32
    assert abs(data.test.images.mean()) < 0.01 and abs(data.test.images.std() - 1) < 0.01
    assert np.array_equal(data.test.images, datasets.load("random", (3, 16, 16)).test.images)
    assert len(datasets.random_images((3, 512, 512)).test.images) == 16


def test_calibration(tmp_path: Path) -> None:
    """From a file, else the training part, else noise like the images."""
    fives = np.full((4, 3, 8, 8), 5, np.float32)
    np.savez(tmp_path / "own.npz", images=fives)
    own = datasets.load(str(tmp_path / "own.npz"), (3, 8, 8))
    drawn = datasets.calibration(own)
    assert drawn.shape == (512, 3, 8, 8) and np.all(drawn == 5)  # mean and deviation of the file's images
    assert np.array_equal(datasets.calibration(own, tmp_path / "own.npz"), fives)
    parts = {"train_images": fives + 1, "train_labels": np.zeros(4, int), "test_images": fives, "test_labels": np.zeros(4, int)}
    np.savez(tmp_path / "parts.npz", **parts)
    assert np.all(datasets.calibration(own, tmp_path / "parts.npz") == 6)  # never its test images
    data = datasets.load("synthetic")
    assert np.array_equal(datasets.calibration(data, count=64), data.train.images[:64])
