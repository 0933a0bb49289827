"""What runs a compiled network: the host, the simulator or a board, behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Int8Array = npt.NDArray[np.int8]


@dataclass(frozen=True)
class RawMeasurement:
    """One inference on a target. Figures that the target cannot know are None.

    `cycles_kind` is "modelled", "modelled-estimate" or "board"; `stack_bytes` is the high-water mark, `arena_bytes`
    one past the last byte of arena and scratch that was written.
    """

    output: npt.NDArray[Any]
    cycles_per_op: tuple[int, ...] | None = None
    instructions: int | None = None
    stack_bytes: int | None = None
    cycles_kind: str | None = None
    timing_model: str | None = None
    arena_bytes: int | None = None

    @property
    def cycles(self) -> int | None:
        """Cycles of the whole inference."""
        return None if self.cycles_per_op is None else sum(self.cycles_per_op)


def repeated(
    run: Callable[[], RawMeasurement], repeats: int, doubt: str, refusal: type[Exception] = ValueError, warm_up: int = 0
) -> RawMeasurement:
    """Returns the median of `repeats` runs after `warm_up` more. Raises `refusal` with the `doubt` when two outputs differ."""
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected 1 or more")
    runs = [run() for _ in range(warm_up + repeats)]
    different = sum(not np.array_equal(one.output, runs[0].output) for one in runs)
    if different:
        raise refusal(f"{different} of {repeats} runs on the same input gave another output than the first; {doubt}")
    return sorted(runs[warm_up:], key=lambda one: one.cycles or 0)[(repeats - 1) // 2]


class Target(Protocol):
    """Something that holds one compiled network and runs it on int8 images (height, width, channels)."""

    def run(self, image: Int8Array) -> Int8Array:
        """Returns the output (height, width, channels) for one image."""

    def measure(self, image: Int8Array, repeats: int = 1) -> RawMeasurement:
        """Runs one image `repeats` times and returns the median run; raises ValueError if two outputs differ."""

    def close(self) -> None:
        """Releases what the target holds. May be called twice."""
