"""The network of lab 2's last cell."""

from tinyredux import graph


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
