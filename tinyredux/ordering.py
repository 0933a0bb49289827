"""In which order to run items so that the largest sum of live bytes is least: dynamic programming over sets of items run.

Exact while no more than `states_for` sets of one size are met, on up to 12 items always; beyond that the best of them are
kept (a beam).
Source: the recursion of Liberis and Lane, arXiv 1910.05110, run forwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyredux.graph import Concat
from tinyredux.regions import Net, bits
from tinyredux.schedule import Item, storages

STATES = 1500  # sets of one size; 12 items have at most 924
MANY = 32  # items from which on fewer sets are kept, so that large graphs take seconds
State = tuple[int, int, frozenset[str], int]  # peak, live bytes, buffers alive, items ready to run


@dataclass(frozen=True)
class Move:
    """An item as the order sees it: items before it, buffers it touches, bytes while it runs, buffers it may replace."""

    item: Item
    needs: int
    reads: tuple[str, ...]
    writes: str
    extra: int
    in_place: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Order:
    """The items in order, outputs in place of an input, the peak of live bytes, and whether no order has a lower one."""

    items: tuple[Item, ...]
    in_place: dict[str, str]
    live_bytes: int
    exact: bool


@dataclass(frozen=True)
class Problem:
    """Moves and buffers: bytes of each, which moves write and read it, and which are kept to the end."""

    moves: tuple[Move, ...]
    sizes: dict[str, int]
    users: dict[str, int]
    kept: frozenset[str]
    at_start: tuple[str, ...]


def problem(net: Net, items: list[Item], aliased: frozenset[str], costs: dict[Item, tuple[int, dict[str, int]]]) -> Problem:
    """Returns the ordering problem of a set of items; `costs` gives each item's internal bytes, plain and by input replaced."""
    places = storages(net.graph, aliased)
    runs = [item for item in items if not (item.kind == "whole" and item.sink in aliased)]
    made = {net.output(item): i for i, item in enumerate(runs)}
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
        free = tuple((name, extra) for name, extra in replacing.items() if own_root and places[name].root == name)
        for root in (*roots, places[output].root):
            users[root] = users.get(root, 0) | 1 << i
        if places[output].root != output and item.kind == "accumulate":
            plain += net.size(output)
        moves.append(Move(item, needs, roots, places[output].root, plain, free))
    sizes = {name: net.size(name) for name in users} | {name: net.size(name) for name in net.graph.inputs}
    kept = frozenset(places[name].root for name in net.graph.outputs)
    return Problem(tuple(moves), sizes, users, kept, tuple(net.graph.inputs))


def _parts(net: Net, tensor: str, aliased: frozenset[str]) -> list[str]:
    """Returns the tensors that items write and that together make up `tensor`."""
    op = net.graph.ops[net.producer[tensor]] if tensor in net.producer else None
    if op is not None and op.name in aliased:
        return [part for name in op.inputs for part in _parts(net, name, aliased)]
    return [tensor]


def apply(given: Problem, move: int, done: int, live: int, alive: frozenset[str]) -> tuple[int, int, frozenset[str], str]:
    """Returns (bytes while a move runs, live bytes after, buffers alive after, input whose place its output takes)."""
    m = given.moves[move]
    done |= 1 << move
    new = 0 if m.writes in alive else given.sizes[m.writes]
    dead = [name for name in (*m.reads, m.writes) if name not in given.kept and not given.users[name] & ~done]
    dead = [name for name in dict.fromkeys(dead) if name in alive or name == m.writes]
    during, source = live + new + m.extra, ""
    for name, extra in m.in_place:
        if new and name in dead and name != m.writes and live + extra < during:
            during, source = live + extra, name
    after = live + new - sum(given.sizes[name] for name in dead)
    return during, after, (alive | {m.writes}) - frozenset(dead), source


def states_for(count: int) -> int:
    """Returns how many sets of one size are kept for so many items."""
    return STATES if count <= MANY else max(50, STATES * MANY // (2 * count))


def best_order(given: Problem, bound: int) -> Order | None:
    """Returns the order with the least peak, or None where items wait for each other in a circle or all exceed `bound`."""
    limit = states_for(len(given.moves))
    start = frozenset(given.at_start)
    live = sum(given.sizes[name] for name in start)
    first = sum(1 << i for i, move in enumerate(given.moves) if not move.needs)
    level: dict[int, State] = {0: (live, live, start, first)}
    came: dict[int, tuple[int, int, str]] = {}
    unlocked = [[k for k, move in enumerate(given.moves) if move.needs >> i & 1] for i in range(len(given.moves))]
    exact = True
    for _ in given.moves:
        following: dict[int, State] = {}
        for done, (peak, live, alive, ready) in level.items():
            for i in bits(ready):
                during, after, left, source = apply(given, i, done, live, alive)
                worst, key = max(peak, during), done | 1 << i
                if worst <= bound and (key not in following or worst < following[key][0]):
                    more = sum(1 << k for k in unlocked[i] if not given.moves[k].needs & ~key)
                    following[key] = (worst, after, left, ready & ~(1 << i) | more)
                    came[key] = (done, i, source)
        if len(following) > limit:
            exact = False
            following = dict(sorted(following.items(), key=lambda pair: pair[1][:2])[:limit])
        level = following
    if not level:
        return None
    ((end, (peak, *_)),) = level.items()
    return _traced(given, came, end, peak, exact)


def _traced(given: Problem, came: dict[int, tuple[int, int, str]], end: int, peak: int, exact: bool) -> Order:
    items, in_place = [], {}
    while end:
        end, i, source = came[end]
        items.append(given.moves[i].item)
        if source:
            in_place[given.moves[i].writes] = source
    return Order(tuple(reversed(items)), in_place, peak, exact)


def beside(given: Problem, order: Order) -> dict[Item, int]:
    """Returns for each item the bytes that are alive beside what the item itself needs inside."""
    places = {move.item: i for i, move in enumerate(given.moves)}
    alive = frozenset(given.at_start)
    live, done, found = sum(given.sizes[name] for name in alive), 0, {}
    for item in order.items:
        i = places[item]
        move = given.moves[i]
        during, live, alive, source = apply(given, i, done, live, alive)
        done |= 1 << i
        found[item] = during - dict(move.in_place).get(source, move.extra)
    return found


def given_order(given: Problem) -> Order:
    """Returns the order in which the moves are listed, with outputs in place where an input dies."""
    alive = frozenset(given.at_start)
    live = peak = sum(given.sizes[name] for name in alive)
    done, in_place = 0, {}
    for i, move in enumerate(given.moves):
        during, live, alive, source = apply(given, i, done, live, alive)
        done |= 1 << i
        peak = max(peak, during)
        if source:
            in_place[move.writes] = source
    return Order(tuple(move.item for move in given.moves), in_place, peak, True)
