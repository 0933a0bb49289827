"""The networks of labs 2 and 3, and what a schedule in parts of lab 3's needs: the library's planner judges it."""

import functools
from typing import Any

from tinyredux import graph, partial
from tinyredux.course.given import SHAPES, STEPS
from tinyredux.memory import Item
from tinyredux.partial import Net


def small_net() -> Net:
    """Returns the network of lab 3, without weights: bytes depend on shapes alone."""
    tensors = {name: graph.Tensor(name, shape, "int8") for name, shape in SHAPES.items()}
    more: dict[str, Any] = {"filter": {"padding": (1, 1, 1, 1)}}
    ops = [
        getattr(graph, step["kind"])(**{key: value for key, value in step.items() if key != "kind"}, **more.get(step["name"], {}))
        for step in STEPS
    ]
    return Net(graph.Graph("lab3", tuple(ops), tensors, {}, ("input",), ("classes",)))


def bottlenecks(count: int) -> graph.Graph:
    """Returns so many inverted bottlenecks, one after the other, without weights: each adds its input to what comes out."""
    tensors, ops = {"input": graph.Tensor("input", (16, 16, 8), "int8")}, list[graph.Op]()
    before = "input"
    for i in range(1, count + 1):
        wide, deep, narrow, both = (f"{name}{i}" for name in ("wide", "deep", "narrow", "sum"))
        shapes = {wide: (16, 16, 24 + 8 * i), deep: (16, 16, 24 + 8 * i), narrow: (16, 16, 8), both: (16, 16, 8)}
        tensors |= {name: graph.Tensor(name, shape, "int8") for name, shape in shapes.items()}
        ops += [
            graph.Conv(f"expand{i}", (before,), wide),
            graph.DepthwiseConv(f"filter{i}", (wide,), deep, kernel=(3, 3), padding=(1, 1, 1, 1)),
            graph.Conv(f"project{i}", (deep,), narrow), graph.Add(f"add{i}", (narrow, before), both),
        ]  # fmt: skip
        before = both
    return graph.Graph("bottlenecks", tuple(ops), tensors, {}, ("input",), (before,))


@functools.cache
def optimum_bytes() -> int:
    """Returns the least peak of live bytes of all schedules of lab 3's network."""
    return partial.plan_partial(small_net().graph).channel_bound_bytes


def live_bytes(found: Any) -> list[int]:
    """Returns the most bytes alive in each item of a schedule: a list of operators' names, joined by + where they run in slices.

    Raises ValueError saying what is wrong with it.
    """
    net, items = small_net(), []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"expected a list such as ['expand', 'filter+project', ...], found {found!r}")
    ways: dict[frozenset[str], Item] = {}
    for item in sorted(partial.candidates(net), key=lambda item: -partial.internal_bytes(net, item)):
        ways[frozenset(item.ops)] = item  # of several ways to run the same operators the one with the fewest bytes is left
    for text in found:
        names = [name.strip() for name in text.split("+")]
        if unknown := [name for name in names if name not in net.index]:
            raise ValueError(f"there is no operator {unknown[0]!r}; there are {', '.join(net.index)}")
        if frozenset(names) not in ways:
            raise ValueError(f"{text} cannot run in slices of channels: some operator in it needs all channels of the one before")
        items.append(ways[frozenset(names)])
    run = [name for item in items for name in item.ops]
    if sorted(run) != sorted(net.index):
        raise ValueError(f"each operator has to run once, found {', '.join(run)}")
    done: set[str] = {"input"}
    for item in items:
        if missing := [name for name in net.inputs(item) if name not in done]:
            raise ValueError(f"{'+'.join(item.ops)} reads {missing[0]}, which nothing has written yet")
        done.add(net.output(item))
    costs = {item: partial.item_costs(net, item) for item in items}
    return [run.during for _, _, run in partial.replayed(partial.problem(net, items, frozenset(), costs), range(len(items)))]
