"""Spoken words as a network takes them: 49 frames of 10 MFCC, from the small set in two files or from all of Speech Commands.

Labels are numbers in WORDS, for both sets. Speakers of training, validation and test are disjoint: the official parts.
"""

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyredux.datasets.arrays import Part, Parts, read_arrays
from tinyredux.datasets.download import MissingDataError

Audio = npt.NDArray[np.int16]  # (N, 16000), one second each
Features = npt.NDArray[np.float32]  # (N, 1, 49, 10)

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes", "silence", "unknown")
SILENCE, UNKNOWN = WORDS.index("silence"), WORDS.index("unknown")
SHAPE = (1, 49, 10)
SMALL_FILES = ("speech_commands_9words.npz", "speech_commands_12class_test.npz")
FOLDER = "speech_commands"
NOISE = "_background_noise_"

RATE_HZ = 16000
FRAME, STEP, SPECTRUM = 480, 320, 512  # samples: 30 ms windows every 20 ms, and the length of their Fourier transform
BANDS, LOW_HZ, HIGH_HZ, COEFFICIENTS = 40, 20.0, 4000.0, 10
CLIPS = 1000  # at a time

# Mean and deviation of each coefficient over the 1,530 training clips of the small set, rounded.
MEAN = np.array([-14.8, 1.6, 0.1, -0.3, -0.4, -0.2, -0.2, -0.2, -0.4, -0.3], np.float32)
DEVIATION = np.array([23.2, 3.5, 2.6, 1.9, 1.8, 1.3, 1.2, 1.1, 1.0, 0.9], np.float32)

GET_SMALL = f"set TINYREDUX_DATA to a folder with {' and '.join(SMALL_FILES)}, or use `--data random`, which needs nothing"
GET_FULL = (
    f"set TINYREDUX_DATA to a folder in which {FOLDER}/ is the unpacked official archive: a folder for each word with wav files, "
    f"{NOISE}/, validation_list.txt and testing_list.txt"
)


def mfcc(audio: Audio) -> Features:
    """Returns MFCC (N, 1, 49, 10), not normalised, of clips (N, 16000): those of the MLPerf Tiny benchmark.

    Each clip is scaled to a peak of 1; Hann windows, magnitude spectrum, 40 triangular bands equally wide on the mel scale,
    logarithm, orthonormal cosine transform. Source: Davis and Mermelstein, IEEE TASSP 28(4), 1980; settings of MLPerf Tiny.
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    place = np.arange(COEFFICIENTS)[:, None] * (2 * np.arange(BANDS) + 1)
    cosines = np.sqrt(2 / BANDS) * np.cos(np.pi * place / (2 * BANDS))
    parts = [np.empty((0, 49, COEFFICIENTS))]
    for i in range(0, len(audio), CLIPS):
        some = audio[i : i + CLIPS].astype(np.float64)
        some /= np.maximum(np.abs(some).max(axis=1, keepdims=True), 1)
        frames = np.lib.stride_tricks.sliding_window_view(some, FRAME, axis=1)[:, ::STEP]
        bands = np.abs(np.fft.rfft(frames * hann, SPECTRUM)) @ _bands().T
        parts.append(np.log(bands + 1e-6) @ cosines.T)
    return np.concatenate(parts)[:, None].astype(np.float32)


def _bands() -> npt.NDArray[np.float64]:
    """Returns (40, 257): how much each frequency counts in each band, a triangle on the mel scale."""
    mel = 1127 * np.log1p(np.arange(SPECTRUM // 2 + 1) * RATE_HZ / SPECTRUM / 700)
    edges = np.linspace(1127 * np.log1p(LOW_HZ / 700), 1127 * np.log1p(HIGH_HZ / 700), BANDS + 2)[:, None]
    rise, fall = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(0, np.minimum(rise, fall)))


def features(audio: Audio) -> Features:
    """Returns what networks take for clips (N, 16000): MFCC of about zero mean and unit deviation."""
    return (mfcc(audio) - MEAN) / DEVIATION


def small_folder(folder: Path | None) -> bool:
    """Returns whether the small set is in `folder`."""
    return folder is not None and all((folder / name).is_file() for name in SMALL_FILES)


def keywords(folder: Path | None) -> Parts:
    """Returns the small set: 1,530 clips of nine words to train on, 360 to validate, and the test clips of the same classes.

    Five of the nine words are among WORDS; the other four count as unknown. The official test clips of no, off, on, stop, yes and
    silence are left out, for none of them is in the training part; of the unknown words most were never heard in training.
    Raises MissingDataError without the two files.
    """
    if folder is None or not small_folder(folder):
        raise MissingDataError(f"the keyword set is not on this machine: {GET_SMALL}")
    nine = read_arrays(folder / SMALL_FILES[0], ["words", "audio", "labels", "split"])
    place = np.array([WORDS.index(word) if word in WORDS else UNKNOWN for word in nine["words"].tolist()], np.int64)
    found, labels, held = features(nine["audio"]), place[nine["labels"]], nine["split"] == 1
    twelve = read_arrays(folder / SMALL_FILES[1], ["audio", "labels"])
    known = np.isin(twelve["labels"], place)
    test = features(twelve["audio"][known]), twelve["labels"][known].astype(np.int64)
    return (found[~held], labels[~held]), (found[held], labels[held]), test


def speech_commands(folder: Path | None) -> Parts:
    """Returns all of Speech Commands in twelve classes, from the unpacked official archive in `folder`/speech_commands.

    The parts are those of its two lists. In each part there are as many clips of unknown words, drawn by a seed, and as many
    seconds of background noise as of one of the ten words on average. Reading takes minutes. Raises MissingDataError.
    """
    root = folder / FOLDER if folder else None
    if root is None or not (root / "testing_list.txt").is_file() or not (root / "validation_list.txt").is_file():
        raise MissingDataError(f"Speech Commands is not on this machine: {GET_FULL}")
    clips = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.wav") if path.parent.name != NOISE)
    held = {name: set((root / f"{name}_list.txt").read_text().split()) for name in ("validation", "testing")}
    noises = [_read(path) for path in sorted((root / NOISE).glob("*.wav"))]
    if not clips or not noises:
        raise MissingDataError(f"{root} holds {len(clips)} clips of words and {len(noises)} of noise: {GET_FULL}")
    train = [clip for clip in clips if clip not in held["validation"] and clip not in held["testing"]]
    validation, test = ([clip for clip in clips if clip in held[name]] for name in ("validation", "testing"))
    return _part(root, train, noises, seed=0), _part(root, validation, noises, seed=1), _part(root, test, noises, seed=2)


def _part(root: Path, clips: list[str], noises: list[Audio], seed: int) -> Part:
    chance = np.random.default_rng(seed)
    words = [clip for clip in clips if clip.split("/")[0] in WORDS]
    others = [clip for clip in clips if clip.split("/")[0] not in WORDS]
    share = max(1, len(words) // 10)
    chosen = words + [others[i] for i in sorted(chance.permutation(len(others))[:share].tolist())]
    labels = [WORDS.index(word) if word in WORDS else UNKNOWN for word in (clip.split("/")[0] for clip in chosen)]
    parts = [
        features(np.stack([second(_read(root / clip)) for clip in chosen[i : i + CLIPS]])) for i in range(0, len(chosen), CLIPS)
    ]
    quiet = []
    for _ in range(share):
        noise = noises[chance.integers(len(noises))]
        start = int(chance.integers(max(1, len(noise) - RATE_HZ)))
        quiet.append(second(noise[start : start + RATE_HZ]))
    return np.concatenate([*parts, features(np.stack(quiet))]), np.array(labels + [SILENCE] * share, np.int64)


def second(samples: Audio) -> Audio:
    """Returns one second of a clip: cut, or with zeros at its end."""
    return np.pad(samples[:RATE_HZ], (0, max(0, RATE_HZ - len(samples))))


def _read(path: Path) -> Audio:
    """Returns the samples of a wav file. Raises ValueError for anything but 16 kHz, 16 bits, mono."""
    with wave.open(str(path)) as clip:
        kind = clip.getframerate(), 8 * clip.getsampwidth(), clip.getnchannels()
        if kind != (RATE_HZ, 16, 1):
            raise ValueError(f"{path} has (rate, bits, channels) {kind}, expected ({RATE_HZ}, 16, 1): convert it")
        return np.frombuffer(clip.readframes(clip.getnframes()), "<i2").astype(np.int16)
