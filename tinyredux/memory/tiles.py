"""Parts of tensors: the vocabulary of partial execution.

A `Box` is a range of rows, columns and channels of a tensor; a `View` says where its values lie; a `Step` is one kernel
call that computes a box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


class Box(NamedTuple):
    """Rows y0..y1-1, columns x0..x1-1, channels c0..c1-1 of a tensor."""

    y0: int
    y1: int
    x0: int
    x1: int
    c0: int
    c1: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.y1 - self.y0, self.x1 - self.x0, self.c1 - self.c0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return (self.y1 - self.y0) * (self.x1 - self.x0) * (self.c1 - self.c0)

    def channels(self, c0: int, c1: int) -> Box:
        """Returns this box with other channels."""
        return Box(self.y0, self.y1, self.x0, self.x1, c0, c1)


class View(NamedTuple):
    """Where a box of a tensor lies: `offset` bytes into a buffer, with strides in elements."""

    tensor: str
    box: Box
    buffer: str
    offset: int
    row_stride: int
    pixel_stride: int
    element_bytes: int = 1

    @property
    def gaps(self) -> tuple[int, int]:
        """(row, pixel) distances in elements, 0 where nothing lies between two rows or two pixels."""
        _, width, channels = self.box.shape
        pixel = 0 if self.pixel_stride == channels else self.pixel_stride
        row = 0 if self.row_stride == width * self.pixel_stride or self.box.shape[0] == 1 else self.row_stride
        return row, pixel

    @property
    def span_bytes(self) -> int:
        """Bytes from the first element to the end of the last."""
        height, width, channels = self.box.shape
        return ((height - 1) * self.row_stride + (width - 1) * self.pixel_stride + channels) * self.element_bytes

    def part(self, box: Box) -> View:
        """Returns the view of a box inside this one."""
        own = self.box
        if box == own:
            return self
        moved = (box.y0 - own.y0) * self.row_stride + (box.x0 - own.x0) * self.pixel_stride + box.c0 - own.c0
        at = self.offset + moved * self.element_bytes
        return View(self.tensor, box, self.buffer, at, self.row_stride, self.pixel_stride, self.element_bytes)

    def rows(self) -> list[View]:
        """Returns the views of this one's rows."""
        return [self.part(self.box._replace(y0=y, y1=y + 1)) for y in range(self.box.y0, self.box.y1)]


@dataclass(frozen=True)
class Step:
    """One kernel call.

    kind "run" computes the output box; "start" sets sums to the bias, "add_up" adds the products of an input slice to them,
    "finish" requantises them; "copy" moves values.
    """

    op: str
    kind: str
    inputs: tuple[View, ...]
    output: View
    scratch: str = ""


def in_lines(step: Step) -> list[Step]:
    """Returns an elementwise step as steps that walk their maps in one loop: itself, or one for each row where a map has gaps
    between pixels and rows."""
    views = (*step.inputs, step.output)
    if all(view.gaps[0] == 0 for view in views) or all(view.gaps[1] == 0 for view in views):
        return [step]
    return row_by_row(step)


def row_by_row(step: Step) -> list[Step]:
    """Returns a step whose output pixels depend each on the same pixel of its inputs as one step for each row."""
    rows = zip(*(view.rows() for view in (*step.inputs, step.output)), strict=True)
    return [replace(step, inputs=tuple(inputs), output=output) for *inputs, output in rows]


def whole(shape: tuple[int, int, int]) -> Box:
    """Returns the box of a whole tensor."""
    return Box(0, shape[0], 0, shape[1], 0, shape[2])


def hull(a: Box, b: Box) -> Box:
    """Returns the smallest box that holds both."""
    return Box(*(max(pair) if i % 2 else min(pair) for i, pair in enumerate(zip(a, b, strict=True))))


def dense_view(tensor: str, box: Box, buffer: str, element_bytes: int = 1) -> View:
    """Returns a view of a box stored on its own, without gaps."""
    _, width, channels = box.shape
    return View(tensor, box, buffer, 0, width * channels, channels, element_bytes)
