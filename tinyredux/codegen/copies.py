"""Hot code and weights in RAM that is idle: what start-up copies there from flash, and the bytes that it takes.

Flash makes the core wait: for each line of code that its cache has lost, for each line of weights that is read in passing. RAM
does not, and a network leaves some of it idle. Where the board file says so (`Memory.copies`), generated kernels go to RAM from
which the core fetches instructions without a wait, those first that run longest for their bytes; and weights go behind the arena,
those first of which each byte is read most often. A limit of SRAM includes them; without one they take what is idle, but for the
stack and a margin. The copying takes place once, at start-up, and is no part of an inference. Source: ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from tinyredux.boards import STACK_RESERVE_BYTES, Board
from tinyredux.codegen import code_sizes
from tinyredux.codegen.artifact import Copies
from tinyredux.codegen.calls import Weights
from tinyredux.graph import Bilinear, Lookup, TrecConv, Weighted, macs
from tinyredux.kernels import FastSteps, code_bytes

STALL_FREE_LINES = 4096  # of a cache that no code leaves
MARGIN_BYTES = 8 * 1024  # of idle RAM that stays so where nobody set a limit: for a stack deeper than its reserve
Numbers = Mapping[str, float]


def with_copies(make: Callable[[Board], FastSteps], board: Board, sram_bytes: int | None = None) -> tuple[FastSteps, Copies]:
    """Returns the program that `make` chooses for a board, and its copies.

    Prices know a board's flash. So what is copied is chosen for a board without its stalls: first as if all were copied, code and
    weights; where that does not come true, as if all code were; then as it is.
    """
    for view in _views(board):
        fast = make(view)
        copies = copies_for(fast, board, sram_bytes)
        every = Weights(fast).blob.entries if view.flash_timing.miss_cycles == 0 else ()
        if view is board or (len(copies.functions) == len(_code(fast)) and len(copies.arrays) >= len(every)):
            break
    return priced(fast, copies), copies


def priced(fast: FastSteps, copies: Copies) -> FastSteps:
    """Returns the program with the prices of forms that read nothing from flash but code."""
    hot = {step for step, names in fast.names[1].items() if {*names.values()} <= {*copies.arrays}}
    forms = {step: replace(form, byte_cycles=0.0) if step in hot else form for step, form in fast.forms.items()}
    return replace(fast, forms=forms)


def _views(board: Board) -> Iterator[Board]:
    """Yields a board without stalls of what it copies, at first of all, at last itself."""
    timing = board.flash_timing
    if board.code_ram is not None and "weights" in board.sram[0].copies:
        yield replace(board, flash_timing=replace(timing, miss_cycles=0))
    if board.code_ram is not None:
        yield replace(board, flash_timing=replace(timing, code_lines=STALL_FREE_LINES))
    yield board


def copies_for(fast: FastSteps, board: Board, sram_bytes: int | None = None) -> Copies:
    """Returns what start-up copies to a board's RAM for a placed program. Where `sram_bytes` is given, arena and copies take no
    more."""
    first, ram = board.sram[0], board.code_ram
    start, end = first.base + code_sizes.sram_bytes(fast, board), first.base + first.size_bytes - STACK_RESERVE_BYTES
    left = end if sram_bytes is None else sram_bytes - fast.arena.size_bytes
    code = _chosen(_code(fast), _cycles(fast), min(left, _code_room(board, start)))
    taken = _size(code.values())
    if ram is not None and ram.same_as is not None and taken:
        start = ram.same_as + ram.size_bytes
    idle = end - start - code_sizes.COPY_ALIGNMENT - MARGIN_BYTES * (sram_bytes is None) if "weights" in first.copies else 0
    arrays = {name: entry.size_bytes for name, entry in Weights(fast).blob.entries.items()}
    hot = _chosen(arrays, _reads(fast, arrays), min(left - taken, idle))
    return Copies(tuple(code), tuple(hot), taken, _size(hot.values()))


def _code_room(board: Board, start: int) -> int:
    """Returns the bytes of RAM for code where the SRAM is free from address `start` on; the same bytes may be some of it."""
    ram = board.code_ram
    return 0 if ram is None or (ram.same_as is not None and start > ram.same_as) else ram.size_bytes


def _chosen(sizes: Mapping[str, int], worth: Numbers, room: int) -> dict[str, int]:
    """Returns what fits into a room, in the order of `sizes`: that first which is worth most for its bytes; or first of all what
    is worth most of the rest, where this is worth more in all."""
    order = sorted((name for name in sizes if worth[name] > 0), key=lambda name: -worth[name] / sizes[name])
    chosen = _filled(order, sizes, room)
    rest = max((name for name in order if name not in chosen), key=lambda name: worth[name], default=None)
    other = _filled([rest, *order], sizes, room) if rest else chosen
    return max(chosen, other, key=lambda some: sum(worth[name] for name in some))


def _filled(order: Iterable[str], sizes: Mapping[str, int], room: int) -> dict[str, int]:
    """Returns what fits into a room one after the other."""
    chosen = dict[str, int]()
    for name in order:
        more = {each: size for each, size in sizes.items() if each in chosen or each == name}
        chosen = more if _size(more.values()) <= room else chosen
    return chosen


def _size(sizes: Iterable[int]) -> int:
    """Returns the bytes of a section: each part begins at a multiple of 16, the whole ends at one of 8."""
    end = 0
    for size in sizes:
        end = -(-end // code_sizes.COPY_ALIGNMENT) * code_sizes.COPY_ALIGNMENT + size
    return -(-end // 8) * 8


def _code(fast: FastSteps) -> dict[str, int]:
    """Returns the bytes of each generated function, in the linker's order."""
    found = [*fast.codes(), *(function for form in fast.forms.values() for function in form.functions)]
    return {function.name: code_bytes(function) for function in sorted(found, key=lambda function: function.name)}


def _cycles(fast: FastSteps) -> Numbers:
    """Returns for each generated function the predicted cycles of the steps that call it."""
    found = Counter[str]()
    for form in fast.forms.values():
        found.update({function.name: form.cycles for function in form.functions})
    for conv in fast.convs.values():
        found.update({function.name: round(conv.cost) for function in conv.kernel.functions})
    return found


def _reads(fast: FastSteps, arrays: Mapping[str, int]) -> Numbers:
    """Returns the bytes that an inference reads of each array: all of it for each step of its operator, or as often as its kernel
    passes over it; C kernels pass over weights for each output pixel."""
    graph, streamed = fast.program.graph, Counter[str]()
    for step, form in fast.forms.items():
        streamed[step.op] += form.streamed_bytes
    steps, found = Counter(step.op for step in fast.program.steps()), dict[str, float](arrays)
    for op in graph.ops:
        times = float(max(1, steps[op.name]))
        if op.name in streamed:
            read = sum(arrays[name] for name in {*fast.names[0]} if name.startswith(f"{op.name}."))
            times = max(1.0, streamed[op.name] / max(1, read))
        elif isinstance(op, Weighted) and not isinstance(op, TrecConv):
            times = max(times, macs(graph, op) / graph.constants[op.weights].size)
        elif isinstance(op, Lookup):
            times = graph.tensors[op.output].elements / 256
        elif isinstance(op, Bilinear):
            times = float(op.size[0])  # its columns, at each row
        own = (
            name
            for name in arrays
            if name.startswith(f"{op.name}.") or name in (getattr(op, "weights", ""), getattr(op, "bias", ""))
        )
        found |= {name: times * arrays[name] for name in own}
    return found
