"""Partial execution: the schedule of a network that needs the least SRAM, with the same bits and the same arithmetic.

1. `candidates` lists what may run together, `Known.covers` picks items that cover every operator and whose largest cost in
   bytes is least; that cost is a lower bound of every schedule's peak.
2. `best_order` orders them; where the order keeps more alive than the bound, other covers are tried.
3. Slices start as narrow as they can be and grow while the peak allows, for wide slices are faster; the peak itself grows
   until the estimated cycles are close to those of layer by layer.
4. `place` gives real offsets; the peak is what they reach.

Source: after Liberis and Lane, Pex, arXiv 2211.17246; the algorithms are ours.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from tinyredux import memory
from tinyredux.graph import Concat, Dense, Graph, Op
from tinyredux.measurement import MOST_TIMES
from tinyredux.memory import Arena, Item, Loop, Lowering, Price, Program, Schedule
from tinyredux.partial.order import Order, Problem, best_order, given_order, orders_below, problem
from tinyredux.partial.patches import hybrid_items, segment_bound_bytes
from tinyredux.partial.regions import Cost, Net, bits, candidates, item_costs
from tinyredux.partial.widths import Fitter

EVERY_COVER = 7  # operators up to which all covers are tried
COVERS = 4000
ALL_REGIONS = 64  # operators up to which regions of any reach are combined; beyond, those within SPAN operators in a row
SPAN = 12
ORDERS = 600  # operators put in order, all tries together, while covers of a larger graph are tried; orders placed of a small one
LEVEL_STEP = 1.2  # from one number of bytes at which `within_bytes` looks for other items to the next
LEVELS = 6  # most plans of `hybrids`
LEAST = 3  # plans of few bytes that are placed to find the one with the fewest
SLOWDOWN = 0.05  # more cycles than layer by layer that a plan for reference kernels may take
MARGIN = 0.03  # of that for the error of the estimate, see data/records/part_costs.json


@dataclass(frozen=True)
class PartialPlan:
    """A placed program with its peak in bytes and what it is compared with."""

    program: Program
    arena: Arena
    peaks: dict[str, int]  # layerwise, inplace, reordered, partial
    channel_bound_bytes: int  # no schedule that computes nothing twice needs less
    lower_bound_bytes: int  # no schedule of the plan's kind needs less
    narrowest: Schedule  # the program's, before its slices were widened into bytes that are free
    least_bytes: int  # the least peak found, whatever its cycles

    @property
    def peak_bytes(self) -> int:
        """Bytes of the arena, scratch and sums included."""
        return self.arena.size_bytes

    @property
    def optimal(self) -> bool:
        """True where the arena is as small as the lower bound."""
        return self.arena.size_bytes == self.lower_bound_bytes


class Known:
    """A network's candidates with what is known of each: its phases, the bytes of `bound_bytes`, the mask of its operators."""

    def __init__(self, net: Net) -> None:
        self.net, self.every = net, candidates(net)
        self.costs = {item: item_costs(net, item) for item in self.every}
        self.bounds = {item: bound_bytes(net, item, self.costs) for item in self.every}
        self.masks = {item: net.mask(item) for item in self.every}
        self.usable = self.every  # those that are combined into covers: of a large graph those that lie close together
        if len(net.graph.ops) > ALL_REGIONS:
            self.usable = [i for i in self.every if self.masks[i].bit_length() - next(bits(self.masks[i])) <= SPAN]
        self.levels = sorted({self.bounds[item] for item in self.usable})

    def covers(self, most_bytes: int, most: int = 1) -> list[list[Item]]:
        """Returns up to `most` choices of items that need at most so many bytes and hold every operator exactly once, those with
        the fewest regions first."""
        by_first: dict[int, list[Item]] = {}
        for item in self.usable:
            for i in bits(self.masks[item]) if self.bounds[item] <= most_bytes else ():
                by_first.setdefault(i, []).append(item)
        full = (1 << len(self.net.graph.ops)) - 1
        following: dict[int, list[Item]] = {}  # by operators covered: the items that can cover the next one
        todo = [0]
        for covered in todo:
            if covered != full and covered not in following:
                first = (~covered & (covered + 1)).bit_length() - 1
                following[covered] = [item for item in by_first.get(first, []) if not self.masks[item] & covered]
                todo += [covered | self.masks[item] for item in following[covered]]
        memo: dict[int, list[tuple[int, list[Item]]]] = {full: [(0, [])]}
        for covered in sorted(following, key=int.bit_count, reverse=True):
            found = [
                (count + (len(item.ops) if item.kind != "whole" else 0), [item, *rest])
                for item in following[covered]
                for count, rest in memo[covered | self.masks[item]]
            ]
            memo[covered] = sorted(found, key=lambda pair: pair[0])[:most]
        return [chosen for _, chosen in memo[0]]


def plan_partial(
    graph: Graph, accumulator: str = "int32", limit: int = 0, slowdown: float = math.inf, price: Price = memory.executed_macs
) -> PartialPlan:
    """Returns the plan with the least placed peak whose steps cost at most 1 + `slowdown` - MARGIN times those of layer by layer,
    by `price`; infinite: the least peak that the search finds. Never above the plan layer by layer.

    With `limit` it takes at most so many bytes, or the least peak where that is more, even if it is slower then.

    The lower bound holds for all schedules of whole operators and `candidates`, however wide their parts: the candidates are
    the narrowest, and a part's buffers grow with it. `optimal` is True where the arena reaches it.
    """
    net, layerwise = Net(graph, accumulator, price), memory.plan(graph).total_bytes
    known = Known(net)
    lowest, found = search(known)
    options = [_placed(net, order) for order in (found, _best_alone(known, reorder=True), _best_alone(known, reorder=False))]
    in_turn = replace(memory.one_by_one(graph), accumulator=accumulator)
    options.append((in_turn, memory.place(memory.lower(graph, in_turn, full=False))))
    in_place = min(layerwise, options[2][1].size_bytes)
    whole = min(in_place, options[1][1].size_bytes)
    if len(graph.ops) <= EVERY_COVER:
        options += _every_order(known, lowest, min(arena.size_bytes for _, arena in options))
    options.sort(key=lambda option: option[1].size_bytes)
    narrowest, least = options[0][0], options[0][1].size_bytes
    if math.isinf(slowdown):
        program = memory.lower(graph, Fitter(net, narrowest, known.costs, max(least, min(whole, limit or whole))).within(least))
        arena = memory.place(program, least)
    else:
        wanted = (1 + slowdown - MARGIN) * layerwise_price(graph, price)
        most = max(least, min(layerwise, limit or layerwise))
        program, arena = _fast_enough(known, [schedule for schedule, _ in options], wanted, least, most)
    peaks = {"layerwise": layerwise, "inplace": in_place, "reordered": whole, "partial": arena.size_bytes}
    return PartialPlan(program, arena, peaks, lowest, lowest, narrowest, least)


def layerwise_price(graph: Graph, price: Price) -> float:
    """Returns what a network costs layer by layer."""
    return price(graph, memory.lower(graph, memory.one_by_one(graph)).steps())


def within_bytes(
    graph: Graph, limit_bytes: int, accumulator: str = "int32", price: Price = memory.executed_macs
) -> list[tuple[Program, Arena]]:
    """Returns placed programs of at most `limit_bytes`, from few operators in parts to the least peak: each with the narrowest
    parts, which leave bytes idle for scratch, and with parts as wide as fit. None where nothing fits.

    They are for kernels whose cycles this planner does not know: whoever knows them chooses.
    """
    net = Net(graph, accumulator, price)
    known, found, seen = Known(net), list[tuple[Program, Arena]](), set[tuple[Item, ...]]()
    steps = list[int]()  # the same whatever the limit, so that a larger one leaves none of them out
    for level in known.levels:
        steps += [level] if not steps or level >= LEVEL_STEP * steps[-1] else []
    levels = [level for level in known.levels if level <= limit_bytes]
    for level in dict.fromkeys([*levels[-1:], *reversed([level for level in steps if level <= limit_bytes])]):
        chosen = known.covers(level)
        if not chosen or tuple(chosen[0]) in seen:
            continue
        seen.add(tuple(chosen[0]))
        better = _better(known, chosen[0], None)
        assert better is not None
        schedule, arena = _placed(net, better)
        if arena.size_bytes <= limit_bytes:
            wide = Fitter(net, schedule, known.costs, limit_bytes).within(limit_bytes)
            programs = [memory.lower(graph, one) for one in (schedule, wide)]
            found += [(program, memory.place(program, arena.size_bytes)) for program in programs]
    return [one for one in found if one[1].size_bytes <= limit_bytes]


def _fast_enough(known: Known, schedules: list[Schedule], wanted: float, least: int, most: int) -> tuple[Program, Arena]:
    """Returns the first schedule that can be widened within `most` bytes until it costs at most `wanted`, or the cheapest."""
    found: list[tuple[float, Program, Arena]] = []
    for schedule in schedules:
        fitter = Fitter(known.net, schedule, known.costs, most)
        program = memory.lower(known.net.graph, fitter.within_price(least, wanted))
        arena, cost = memory.place(program, least), known.net.price(known.net.graph, program.steps())
        if arena.size_bytes <= most:
            found.append((cost, program, arena))
            if cost <= wanted:
                break
    _, program, arena = min(found, key=lambda some: some[0])
    return program, arena


def plan_hybrid(
    graph: Graph, mac_limit: float, accumulator: str = "int32", input_outside: bool = False, price: Price = memory.executed_macs
) -> PartialPlan:
    """Returns the plan with the least placed peak among channel schedules and hybrid ones, which run early layers in patches
    and compute up to `mac_limit` times the network's MACs; of equal peaks the one that costs least by `price`.

    With `input_outside` the network's input lies apart, behind all that the schedule needs, and is not counted in what is
    minimised; it is part of the arena's size all the same. The lower bound holds for both kinds of schedules and every limit.
    Raises ValueError for a limit below 1, or so large that it is none.
    """
    pure = plan_partial(graph, accumulator, price=price)
    placed = _placing(graph, input_outside)
    plans = [replace(pure, arena=placed(pure.program)) if input_outside else pure]
    search = partial(hybrids, graph, mac_limit, accumulator, input_outside, price, most=LEAST)
    # A faster choice in rolling strips may hide one without them that is placed in fewer bytes, so both are asked for.
    for program, arena in (*search(), *search(rolling=False)):
        plans.append(replace(pure, program=program, arena=arena, narrowest=program.schedule))
    best = min(plans, key=lambda plan: (plan.peak_bytes, price(graph, plan.program.steps())))
    bound = min(pure.lower_bound_bytes, segment_bound_bytes(graph))
    return replace(best, peaks=pure.peaks | {"partial": best.peak_bytes}, lower_bound_bytes=bound)


def hybrids(
    graph: Graph, mac_limit: float, accumulator: str = "int32", input_outside: bool = False,
    price: Price = memory.executed_macs, whole_costs: Mapping[str, float] | None = None, limit_bytes: int = 0, most: int = LEVELS,
    rolling: bool = True,
) -> list[tuple[Program, Arena]]:  # fmt: skip
    """Returns placed programs that run early layers in patches, computing up to `mac_limit` times the network's MACs: up to
    `most` of those that are predicted to be fastest in their bytes, within `limit_bytes` or from the least peak on.

    `whole_costs` says what operators cost at once, where that is not by `price`; `rolling`: strips may keep their shared rows.
    Tensors lie at words where that takes no byte
    more, or none beyond the limit. Arguments and errors else as `plan_hybrid`.
    """
    check_macs(mac_limit)
    net, known = Net(graph, accumulator, price), whole_costs or {}

    def cost(item: Item) -> float:
        schedule = Schedule((item,), {}, frozenset(), frozenset(item.ops), accumulator)
        alone = item.kind == "whole" and item.sink in known
        return known[item.sink] if alone else price(graph, Loop((tuple(Lowering(graph, schedule).item(item)),)).steps())

    found, placed = list[tuple[Program, Arena]](), _placing(graph, input_outside)
    choices = hybrid_items(net, mac_limit, input_outside, cost, rolling)
    apart = graph.input.size_bytes if input_outside else 0
    fitting = [items for peak, items in choices if peak + apart <= limit_bytes]
    for items in reversed(fitting[-most:]) if fitting else [items for _, items in choices[:most]]:
        schedule = Schedule(items, {}, frozenset(), frozenset(op.name for op in graph.ops), accumulator, recomputes=True)
        program = memory.lower(graph, schedule)
        words = replace(program, buffers={name: replace(one, align=4) for name, one in program.buffers.items()})
        tight, roomy = placed(program), placed(words)
        found.append((words, roomy) if roomy.size_bytes <= max(tight.size_bytes, limit_bytes) else (program, tight))
    return found


def _placing(graph: Graph, input_outside: bool) -> Callable[[Program], Arena]:
    return partial(memory.place_apart, tensor=graph.inputs[0]) if input_outside else memory.place


def check_macs(limit: float) -> None:
    """Raises ValueError for a limit of MACs below 1, or so large that it is none."""
    if not 1 <= limit <= MOST_TIMES:
        raise ValueError(f"limit of MACs is {limit}, expected 1.0 (no recomputation) to {MOST_TIMES} times the network's")


def bound_bytes(net: Net, item: Item, costs: dict[Item, Cost]) -> int:
    """Returns bytes that are alive while an item runs, whatever the order and whatever else is chosen.

    `costs` say which phases the item has: in each, the inputs that it still reads lie whole, so does its output once it is begun,
    apart from them or in the place of one that nobody reads later, and what is inside takes so many bytes at least. A tensor that
    must be written before the item and read after it is alive too: it cannot be cut away, for an item that holds its writer
    and its reader would have to run both before and after this one. Parts of concatenations count once, for they may lie in it.
    """
    graph, sink = net.graph, net.ops(item)[-1]
    before, after = net.around(net.mask(item))
    early = [*graph.inputs, *(graph.ops[i].output for i in bits(before))]
    beside = {name for name in early if net.readers[name] & after or name in graph.outputs}
    output = sink.output
    if isinstance(sink, Concat) and item.kind == "whole":
        return net.together_bytes(beside | set(net.inputs(item)) | {output})
    plain, replacing = costs[item]
    ways = [(some, set[str]()) for name, some in replacing.items() if not net.readers[name] & after]
    return min(
        max(net.together_bytes(beside | phase.inputs | (made if phase.begun else set())) + phase.extra for phase in some)
        for some, made in [(plain, {output}), *ways]
    )


def search(known: Known) -> tuple[int, Order]:
    """Returns a lower bound of all peaks, and the order with the least peak of live bytes that is found.

    Proof: a schedule runs every operator in some item, and its peak is at least the bound of each item that it runs. So no
    peak is below the cheapest item of the operator for which that is dearest; nor, where all regions are combined, below the
    least level whose items cover the network. Where all covers were put in order exactly, the best of them is the bound.
    """
    every, bounds, levels, count = known.every, known.bounds, known.levels, len(known.net.graph.ops)
    bound = max(min(bounds[item] for item in every if known.masks[item] >> i & 1) for i in range(count))
    low = bisect_left(levels[:-1], True, key=lambda level: bool(known.covers(level)))  # all items cover the network
    small, tries = count <= EVERY_COVER, max(2, ORDERS // count)
    best: Order | None = None
    complete = small
    for level in levels[low:]:
        if best is not None and (level >= best.live_bytes or (tries <= 0 and not small)):
            complete &= level >= best.live_bytes
            break
        chosen = known.covers(level, COVERS if small else 4)
        complete &= len(chosen) < COVERS
        tries -= len(chosen)
        for items in chosen:
            best = _better(known, items, best)
    assert best is not None
    if len(known.usable) == len(every):
        bound = best.live_bytes if complete and best.exact else levels[low]
    return bound, best


def _every_order(known: Known, lowest: int, best: int) -> list[tuple[Schedule, Arena]]:
    """Returns the schedules placed in ever fewer bytes than `best` among those of every cover, order and output's place, of
    which up to ORDERS are tried."""
    found, most = list[tuple[Schedule, Arena]](), [best]
    orders = (
        order
        for items in (known.covers(best - 1, COVERS) if best > lowest else [])
        for given in _problems(known, items)
        for order in orders_below(given, most)
    )
    for order in itertools.islice(orders, ORDERS):
        option = _placed(known.net, order)
        if option[1].size_bytes < most[0]:
            found.append(option)
            most[0] = option[1].size_bytes
    return found


def _better(known: Known, items: list[Item], best: Order | None) -> Order | None:
    """Returns the better of the best so far and these items in their best order."""
    for given in _problems(known, items):
        best = best_order(given, best.live_bytes - 1 if best else 1 << 62) or best
    return best


def _problems(known: Known, items: list[Item]) -> Iterator[Problem]:
    """Yields the ordering problems of items: with all concatenations done without copies that can be, with none, and with every
    choice where few can or there are few operators."""
    net = known.net
    can = [item.sink for item in items if item.kind == "whole" and can_alias(net, net.ops(item)[-1])]
    every = len(can) <= 3 or len(net.graph.ops) <= EVERY_COVER
    for count in range(len(can), -1, -1) if every else (len(can), 0):
        for some in itertools.combinations(can, count):
            yield problem(net, items, frozenset(some), known.costs)


def can_alias(net: Net, op: Op) -> bool:
    """True where the producers can write into the concatenation: each input is used once there, written and read with strides."""
    if not isinstance(op, Concat) or len(set(op.inputs)) < len(op.inputs):
        return False
    readers = {reader.name: reader for name in op.inputs for reader in net.graph.consumers(name) if reader is not op}
    return not (
        set(op.inputs) & {*net.graph.inputs, *net.graph.outputs}
        or any(memory.is_barrier(net.graph, net.graph.ops[net.producer[name]]) for name in op.inputs)
        or any(memory.is_barrier(net.graph, reader) or isinstance(reader, (Concat, Dense)) for reader in readers.values())
    )


def _best_alone(known: Known, reorder: bool) -> Order:
    """Returns the plan without regions: each operator whole or in place, in the given or in the best order."""
    alone = [item for item in known.every if len(item.ops) == 1]
    items = [min((i for i in alone if i.ops == (op.name,)), key=known.bounds.__getitem__) for op in known.net.graph.ops]
    orders = [best_order(given, 1 << 62) if reorder else given_order(given) for given in _problems(known, items)]
    return min((order for order in orders if order), key=lambda order: order.live_bytes)


def _placed(net: Net, order: Order) -> tuple[Schedule, Arena]:
    """Returns the schedule of an order with the narrowest slices, and where its buffers lie."""
    schedule = Schedule(order.items, order.in_place, order.aliased, frozenset(net.index), net.accumulator)
    return schedule, memory.place(memory.lower(net.graph, schedule, full=False))


def arena_plan(program: Program, arena: Arena) -> memory.MemoryPlan:
    """Returns a placed program as a plan of the layer-by-layer planner: one step for each item, scratch inside the arena."""
    steps = tuple(memory.LiveStep(name, live) for name, live in item_bytes(program))
    bound = max(program.graph.input.size_bytes, sum(tensor.size_bytes for tensor in program.graph.results))
    return memory.MemoryPlan(arena.offsets, {}, arena.size_bytes, 0, steps, bound)


def item_bytes(program: Program) -> list[tuple[str, int]]:
    """Returns (operators, most bytes alive while they run) for each item in order."""
    live = memory.live_bytes(memory.blocks_of(program.buffers, program.ties))
    found, clock = [], 0
    for item, nodes in zip(program.schedule.items, program.nodes, strict=True):
        end = clock + memory.moments(nodes)
        if end > clock:
            found.append(("+".join(item.ops), max(live[clock:end])))
        clock = end
    return found
