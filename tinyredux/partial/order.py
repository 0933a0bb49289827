"""In which order to run items so that the largest sum of live bytes is least: dynamic programming over sets of items run.

Exact while no more than STATES sets of one size are met, on up to 12 items always; beyond that the best of them are kept (a
beam), of more than MANY items fewer.
Source: the recursion of Liberis and Lane, arXiv 1910.05110, run forwards.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tinyredux.graph import Concat
from tinyredux.memory import Item, Storage, storages
from tinyredux.partial.regions import Cost, Net, Phase, union

STATES = 1500  # sets of one size; 12 items have at most 924
MANY = 32  # items from which on fewer sets are kept, so that large graphs take seconds
Stage = tuple[tuple[str, ...], bool, int]  # a phase: buffers read until just before it, whether the output is begun, extra bytes


@dataclass(frozen=True)
class Move:
    """An item as the order sees it: items before it, buffers it touches, what it needs, plain and in a buffer's place."""

    item: Item
    needs: int
    reads: tuple[str, ...]
    writes: str
    stages: tuple[Stage, ...]
    in_place: tuple[tuple[str, tuple[Stage, ...]], ...]


class Run(NamedTuple):
    """A move that runs: the input whose place its output takes or none, the most bytes alive meanwhile and those after it, bytes
    of an output that is new, and of each buffer that nobody uses later."""

    source: str
    during: int
    after: int
    fresh: int
    dying: dict[str, int]


@dataclass(frozen=True)
class Order:
    """The items in order, outputs in place of an input, concatenations without copies, the peak of live bytes, and whether no
    order has a lower one."""

    items: tuple[Item, ...]
    in_place: dict[str, str]
    aliased: frozenset[str]
    live_bytes: int
    exact: bool


@dataclass(frozen=True)
class Problem:
    """Moves and buffers: bytes of each, which moves write it, which write or read it, and which are kept to the end."""

    moves: tuple[Move, ...]
    aliased: frozenset[str]
    sizes: dict[str, int]
    writers: dict[str, int]
    users: dict[str, int]
    kept: frozenset[str]
    start_bytes: int  # alive before the first move: those of the inputs


def problem(net: Net, items: Iterable[Item], aliased: frozenset[str], costs: dict[Item, Cost]) -> Problem:
    """Returns the ordering problem of a set of items; `costs` gives each item's phases, plain and by input replaced."""
    places = storages(net.graph, aliased)
    runs = [item for item in items if not (item.kind == "whole" and item.sink in aliased)]
    made = {net.output(item): 1 << i for i, item in enumerate(runs)}
    for op in net.graph.ops:
        if op.name in aliased:  # it is there when all its inputs are
            made[op.output] = union(made.get(name, 0) for name in op.inputs)
    writers, users, moves = defaultdict[str, int](int), defaultdict[str, int](int), []
    for item in runs:
        reads, output = net.inputs(item), net.output(item)
        plain, replacing = costs[item]
        roots, root = tuple(dict.fromkeys(places[name].root for name in reads)), places[output].root
        own_root = root == output and not isinstance(net.ops(item)[-1], Concat)
        able = [name for name in replacing if own_root and places[name].root == name]
        free = tuple((name, stages_of(net, item, places, replacing[name])) for name in able)
        for name in (*roots, root):
            users[name] |= made[output]
        writers[root] |= made[output]
        needs = union(made.get(name, 0) for name in reads)
        moves.append(Move(item, needs, roots, root, stages_of(net, item, places, plain), free))
    sizes = {name: net.size(name) for name in (*users, *net.graph.inputs)}
    kept = frozenset(places[name].root for name in net.graph.outputs)
    return Problem(tuple(moves), aliased, sizes, writers, users, kept, sum(net.size(name) for name in net.graph.inputs))


def stages_of(net: Net, item: Item, places: dict[str, Storage], phases: tuple[Phase, ...]) -> tuple[Stage, ...]:
    """Returns an item's phases in terms of buffers; an output among the channels of a concatenation lies apart from its sums."""
    output, read = net.output(item), dict.fromkeys(places[name].root for name in net.inputs(item))
    apart = net.size(output) if places[output].root != output and item.kind == "accumulate" else 0
    found = []
    for phase in phases:
        kept = {places[name].root for name in (*phase.inputs, output)}
        found.append((tuple(root for root in read if root not in kept), phase.begun, phase.extra + apart * phase.begun))
    return tuple(found)


def peak_of(stages: tuple[Stage, ...], live: int, fresh: int, dying: dict[str, int]) -> int:
    """Returns the most bytes alive while an item runs: `live` before it, `fresh` those of its output where that is new, `dying`
    those of each buffer that nobody reads later."""
    return max(live + fresh * begun + extra - sum(dying.get(name, 0) for name in gone) for gone, begun, extra in stages)


def runs_of(given: Problem, move: int, done: int, live: int) -> Iterator[Run]:
    """Yields each way to run a move after those of `done`, with `live` bytes before it: plain, and in the place of each input
    that allows it."""
    m, left = given.moves[move], ~(done | 1 << move)
    dead = {name: given.sizes[name] for name in (*m.reads, m.writes) if name not in given.kept and not given.users[name] & left}
    new = 0 if given.writers[m.writes] & done else given.sizes[m.writes]
    after = live + new - sum(dead.values())
    yield Run("", peak_of(m.stages, live, new, dead), after, new, dead)
    for name, stages in m.in_place if new else ():
        if name in dead and name != m.writes:
            yield Run(name, peak_of(stages, live, 0, dead), after, 0, dead)


def best_run(given: Problem, move: int, done: int, live: int) -> Run:
    """Returns the way to run a move with the fewest bytes."""
    return min(runs_of(given, move, done, live), key=lambda run: run.during)


def replayed(given: Problem, moves: Iterable[int]) -> Iterator[tuple[Move, int, Run]]:
    """Yields (move, bytes alive before it, its best run) for moves one after the other."""
    done, live = 0, given.start_bytes
    for i in moves:
        run = best_run(given, i, done, live)
        yield given.moves[i], live, run
        done, live = done | 1 << i, run.after


def in_order(given: Problem, moves: Iterable[int], exact: bool = True) -> Order:
    """Returns moves one after the other, with outputs in place where an input dies."""
    ran = list(replayed(given, moves))
    peak = max([given.start_bytes, *(run.during for _, _, run in ran)])
    in_place = {move.writes: run.source for move, _, run in ran if run.source}
    return Order(tuple(move.item for move, _, _ in ran), in_place, given.aliased, peak, exact)


def given_order(given: Problem) -> Order:
    """Returns the order in which the moves are listed."""
    return in_order(given, range(len(given.moves)))


def best_order(given: Problem, bound: int) -> Order | None:
    """Returns the order with the least peak, or None where items wait for each other in a circle or all exceed `bound`.

    What a move changes depends only on whether its buffers are begun and on whether it is the last to use them: it is computed
    once for each such state, which is two bits for each buffer.
    """
    moves, count = given.moves, len(given.moves)
    limit = STATES if count <= MANY else max(50, STATES * MANY // (2 * count))
    places = {name: 2 * k for k, name in enumerate(given.users)}
    touched = [{*move.reads, move.writes} for move in moves]
    near = [sum(3 << places[name] for name in names) for names in touched]
    known: list[dict[int, Run]] = [{} for _ in moves]
    unlocked = [[k for k, move in enumerate(moves) if move.needs >> i & 1] for i in range(count)]
    level = {0: (given.start_bytes,) * 2}  # by moves run: peak, live bytes
    after = {0: ([i for i, move in enumerate(moves) if not move.needs], _state(given, places, places, 0))}  # ready moves, state
    came: dict[int, int] = {}  # by moves run: the last of them
    exact = True
    for _ in moves:
        following: dict[int, tuple[int, int]] = {}
        for done, (peak, live) in level.items():
            ready, state = after[done]
            for i in ready:
                own = state & near[i]
                if own not in known[i]:
                    known[i][own] = best_run(given, i, done, 0)
                run, key = known[i][own], done | 1 << i
                worst = max(peak, live + run.during)
                if worst <= bound and (key not in following or worst < following[key][0]):
                    following[key], came[key] = (worst, live + run.after), i
        exact &= len(following) <= limit
        kept = sorted(following, key=following.__getitem__)[:limit] if len(following) > limit else list(following)
        level, before, after = {key: following[key] for key in kept}, after, {}
        for key in kept:
            ready, state = before[key ^ 1 << came[key]]
            open_moves = (k for k in (*ready, *unlocked[came[key]]) if not (key >> k & 1 or moves[k].needs & ~key))
            after[key] = sorted(open_moves), state | _state(given, places, touched[came[key]], key)
    if not level:
        return None
    last, left = list[int](), (1 << count) - 1
    while left:
        last.append(came[left])
        left ^= 1 << came[left]
    return in_order(given, reversed(last), exact)


def _state(given: Problem, places: dict[str, int], names: Iterable[str], done: int) -> int:
    """Returns two bits for each of these buffers after the moves of `done`: it is begun, at most one user is left."""
    state = 0
    for name in names:
        begun, last = given.writers.get(name, 0) & done != 0, (given.users[name] & ~done).bit_count() < 2
        state |= (begun | last << 1) << places[name]
    return state


def orders_below(
    given: Problem, most: list[int], done: int = 0, live: int | None = None, begun: Order | None = None
) -> Iterator[Order]:
    """Yields every order, with every choice of outputs in place, whose peak is below most[0], which may fall meanwhile; those
    that go on from `begun`, where the moves of `done` have run and `live` bytes are alive."""
    live, begun = given.start_bytes if live is None else live, begun or Order((), {}, given.aliased, 0, True)
    if len(begun.items) == len(given.moves):
        yield begun
    for i, move in enumerate(given.moves):
        if done >> i & 1 or move.needs & ~done:
            continue
        for run in runs_of(given, i, done, live):
            if (worst := max(begun.live_bytes, run.during)) < most[0]:
                places = begun.in_place | ({move.writes: run.source} if run.source else {})
                further = Order((*begun.items, move.item), places, given.aliased, worst, True)
                yield from orders_below(given, most, done | 1 << i, run.after, further)
