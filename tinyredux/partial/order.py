"""In which order to run items so that the largest sum of live bytes is least: dynamic programming over sets of items run.

Exact while no more than `states_for` sets of one size are met, on up to 12 items always; beyond that the best of them are
kept (a beam).
Source: the recursion of Liberis and Lane, arXiv 1910.05110, run forwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinyredux.graph import Concat
from tinyredux.memory import Item, Storage, storages
from tinyredux.partial.regions import Cost, Net, Phase

STATES = 1500  # sets of one size; 12 items have at most 924
MANY = 32  # items from which on fewer sets are kept, so that large graphs take seconds
FEW = 4  # users of a buffer up to which a move's change is told apart by which of them have run
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


@dataclass(frozen=True)
class Around:
    """What is alive around an item: bytes before it, those of an output that is new, and of each buffer that dies with it."""

    net: Net
    places: dict[str, Storage]
    live: int
    fresh: int
    dying: dict[str, int]

    def bytes(self, item: Item, phases: tuple[Phase, ...]) -> int:
        """Returns the most bytes alive while the operators run as another item, which needs these phases."""
        return peak_of(stages_of(self.net, item, self.places, phases), self.live, self.fresh, self.dying)


@dataclass(frozen=True)
class Order:
    """The items in order, outputs in place of an input, the peak of live bytes, and whether no order has a lower one."""

    items: tuple[Item, ...]
    in_place: dict[str, str]
    live_bytes: int
    exact: bool


@dataclass(frozen=True)
class Problem:
    """Moves and buffers: bytes of each, which moves write it, which write or read it, and which are kept to the end."""

    moves: tuple[Move, ...]
    sizes: dict[str, int]
    writers: dict[str, int]
    users: dict[str, int]
    kept: frozenset[str]
    at_start: tuple[str, ...]

    @property
    def start_bytes(self) -> int:
        """Bytes alive before the first move: those of the inputs."""
        return sum(self.sizes[name] for name in self.at_start)


def problem(net: Net, items: list[Item], aliased: frozenset[str], costs: dict[Item, Cost]) -> Problem:
    """Returns the ordering problem of a set of items; `costs` gives each item's phases, plain and by input replaced."""
    places = storages(net.graph, aliased)
    runs = [item for item in items if not (item.kind == "whole" and item.sink in aliased)]
    made = {net.output(item): i for i, item in enumerate(runs)}
    writers: dict[str, int] = {}
    users: dict[str, int] = {}
    moves = []
    for i, item in enumerate(runs):
        reads, output = net.inputs(item), net.output(item)
        needs = 0
        for name in reads:
            for part in _parts(net, name, aliased):
                needs |= 1 << made[part] if part in made else 0
        plain, replacing = costs[item]
        roots = tuple(dict.fromkeys(places[name].root for name in reads))
        own_root = places[output].root == output and not isinstance(net.ops(item)[-1], Concat)
        stages = stages_of(net, item, places, plain)
        free = tuple(
            (name, stages_of(net, item, places, some))
            for name, some in replacing.items()
            if own_root and places[name].root == name
        )
        for root in (*roots, places[output].root):
            users[root] = users.get(root, 0) | 1 << i
        writers[places[output].root] = writers.get(places[output].root, 0) | 1 << i
        moves.append(Move(item, needs, roots, places[output].root, stages, free))
    sizes = {name: net.size(name) for name in users} | {name: net.size(name) for name in net.graph.inputs}
    kept = frozenset(places[name].root for name in net.graph.outputs)
    return Problem(tuple(moves), sizes, writers, users, kept, tuple(net.graph.inputs))


def stages_of(net: Net, item: Item, places: dict[str, Storage], phases: tuple[Phase, ...]) -> tuple[Stage, ...]:
    """Returns an item's phases in terms of buffers; an output among the channels of a concatenation lies apart from its sums."""
    output = net.output(item)
    apart = net.size(output) if places[output].root != output and item.kind == "accumulate" else 0
    found = []
    for phase in phases:
        kept = {places[name].root for name in (*phase.inputs, output)}
        gone = dict.fromkeys(places[name].root for name in net.inputs(item))
        found.append((tuple(root for root in gone if root not in kept), phase.begun, phase.extra + apart * phase.begun))
    return tuple(found)


def peak_of(stages: tuple[Stage, ...], live: int, fresh: int, dying: dict[str, int]) -> int:
    """Returns the most bytes alive while an item runs: `live` before it, `fresh` those of its output where that is new, `dying`
    those of each buffer that nobody reads later."""
    return max(live + fresh * begun + extra - sum(dying.get(name, 0) for name in gone) for gone, begun, extra in stages)


def _parts(net: Net, tensor: str, aliased: frozenset[str]) -> list[str]:
    """Returns the tensors that items write and that together make up `tensor`."""
    op = net.graph.ops[net.producer[tensor]] if tensor in net.producer else None
    if op is not None and op.name in aliased:
        return [part for name in op.inputs for part in _parts(net, name, aliased)]
    return [tensor]


def apply(given: Problem, move: int, done: int, live: int) -> tuple[int, int, str]:
    """Returns (bytes while a move runs, live bytes after, input whose place its output takes); `live` are those before it."""
    m = given.moves[move]
    new, dead = _changes(given, move, done)
    source, during = min(_ways(m, live, new, dead), key=lambda way: way[1])
    return during, live + new - sum(dead.values()), source


def _ways(m: Move, live: int, new: int, dead: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Yields (input whose place the output takes or none, most bytes alive) for each way to run a move."""
    yield "", peak_of(m.stages, live, new, dead)
    for name, stages in m.in_place if new else ():
        if name in dead and name != m.writes:
            yield name, peak_of(stages, live, 0, dead)


def _changes(given: Problem, move: int, done: int) -> tuple[int, dict[str, int]]:
    """Returns the bytes of a move's output where that is new after the moves of `done`, and of each buffer nobody uses later."""
    m, left = given.moves[move], ~(done | 1 << move)
    dead = {name: given.sizes[name] for name in (*m.reads, m.writes) if name not in given.kept and not given.users[name] & left}
    return 0 if given.writers[m.writes] & done else given.sizes[m.writes], dead


def states_for(count: int) -> int:
    """Returns how many sets of one size are kept for so many items."""
    return STATES if count <= MANY else max(50, STATES * MANY // (2 * count))


def best_order(given: Problem, bound: int) -> Order | None:
    """Returns the order with the least peak, or None where items wait for each other in a circle or all exceed `bound`.

    What a move changes depends only on the buffers it touches: it is computed once for each of their states.
    """
    limit, moves = states_for(len(given.moves)), given.moves
    level = {0: (given.start_bytes,) * 2}  # by moves run: peak, live bytes
    ready = {0: [i for i, move in enumerate(moves) if not move.needs]}
    came: dict[int, tuple[int, int, str]] = {}
    unlocked = [[k for k, move in enumerate(moves) if move.needs >> i & 1] for i in range(len(moves))]
    wide = [name for name, users in given.users.items() if users.bit_count() > FEW]
    near = [_near(given, wide, move) for move in moves]
    known: list[dict[int, tuple[int, int, str]]] = [{} for _ in moves]
    exact = True
    for _ in moves:
        following: dict[int, tuple[int, int]] = {}
        for done, (peak, live) in level.items():
            seen = _seen(given, wide, done)
            for i in ready[done]:
                state = seen & near[i]
                if state not in known[i]:
                    known[i][state] = apply(given, i, done, 0)
                during, change, source = known[i][state]
                worst, key = max(peak, live + during), done | 1 << i
                if worst <= bound and (key not in following or worst < following[key][0]):
                    following[key] = worst, live + change
                    came[key] = done, i, source
        exact &= len(following) <= limit
        kept = sorted(following, key=following.__getitem__)[:limit] if len(following) > limit else list(following)
        level = {key: following[key] for key in kept}
        ready = {key: _ready(moves, unlocked, ready[came[key][0]], key, came[key][1]) for key in kept}
    if not level:
        return None
    ((end, (peak, _)),) = level.items()
    return _traced(given, came, end, peak, exact)


def _seen(given: Problem, wide: list[str], done: int) -> int:
    """Returns the moves of `done` as bits, and above them two for each buffer of `wide`: begun, and only one user left."""
    for k, name in enumerate(wide):
        begun, last = given.writers.get(name, 0) & done != 0, (given.users[name] & ~done).bit_count() == 1
        done |= (begun | last << 1) << len(given.moves) + 2 * k
    return done


def _near(given: Problem, wide: list[str], move: Move) -> int:
    """Returns the bits of `_seen` that a move depends on: the users of its buffers, for those of `wide` their two bits."""
    found = 0
    for name in (*move.reads, move.writes):
        found |= 3 << len(given.moves) + 2 * wide.index(name) if name in wide else given.users[name]
    return found


def _ready(moves: tuple[Move, ...], unlocked: list[list[int]], before: list[int], done: int, last: int) -> list[int]:
    """Returns the moves that can follow those of `done`, of which `last` was one of `before`, those that could run then."""
    return sorted([i for i in before if i != last] + [k for k in unlocked[last] if not moves[k].needs & ~done])


def orders_below(given: Problem, most: list[int]) -> Iterator[Order]:
    """Yields every order, with every choice of outputs in place, whose peak is below most[0], which may fall meanwhile."""
    yield from _go_on(given, most, 0, given.start_bytes, (), {}, 0)


def _go_on(
    given: Problem, most: list[int], done: int, live: int, ran: tuple[Item, ...], in_place: dict[str, str], peak: int
) -> Iterator[Order]:
    if len(ran) == len(given.moves):
        yield Order(ran, in_place, peak, True)
    for i, move in enumerate(given.moves):
        if done >> i & 1 or move.needs & ~done:
            continue
        new, dead = _changes(given, i, done)
        after = live + new - sum(dead.values())
        for source, during in _ways(move, live, new, dead):
            if max(peak, during) < most[0]:
                places = in_place | ({move.writes: source} if source else {})
                yield from _go_on(given, most, done | 1 << i, after, (*ran, move.item), places, max(peak, during))


def _traced(given: Problem, came: dict[int, tuple[int, int, str]], end: int, peak: int, exact: bool) -> Order:
    items, in_place = [], {}
    while end:
        end, i, source = came[end]
        items.append(given.moves[i].item)
        if source:
            in_place[given.moves[i].writes] = source
    return Order(tuple(reversed(items)), in_place, peak, exact)


def around(net: Net, aliased: frozenset[str], given: Problem, order: Order) -> dict[Item, Around]:
    """Returns for each item what is alive around it."""
    places = {move.item: i for i, move in enumerate(given.moves)}
    live, done, found = given.start_bytes, 0, {}
    for item in order.items:
        i = places[item]
        _, after, source = apply(given, i, done, live)
        new, dead = _changes(given, i, done)
        found[item] = Around(net, storages(net.graph, aliased), live, 0 if source else new, dead)
        live, done = after, done | 1 << i
    return found


def given_order(given: Problem) -> Order:
    """Returns the order in which the moves are listed, with outputs in place where an input dies."""
    live = peak = given.start_bytes
    done, in_place = 0, {}
    for i, move in enumerate(given.moves):
        during, live, source = apply(given, i, done, live)
        done |= 1 << i
        peak = max(peak, during)
        if source:
            in_place[move.writes] = source
    return Order(tuple(move.item for move in given.moves), in_place, peak, True)
