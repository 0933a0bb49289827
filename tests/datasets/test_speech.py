"""Sounds and photographs of persons: features by their definition, loaders on tiny copies of each set, what is refused."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from tinyredux import datasets, train
from tinyredux.cli.verbs.base import LABELLED
from tinyredux.datasets import persons, speech

HERE = Path(os.environ.get("TINYREDUX_DATA", "none"))


def clips(count: int, seed: int = 0) -> speech.Audio:
    return np.random.default_rng(seed).integers(-3000, 3000, (count, speech.RATE_HZ)).astype(np.int16)


def test_mfcc_by_definition() -> None:
    """One frame by sums over samples, frequencies and bands; scaling a clip changes nothing, silence is finite."""
    audio = clips(2)
    found = speech.mfcc(audio)
    assert found.shape == (2, 1, 49, 10) and found.dtype == np.float32
    frame = audio[1, 7 * 320 : 7 * 320 + 480] / np.abs(audio[1]).max()
    window = [0.5 - 0.5 * np.cos(2 * np.pi * i / 480) for i in range(480)]
    turns = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(480)) / 512)
    magnitudes = np.abs(turns @ (frame * window))

    def mel(hertz: float) -> float:
        return 1127 * float(np.log(1 + hertz / 700))

    edges = [mel(20) + i * (mel(4000) - mel(20)) / 41 for i in range(42)]
    bands = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        place = [mel(k * 16000 / 512) for k in range(257)]
        heights = [max(0.0, min((p - low) / (centre - low), (high - p) / (high - centre))) for p in place]
        bands.append(float(np.dot(magnitudes, heights)))
    for k in range(10):
        wanted = np.sqrt(2 / 40) * sum(np.log(band + 1e-6) * np.cos(np.pi * k * (2 * n + 1) / 80) for n, band in enumerate(bands))
        assert found[1, 0, 7, k] == pytest.approx(wanted, abs=1e-3)
    assert np.allclose(speech.mfcc(audio[:1] * 2), found[:1], atol=1e-4)
    assert np.isfinite(speech.mfcc(np.zeros((1, 16000), np.int16))).all() and len(speech.mfcc(audio[:0])) == 0


@pytest.mark.skipif(not speech.small_folder(HERE), reason="no keyword set: set TINYREDUX_DATA")
def test_mfcc_are_those_of_mlperf_tiny() -> None:
    """The benchmark's own int8 features, cut off to whole steps, come out of the same clips; in some clips another part was
    the loudest, which moves the first coefficient alone."""
    with np.load(HERE / speech.SMALL_FILES[1]) as arrays:
        published, ours = arrays["mfcc_int8"][:200], speech.mfcc(arrays["audio"][:200])[:, 0]
    equal = np.trunc(ours / np.float32(0.5847029) + 83) == published
    assert equal[:, :, 1:].mean() > 0.997 and np.median(equal[:, :, 0].mean(axis=1)) == 1


def small_set(folder: Path) -> None:
    """Writes the two files of the keyword set, in small."""
    words = np.array(["down", "eight", "five", "go", "left", "one", "right", "up", "zero"])
    np.savez(folder / speech.SMALL_FILES[0], audio=clips(18), labels=np.arange(18) % 9, words=words, split=np.arange(18) // 9)
    np.savez(folder / speech.SMALL_FILES[1], audio=clips(12, 1), labels=np.arange(12), classes=np.array(speech.WORDS))


def test_keywords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of the twelve classes; four of nine words are unknown; test clips of classes without training are left out."""
    monkeypatch.setenv("TINYREDUX_DATA", str(tmp_path))
    with pytest.raises(datasets.MissingDataError, match=r"keyword set .* speech_commands_9words\.npz and speech_commands_12"):
        datasets.load("keywords")
    assert datasets.load(None, speech.SHAPE).name == "random"
    small_set(tmp_path)
    data = datasets.load(None, speech.SHAPE)
    assert data.name == "keywords" and data.source == str(tmp_path) and data.sound
    assert data.train.labels is not None and data.test.labels is not None
    assert [speech.WORDS[label] for label in data.train.labels] == [
        "down", "unknown", "unknown", "go", "left", "unknown", "right", "up", "unknown"
    ]  # fmt: skip
    assert len(data.validation.images) == 9 and {speech.WORDS[i] for i in data.test.labels} == {
        "down", "go", "left", "right", "up", "unknown"
    }  # fmt: skip
    assert np.array_equal(data.test.images[0], speech.features(clips(12, 1)[:1])[0])
    with pytest.raises(ValueError, match=r"keywords has images of \(1, 49, 10\), the network takes \(3, 32, 32\)"):
        datasets.load("keywords", (3, 32, 32))


def test_help_names_every_set() -> None:
    """The verbs list the sets without importing them."""
    assert LABELLED == ", ".join(datasets.SHAPES)


def write(path: Path, samples: speech.Audio, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())


def test_speech_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official folders in small: parts by the two lists, a tenth as many unknown and silent seconds, short clips padded."""
    monkeypatch.setenv("TINYREDUX_DATA", str(tmp_path))
    with pytest.raises(datasets.MissingDataError, match="unpacked official archive"):
        datasets.load("speech_commands")
    root, lists = tmp_path / speech.FOLDER, {"validation": list[str](), "testing": list[str]()}
    for word in (*speech.WORDS[:10], "bed", "cat"):
        for i in range(4):
            name = f"{word}/{i:08x}_nohash_0.wav"
            write(root / name, clips(1, i)[0][: 16000 - 1000 * i])
            lists[{2: "validation", 3: "testing"}.get(i, "testing")] += [name] if i > 1 else []
    for name, held in lists.items():
        (root / f"{name}_list.txt").write_text("\n".join(held) + "\n")
    with pytest.raises(datasets.MissingDataError, match="48 clips of words and 0 of noise"):
        datasets.load("speech_commands")
    write(root / speech.NOISE / "tap.wav", np.tile(clips(1, 9)[0], 3))
    data = datasets.load("speech_commands")
    counts = [np.bincount(part.labels).tolist() for part in (data.train, data.validation, data.test) if part.labels is not None]
    assert counts == [[2] * 12, [1] * 12, [1] * 12] and data.sound
    padded = speech.features(speech.second(clips(1, 2)[0][:14000])[None])
    assert np.array_equal(data.validation.images[0], padded[0])
    for path in [*root.glob("bed/*"), *root.glob("cat/*")]:
        write(path, clips(1)[0], 8000)
    with pytest.raises(ValueError, match=r"\(8000, 16, 1\), expected \(16000, 16, 1\)"):
        speech.speech_commands(tmp_path)


def test_sounds_are_moved_in_time() -> None:
    """Rows move up or down by at most five, edges repeat, coefficients stay; noise is added on request."""
    sounds = torch.arange(20.0)[None, None, :, None].expand(64, 1, 20, 3) + torch.tensor([0.0, 100.0, 200.0])
    moved = train.shifted(sounds, torch.Generator().manual_seed(0), noise=0.0)
    starts = moved[:, 0, 5, 0] - 5
    assert moved.shape == sounds.shape and set(starts.tolist()) <= set(range(-5, 6)) and len(set(starts.tolist())) > 5
    assert torch.equal(moved[0, 0, :, 1], (torch.arange(20.0) + starts[0]).clamp(0, 19) + 100)
    assert (train.shifted(sounds, torch.Generator().manual_seed(0)) - moved).std() == pytest.approx(0.3, rel=0.1)


def test_persons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small set: an eighth of the training images validates, the test images are the file's."""
    monkeypatch.setenv("TINYREDUX_DATA", str(tmp_path))
    with pytest.raises(datasets.MissingDataError, match=r"person32_cifar100\.npz"):
        datasets.load("person")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / persons.SMALL_FILE, images=pixels, labels=np.arange(40) % 2, split=np.arange(40) >= 32)
    data = datasets.load("person")
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [28, 4, 8] and not data.sound
    assert np.array_equal(data.test.images, datasets.normalize(pixels[32:]))
    used = np.concatenate([data.train.images, data.validation.images])
    assert len(np.unique(used.reshape(32, -1), axis=0)) == 32


def test_visual_wake_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders of photographs in the network's size; a file name decides the part; no more than stated are taken."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("TINYREDUX_DATA", str(tmp_path))
    with pytest.raises(datasets.MissingDataError, match=r"vww/person/ and vww/non_person/"):
        datasets.load("vww", (3, 80, 80))
    for name, colour in (("person", (250, 0, 0)), ("non_person", (0, 0, 250))):
        (tmp_path / "vww" / name).mkdir(parents=True)
        for i in range(30):
            image.new("RGB", (96, 64), colour).save(tmp_path / "vww" / name / f"{i}.jpg")
    data = datasets.load("vww", (3, 80, 80))
    parts = data.train, data.validation, data.test
    assert sum(len(part.images) for part in parts) == 60 and len(data.train.images) > 36 > 6 > 0 < len(data.test.images)
    for part in parts:
        assert part.labels is not None and part.images.shape[1:] == (3, 80, 80)
        assert np.array_equal(part.images[:, 0].mean((1, 2)) > part.images[:, 2].mean((1, 2)), part.labels == 1)
    few = persons.visual_wake_words(tmp_path, (8, 6), 20)
    assert sum(len(labels) for _, labels in few) == 20 and few[0][0].shape[1:] == (8, 6, 3)
