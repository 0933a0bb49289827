"""What is alive when a network runs layer by layer: lifetimes, live bytes, scratch, first fit, and a checker of plans.

A plan is right when no two tensors that are alive together share a byte. `whole_operators.plan` searches, `verify_plan` checks,
and neither uses the other's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinyredux.graph import Attention, Conv, Graph, MatMul, Op, TrecConv
from tinyredux.memory.program import kept_buffers, storages
from tinyredux.trec import TrecSizes, trec_sizes

Lifetime = tuple[int, int]  # first and last step, both included


@dataclass(frozen=True)
class LiveStep:
    """What is alive while one operator runs."""

    op: str
    live_bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offset of each tensor in the arena, and (offset, size) of each operator's scratch beside them."""

    offsets: dict[str, int]
    scratch: dict[str, tuple[int, int]]
    arena_bytes: int
    scratch_bytes: int
    steps: tuple[LiveStep, ...]
    lower_bound_bytes: int

    @property
    def total_bytes(self) -> int:
        """Bytes of the arena and of the scratch that does not fit into its gaps."""
        return self.arena_bytes + self.scratch_bytes

    @property
    def optimal(self) -> bool:
        """True where the placement reaches the largest sum of live bytes, which no placement can beat."""
        return self.arena_bytes == self.lower_bound_bytes


def lifetimes(graph: Graph) -> dict[str, Lifetime]:
    """Returns for each tensor with a buffer of its own the steps from the first that writes it to the last that reads it."""
    spans: dict[str, Lifetime] = {name: (0, 0) for name in graph.inputs}
    places, end = storages(graph, frozenset()), len(graph.ops) - 1
    for step, op in enumerate(graph.ops):
        for name in (*op.inputs, op.output):
            root = places[name].root
            spans[root] = (spans.get(root, (step, step))[0], step)
    for name in graph.outputs:
        spans[name] = (spans[name][0], end)
    return spans | dict.fromkeys(kept_buffers(graph, places), (0, end))


def live_steps(graph: Graph) -> tuple[LiveStep, ...]:
    """Returns the bytes alive at each operator: the layer-by-layer memory model."""
    spans = lifetimes(graph)
    sizes = {name: graph.tensors[name].size_bytes for name in spans}
    for name, root in kept_buffers(graph, storages(graph, frozenset())).items():
        sizes[root] -= sizes[name] if name != root else 0  # a state lies at the start of its map
    return tuple(
        LiveStep(op.name, sum(sizes[name] for name, (first, last) in spans.items() if first <= step <= last))
        for step, op in enumerate(graph.ops)
    )


def layerwise_peak(graph: Graph) -> int:
    """Returns the largest sum of live bytes over the operators: a lower bound for every placement of this order."""
    return max(step.live_bytes for step in live_steps(graph))


def scratch_bytes(graph: Graph, op: Op) -> int:
    """Returns the scratch that an operator's kernel needs. The generated C asserts the same figure against tinyredux.h."""
    if isinstance(op, TrecConv):
        return clustering(graph, op).scratch_bytes
    if isinstance(op, Attention):
        rows, columns, _ = graph.tensors[op.inputs[1]].shape
        return 4 * rows * columns
    if isinstance(op, MatMul):
        return (2 * op.inner + 3) // 4 * 4
    if not isinstance(op, Conv) or is_pointwise(op):
        return 0
    column = op.kernel[0] * op.kernel[1] * (graph.tensors[op.inputs[0]].shape[2] // op.groups)
    return 2 * 2 * ((column + 3) // 4 * 4)


def clustering(graph: Graph, op: TrecConv) -> TrecSizes:
    """Returns the sizes with which an operator is compiled: slices as wide as fit beside what is alive, below the peak."""
    live = next(step.live_bytes for step in live_steps(graph) if step.op == op.name)
    return trec_sizes(graph, op, layerwise_peak(graph) - live)


def is_pointwise(op: Conv) -> bool:
    """True for a convolution that reads its input in place: 1x1, stride 1, no padding, one group."""
    return op.kernel == (1, 1) and op.stride == (1, 1) and op.padding == (0, 0, 0, 0) and op.groups == 1


def reference_scratch(graph: Graph) -> dict[str, int]:
    """Returns the bytes of scratch that the reference kernel of each operator needs."""
    return {op.name: scratch_bytes(graph, op) for op in graph.ops}


def arena_end(sizes: dict[str, int], offsets: dict[str, int]) -> int:
    """Returns the first byte behind the highest tensor."""
    return max(offset + sizes[name] for name, offset in offsets.items())


def first_fit(order: Sequence[str], sizes: dict[str, int], spans: dict[str, Lifetime], align: int) -> dict[str, int]:
    """Returns offsets: each tensor in turn at the lowest place free during its whole life."""
    offsets: dict[str, int] = {}
    for name in order:
        busy = [(offsets[other], sizes[other]) for other in offsets if overlap(spans[name], spans[other])]
        offsets[name] = lowest_gap(busy, sizes[name], align)
    return offsets


def overlap(a: Lifetime, b: Lifetime) -> bool:
    """True where two lifetimes share a step."""
    return a[0] <= b[1] and b[0] <= a[1]


def lowest_gap(busy: Iterable[tuple[int, int]], size: int, align: int) -> int:
    """Returns the lowest aligned offset at which `size` bytes touch none of the (offset, size) ranges."""
    offset = 0
    for start, length in sorted(busy):
        if offset + size <= start:
            break
        offset = max(offset, -(-(start + length) // align) * align)
    return offset


def verify_plan(graph: Graph, plan: MemoryPlan) -> None:
    """Checks every pair of bytes ranges at every step, slowly and independently. Raises ValueError naming both.

    At step s the operator's scratch, as its reference kernel needs it, its output, and every tensor written before s (or given)
    and read at s or later, or returned, must not touch.
    """
    required = reference_scratch(graph)
    for step, op in enumerate(graph.ops):
        written = {name for name in graph.inputs} | {earlier.output for earlier in graph.ops[: step + 1]}
        wanted = {name for later in graph.ops[step:] for name in later.inputs} | {op.output} | set(graph.outputs)
        for name in written & wanted - plan.offsets.keys():
            raise ValueError(f"{op.name}: {name} has no place in the plan")
        ranges = [(name, plan.offsets[name], graph.tensors[name].size_bytes) for name in sorted(written & wanted)]
        needed, (start, size) = required[op.name], plan.scratch.get(op.name, (0, 0))
        if size < needed or start % 4:
            raise ValueError(f"{op.name}: its kernel needs {needed} bytes of scratch at a multiple of 4, found {size} at {start}")
        if size:
            ranges.append((f"scratch of {op.name}", start, size))
        for i, (name, start, size) in enumerate(ranges):
            if start < 0 or start + size > plan.total_bytes:
                raise ValueError(f"{op.name}: {name} takes bytes {start} to {start + size} of an arena of {plan.total_bytes}")
            for other, other_start, other_size in ranges[:i]:
                if start < other_start + other_size and other_start < start + size:
                    raise ValueError(
                        f"{op.name}: {name} at bytes {start} to {start + size} overlaps {other} at {other_start} to "
                        f"{other_start + other_size}; both are alive there"
                    )
