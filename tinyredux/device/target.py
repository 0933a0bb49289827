"""What runs a compiled network: the host, the simulator or a board, behind one small protocol."""

from __future__ import annotations

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


class Target(Protocol):
    """Something that holds one compiled network and runs it on int8 images (height, width, channels)."""

    def run(self, image: Int8Array) -> Int8Array:
        """Returns the output (height, width, channels) for one image."""

    def measure(self, image: Int8Array, repeats: int = 1) -> RawMeasurement:
        """Runs one image `repeats` times and returns the median run; raises ValueError if two outputs differ."""

    def close(self) -> None:
        """Releases what the target holds. May be called twice."""
