"""What runs a compiled network: the host, the simulator or a board, each a `Target`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinyredux.boards import Board
from tinyredux.device.link import Link, LinkError
from tinyredux.graph import Shape, apart

Int8Array = npt.NDArray[np.int8]


@dataclass(frozen=True)
class RawMeasurement:
    """One inference on a target: its output, several as one array (1, 1, values). Figures that it cannot know are None.

    `cycles_kind` is "modelled", "modelled-estimate" or "board"; `stack_bytes` is the high-water mark, `arena_bytes`
    one past the last byte of arena and scratch that was written; `stalls`: the cycles in which the core waited for its flash, for
    code and for data.
    """

    output: npt.NDArray[Any]
    cycles_per_op: tuple[int, ...] | None = None
    instructions: int | None = None
    stack_bytes: int | None = None
    cycles_kind: str | None = None
    timing_model: str | None = None
    arena_bytes: int | None = None
    stalls: dict[str, int] | None = None

    @property
    def cycles(self) -> int | None:
        """Cycles of the whole inference."""
        return None if self.cycles_per_op is None else sum(self.cycles_per_op)


class Target:
    """Something that holds one compiled network and runs it on int8 images (height, width, channels).

    `shapes` are those of the outputs where there are several: a model says them that opens it, a board their bytes alone.
    """

    shapes: tuple[Shape, ...] = ()

    def measure(self, image: Int8Array) -> RawMeasurement:
        """Returns one run. Raises ValueError for an image of another shape or type."""
        raise NotImplementedError

    def push(self, frame: Int8Array, sequence: int) -> RawMeasurement:
        """Returns one run of a stream on frame number `sequence`, counted from 0, which begins a new one; the output counts from
        the push on that fills the window. Raises ValueError for a frame that is lost or comes twice, or where the model is no
        stream."""
        raise NotImplementedError

    def run(self, image: Int8Array) -> Any:
        """Returns the output (height, width, channels) int8 for one image; a tuple of several."""
        return self.apart(self.measure(image).output)

    def apart(self, output: Int8Array) -> Any:
        """Returns an output that `measure` gives as it is; where there are several, a tuple of them."""
        return apart(output, self.shapes) if len(self.shapes) > 1 else output

    def close(self) -> None:
        """Releases what the target holds. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LinkTarget(Target):
    """A board that answers by the serial protocol, over any transport. `info` is what it said about itself at first."""

    cycles_kind: str = "board"
    timing_model: str | None = None

    def __init__(self, link: Link, output_shape: tuple[int, ...] | None, board: Board | None) -> None:
        """Asks who is there. `board`: which it must be, at full speed. Raises LinkError, WrongModelError."""
        self.link, self.output_shape = link, output_shape or (1, 1, -1)
        try:
            self.info = link.info()
            self.shapes = tuple((1, 1, size) for _, size in self.info.outputs)
            if board is not None:
                self._check_board(board, link.transport.name)
            self.link.model_hash = self.info.model_hash  # from here on a change of model is refused, whoever flashes
        except BaseException:
            self.close()
            raise

    def measure(self, image: Int8Array) -> RawMeasurement:
        """Returns one run, its output as checked bytes. Raises ValueError, LinkError."""
        return self._run(image)

    def push(self, frame: Int8Array, sequence: int) -> RawMeasurement:
        """Returns one run of a stream. Raises ValueError; LinkError where the board refuses the frame's number."""
        return self._run(frame, sequence)

    def _run(self, image: Int8Array, sequence: int | None = None) -> RawMeasurement:
        if image.dtype != np.int8 or image.size != self.info.input_bytes:
            raise ValueError(
                f"the input is {image.dtype} with {image.size} values, expected int8 with {self.info.input_bytes}: "
                f"the quantised input of {self.info.name}, (height, width, channels)"
            )
        run = self.link.run(image.tobytes(), sequence)
        output = np.frombuffer(run.output, dtype=np.int8).reshape(self.output_shape)
        kind, model = (self.cycles_kind, self.timing_model) if run.cycles_per_op else (None, None)
        return RawMeasurement(output, run.cycles_per_op, stack_bytes=run.stack_bytes, cycles_kind=kind, timing_model=model)

    def close(self) -> None:
        """Releases the line."""
        self.link.close()

    def _check_board(self, board: Board, port: str) -> None:
        if self.info.board != board.name:
            raise LinkError(
                f"the board on {port} is {self.info.board}, expected {board.name}; name it by --board, or take its port"
            )
        if self.info.clock_hz != board.clock_hz:
            raise LinkError(
                f"the board on {port} runs at {self.info.clock_hz} Hz, expected {board.clock_hz}: its external oscillator "
                "did not start, and its times would mislead; check the solder bridges of the clock, then reset"
            )
