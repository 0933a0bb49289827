"""Row convolution by packed products: which columns, pairs of taps and accumulators a geometry needs, and in which order.

Two neighbouring pixels are packed as x0 + x1 * 2^21 and two taps as w1 + w0 * 2^21. One SMLAL adds all four products:

    x0 * w1  +  (x0 * w0 + x1 * w1) * 2^21  +  x1 * w0 * 2^42

In a row of outputs, out[i] = sum of w[t] * x[i + t], pixels (m + t, m + t + 1) times taps (t, t + 1) belong to out[m - 1], out[m]
and out[m + 1]: accumulator m collects them for all t. The even outputs are the middle fields; out[m + 1] is the high field of
accumulator m plus the low field of accumulator m + 2. A stride s splits a row into s phases, each a row with stride 1.

Source: Kronecker substitution; for low-bit data HiKonv, arXiv 2112.13972. With full int8 and drained fields: ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, product

REGISTERS = 14
BLOCK = 3  # accumulators: two registers each, and five are left for operands; with four the loads cost as much again
SEARCH_WIDTH, SEARCH_WINDOW, SEARCH_STEPS = 12, 9, 2
Pixels = tuple[int | None, int | None]  # of a packed word, None outside the map
CODE_BYTES = 960  # of an inner loop: it stays in the 1 KiB instruction cache of an STM32F4


@dataclass(frozen=True)
class Geometry:
    """One group of a convolution between maps; `pixel` and `row` are distances in bytes."""

    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    out_c: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad_top: int
    pad_left: int
    in_pixel: int
    in_row: int
    out_pixel: int
    out_row: int

    def input_rows(self, y: int) -> range:
        """Returns the input rows inside the map that output row y sees."""
        first = y * self.stride[0] - self.pad_top
        return range(max(first, 0), min(first + self.kernel[0], self.in_h))

    @property
    def seen(self) -> list[int]:
        """How many input rows each output row sees."""
        return [len(self.input_rows(y)) for y in range(self.out_h)]


@dataclass(frozen=True)
class Pair:
    """Two taps that share a packed word: tap indices of the row (None: zero), and where accumulator m finds its pixels.

    They are pixels stride * u + offset of the row, with u = m + shift and m + shift + 1.
    """

    taps: tuple[int | None, int | None]
    offset: int
    shift: int


@dataclass(frozen=True)
class Product:
    """Accumulator `a` of a block, packed taps `pair`, packed pixels `column`: one SMLAL."""

    a: int
    pair: int
    column: int


@dataclass(frozen=True)
class RowBlock:
    """`n` accumulators from number `first` on, computed together, `count` times side by side; columns from `column` on."""

    first: int
    n: int
    products: tuple[Product, ...]
    column: int
    count: int = 1


@dataclass(frozen=True)
class RowPlan:
    """How a row is computed. `columns`: the pixels (or None, outside the map) of each packed word of a row and channel."""

    pairs: tuple[Pair, ...]
    columns: tuple[Pixels, ...]
    blocks: tuple[RowBlock, ...]
    step_cycles: float


Operand = tuple[int, str, int]  # (step, "w" or "x", index)
Batch = tuple[tuple[Operand, ...], tuple[tuple[int, Operand, Operand], ...]]


def plan_rows(g: Geometry) -> RowPlan | None:
    """Returns the cheapest plan of a geometry; None where no row has a product to compute."""
    phases = min(g.stride[1], g.kernel[1])
    odd = [phase for phase in range(phases) if len(range(phase, g.kernel[1], g.stride[1])) % 2]
    plans = [_plan(g, dict(zip(odd, starts, strict=False))) for starts in product((0, -1), repeat=min(3, len(odd)))]
    return min(filter(None, plans), key=lambda plan: (plan.step_cycles, len(plan.columns)), default=None)


def _plan(g: Geometry, starts: dict[int, int]) -> RowPlan | None:
    pairs = []
    for phase in range(min(g.stride[1], g.kernel[1])):
        taps = range(phase, g.kernel[1], g.stride[1])
        around: list[int | None] = [None, *taps, None]
        for t in range(starts.get(phase, 0), len(taps), 2):
            offset = (phase - g.pad_left) % g.stride[1]
            pairs.append(Pair((around[t + 1], around[t + 2]), offset, t + (phase - g.pad_left) // g.stride[1]))
    wanted = [(a, i) for a in range(g.out_w // 2 + 1) for i, pair in enumerate(pairs) if _useful(g, pair, 2 * a)]
    places = sorted({(pairs[i].offset, 2 * a + pairs[i].shift) for a, i in wanted})
    numbers = {place: i for i, place in enumerate(places)}
    columns = tuple((_pixel(g, offset, u), _pixel(g, offset, u + 1)) for offset, u in places)
    products = [Product(a, i, numbers[pairs[i].offset, 2 * a + pairs[i].shift]) for a, i in wanted]
    if not products or {product.a for product in products} != set(range(g.out_w // 2 + 1)):
        return None
    blocks, cycles = _partition(products, g.out_w // 2 + 1)
    return RowPlan(tuple(pairs), columns, _merged(blocks, g.out_w), cycles)


def _pixel(g: Geometry, offset: int, u: int) -> int | None:
    place = g.stride[1] * u + offset
    return place if 0 <= place < g.in_w else None


def _useful(g: Geometry, pair: Pair, m: int) -> bool:
    """Whether accumulator m needs this product: one of its four parts has a pixel, a tap and an output."""
    x = [_pixel(g, pair.offset, m + pair.shift + i) is not None for i in (0, 1)]
    w = [tap is not None for tap in pair.taps]
    low, middle, high = x[0] and w[1], (x[0] and w[0]) or (x[1] and w[1]), x[1] and w[0]
    return (low and 0 < m <= g.out_w) or (middle and m < g.out_w) or (high and m + 1 < g.out_w)


def _partition(products: list[Product], total: int) -> tuple[list[RowBlock], float]:
    """Returns the blocks of at most BLOCK accumulators with the fewest cycles per step, and these cycles."""
    best: list[tuple[float, tuple[RowBlock, ...]]] = [(0.0, ())]
    for end in range(1, total + 1):
        options = []
        for n in range(1, min(BLOCK, end) + 1):
            block = _block(products, end - n, n)
            cycles = step_cycles(block.products, REGISTERS - 3 - 2 * n) + 1.5
            options.append((best[end - n][0] + cycles, (*best[end - n][1], block)))
        best.append(min(options, key=lambda option: option[0]))
    return list(best[total][1]), best[total][0]


def _block(products: list[Product], first: int, n: int) -> RowBlock:
    own = [product for product in products if first <= product.a < first + n]
    column = min(product.column for product in own)
    return RowBlock(first, n, tuple(Product(p.a - first, p.pair, p.column - column) for p in own), column)


def _merged(blocks: Iterable[RowBlock], out_w: int) -> tuple[RowBlock, ...]:
    """Returns the blocks with equal neighbours joined, those apart that have no output on the left or not all on the right."""
    found: list[RowBlock] = []
    for block in blocks:
        last, inner = found[-1] if found else block, block.first > 0 and 2 * (block.first + block.n) < out_w
        behind = last.count * last.n
        if inner and last.first > 0 and block == replace(last, first=last.first + behind, column=last.column + behind, count=1):
            found[-1] = replace(last, count=last.count + 1)
        else:
            found.append(block)
    return tuple(found)


def step_cycles(products: tuple[Product, ...], temporaries: int) -> float:
    """Returns the cycles of one step, one kernel row and channel: products, loads, and one more per chain of loads."""
    batches = order_loads(products, SEARCH_STEPS, temporaries)
    return sum(len(loads) + 1 + len(macs) for loads, macs in batches) / SEARCH_STEPS


@lru_cache(maxsize=4096)
def order_loads(products: tuple[Product, ...], steps: int, temporaries: int) -> tuple[Batch, ...]:
    """Returns batches of loads, each with the products that it makes possible, in as few batches as a beam search finds.

    Loads in a row cost one cycle each on a Cortex-M4 and one more for the first. Source: ours.
    """
    work = [(p.a, (s, "w", p.pair), (s, "x", p.column)) for s in range(steps) for p in products]
    order = list(dict.fromkeys(operand for _, w, x in work for operand in (w, x)))
    uses = {o: sum(1 << i for i, (_, w, x) in enumerate(work) if o in (w, x)) for o in order}
    states: list[tuple[int, frozenset[Operand], tuple[Batch, ...]]] = [(0, frozenset(), ())]
    while True:
        found: dict[tuple[int, frozenset[Operand]], tuple[int, frozenset[Operand], tuple[Batch, ...]]] = {}
        for done, held, path in states:
            needed = [o for o in order if o not in held and uses[o] & ~done]
            for loads in combinations(needed[:SEARCH_WINDOW], min(temporaries - len(held), len(needed))):
                have = held | set(loads)
                ready = [i for i, (_, w, x) in enumerate(work) if not done >> i & 1 and w in have and x in have]
                after = done | sum(1 << i for i in ready)
                kept = frozenset(o for o in have if uses[o] & ~after)
                if ready and (after, kept) not in found:
                    found[after, kept] = (after, kept, (*path, (loads, tuple(work[i] for i in ready))))
        ends = [path for done, _, path in found.values() if done == (1 << len(work)) - 1]
        if ends:
            return min(ends, key=lambda path: sum(len(loads) for loads, _ in path))
        if found:
            states = sorted(found.values(), key=lambda state: (-state[0].bit_count(), len(state[1])))[:SEARCH_WIDTH]
        else:  # all held, none complete: give one operand up, to be loaded again
            states = [(done, held - {o}, path) for done, held, path in states[:SEARCH_WIDTH] for o in sorted(held)]
