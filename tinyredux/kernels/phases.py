"""Dilation by phases: a convolution whose window has holes is a plain one on every dilation-th row and column of the map.

At stride 1 the d x d phases of the output each see one phase of the input, in neighbouring rows and columns. So every template
computes dilated layers too: a phase is taken out of the map with its padding, computed by the form of the undilated layer, and
put back. All phases have one size, hence one form, one copy of its weights and of its code; MACs and weights are those of the
undilated kernel.

Source: the space-to-batch transformation of Yu and Koltun's dilated convolutions (ICLR 2016), here one phase at a time.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from tinyredux.graph import Conv, DepthwiseConv, Graph, Op
from tinyredux.int8 import quant_of
from tinyredux.kernels.asm.forms import Form, Lies, Places
from tinyredux.kernels.cycles import called

Template = Callable[[Graph, Op, str], list[Form]]
# Of the C around a phase: a pixel that is taken or put back, a byte of it.
MOVES = {"cortex-m4": (30, 2.2), "cortex-m7": (20, 1.6), "cortex-m33": (30, 2.2)}


@dataclass(frozen=True)
class Phases:
    """The fields of struct tr_phases."""

    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int
    part_in_h: int
    part_in_w: int
    part_out_w: int
    zero_point: int


def by_phases(template: Template) -> Template:
    """Returns a template that computes dilated convolutions too, by its forms for their phases."""

    def forms(graph: Graph, op: Op, core: str) -> list[Form]:
        if getattr(op, "dilation", (1, 1)) == (1, 1):
            return template(graph, op, core)
        strided = isinstance(op, Conv | DepthwiseConv) and any(a > 1 < b for a, b in zip(op.dilation, op.stride, strict=True))
        if not isinstance(op, Conv | DepthwiseConv) or strided:
            return []
        small, sizes, rows = _phase(graph, op)
        return [_form(form, sizes, rows, core) for form in template(small, small.ops[0], core)]

    return forms


def _phase(graph: Graph, op: Conv | DepthwiseConv) -> tuple[Graph, Phases, int]:
    """Returns the graph of one phase, undilated and without padding, and what takes it out of the map; its rows."""
    (source, target), (down, right) = (graph.tensors[name] for name in (op.inputs[0], op.output)), op.dilation
    rows, columns = -(-target.shape[0] // down), -(-target.shape[1] // right)
    seen = (rows - 1) * op.stride[0] + op.kernel[0], (columns - 1) * op.stride[1] + op.kernel[1]
    maps = {
        source.name: replace(source, shape=(*seen, source.shape[2])),
        target.name: replace(target, shape=(rows, columns, target.shape[2])),
    }
    small = graph.with_ops([replace(op, dilation=(1, 1), padding=(0, 0, 0, 0))], tensors=graph.tensors | maps)
    padding, zero_point = (op.padding[0], op.padding[2]), quant_of(source).zero_point
    return small, Phases(*source.shape, *target.shape, down, right, *padding, *seen, columns, zero_point), rows


def _form(form: Form, p: Phases, rows: int, core: str) -> Form:
    """Returns the form of a dilated layer by the form of its phases."""
    count, taken, put = p.dilation_h * p.dilation_w, (p.part_in_h * p.part_in_w, p.in_c), (rows * p.part_out_w, p.out_c)
    of_pixel, of_byte = MOVES[core]
    moved = sum(pixels * (of_pixel + of_byte * channels) for pixels, channels in (taken, put))
    in_bytes, out_bytes = (-(-math.prod(map_size) // 4) * 4 for map_size in (taken, put))

    read = sum(values.nbytes for values in form.arrays.values())

    def call(places: Places) -> str:
        part, result = places.scratch, f"({places.scratch} + {in_bytes})"
        inner = replace(places, out=result, inputs=(part,), scratch=f"({places.scratch} + {in_bytes + out_bytes})")
        fields = ", ".join(f".{name} = {value}" for name, value in asdict(p).items())
        body = [
            f"static const struct tr_phases phases = {{{fields}}};",
            f"tr_phase_take_s8({part}, {places.inputs[0]}, &phases, phase);",
            form.call(inner).rstrip(),
            f"tr_phase_put_s8({places.out}, {result}, &phases, phase);",
        ]
        return f"for (int32_t phase = 0; phase < {count}; phase++) {{\n" + textwrap.indent("\n".join(body), "    ") + "\n}"

    return replace(
        form, name=f"{form.name}_phases", cycles=round(count * (called(core, form.cycles) + moved)),
        scratch_bytes=in_bytes + out_bytes + form.scratch_bytes, call=call, streamed_bytes=count * max(read, form.streamed_bytes),
        lies=Lies.AT_WORD,
    )  # fmt: skip
