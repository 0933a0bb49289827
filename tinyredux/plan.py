"""The memory plan of a network without building anything: its numbers as JSON, and a timeline for terminals."""

from __future__ import annotations

from typing import Any

from tinyredux import datasets, memory, nets
from tinyredux.export import export
from tinyredux.flow import CALIBRATION_IMAGES
from tinyredux.graph import Graph, total_macs
from tinyredux.part_costs import executed_macs
from tinyredux.passes.partial import SLOWDOWN, item_bytes, plan_hybrid, plan_partial
from tinyredux.passes.quantize import quantize
from tinyredux.schedule import ACCUMULATOR_BYTES, Item

BAR = 40
METHODS = ("exact", "partial")


def int8_graph(net: str, data: str | None = None, seed: int = 0) -> Graph:
    """Returns the int8 graph of a built-in network or of `path/to/file.py:factory`."""
    images, module = nets.with_data(net, data, seed)
    return quantize(export(module, nets.short_name(net)), datasets.calibration(images, None, CALIBRATION_IMAGES))


def plan(
    graph: Graph, net: str, method: str = "partial", accumulator: str = "int32", budget_bytes: int | None = None,
    mac_limit: float = 1.0, input_outside: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Returns the plan as the contract's JSON object, with `budget_bytes` and `fits` where a budget is given.

    With a `mac_limit` above 1 or `input_outside` it is a hybrid plan; `beside_input_bytes` is then what the arena holds apart
    from the network's input, which is how memory tables with the input outside the arena count.

    Raises ValueError for a method or accumulator that does not exist, naming those that do.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if accumulator not in ACCUMULATOR_BYTES:
        raise ValueError(f"accumulator is {accumulator!r}, expected one of {', '.join(ACCUMULATOR_BYTES)}")
    if mac_limit != 1 or input_outside:
        found = plan_hybrid(graph, mac_limit, accumulator, input_outside)
    else:
        found = plan_partial(graph, accumulator, budget_bytes or 0, SLOWDOWN)
    answer: dict[str, Any] = {
        "schema": 1,
        "net": net,
        "peak_bytes": found.peaks,
        "accumulator": accumulator,
        "least_bytes": found.least_bytes,
    }
    if method == "exact":
        whole = memory.plan(graph)
        answer |= {
            "macs_factor": 1.0, "placement_bytes": whole.total_bytes, "lower_bound_bytes": whole.lower_bound_bytes,
            "optimal": whole.optimal, "regions": [], "steps": [{"op": s.op, "live_bytes": s.live_bytes} for s in whole.steps],
        }  # fmt: skip
    else:
        factor = executed_macs(graph, found.program.steps()) / max(1, total_macs(graph))
        answer |= {
            "macs_factor": round(factor, 4),
            "placement_bytes": found.arena.size_bytes, "lower_bound_bytes": found.lower_bound_bytes, "optimal": found.optimal,
            "regions": [region(graph, item) for item in found.program.schedule.items if item.kind != "whole"],
            "steps": [{"op": name, "live_bytes": live} for name, live in item_bytes(found.program)],
        }  # fmt: skip
    if input_outside:
        answer |= {"input_bytes": graph.input.size_bytes}
        answer |= {"beside_input_bytes": answer["placement_bytes"] - graph.input.size_bytes}
    if budget_bytes is not None:
        answer |= {"budget_bytes": budget_bytes, "fits": answer["placement_bytes"] <= budget_bytes}
    return answer


def region(graph: Graph, item: Item) -> dict[str, Any]:
    """Returns a region of the contract: its operators, whether it runs in slices or patches, how many and how wide."""
    base = item.inner[0] if item.kind == "spatial" else item
    sink = next(op for op in graph.ops if op.name == base.sink)
    channels = graph.tensors[sink.inputs[0] if base.kind == "accumulate" else sink.output].shape[2]
    width = min(base.width, channels) or channels
    height, columns, _ = graph.tensors[next(op.output for op in graph.ops if op.name == item.sink)].shape
    patches = 1
    if item.kind == "spatial":
        rows, across = item.patch[0] or height, item.patch[1] or columns
        patches = -(-height // rows) * -(-columns // across)
    return {
        "ops": list(item.ops), "kind": "spatial" if item.kind == "spatial" else "channel",
        "parts": patches * -(-channels // width), "slice_channels": width,
    }  # fmt: skip


def timeline(answer: dict[str, Any]) -> str:
    """Returns the plan for a terminal: one bar of live bytes for each step, and what it is compared with."""
    most = max(step["live_bytes"] for step in answer["steps"])
    names = [step["op"] if len(step["op"]) <= BAR else step["op"][: BAR - 3] + "..." for step in answer["steps"]]
    width = max(map(len, names))
    lines = [
        f"{name:{width}}  {'#' * max(1, round(BAR * step['live_bytes'] / most)):{BAR}}  {step['live_bytes']:>9,}"
        for name, step in zip(names, answer["steps"], strict=True)
    ]
    peaks = ", ".join(f"{kind} {count:,}" for kind, count in answer["peak_bytes"].items())
    proven = "no schedule of this kind needs less" if answer["optimal"] else f"lower bound {answer['lower_bound_bytes']:,}"
    lines += [
        "",
        f"peak bytes: {peaks}",
        f"placed in {answer['placement_bytes']:,} bytes ({proven}), MACs x {answer['macs_factor']}",
    ]
    if "beside_input_bytes" in answer:
        beside, own = answer["beside_input_bytes"], answer["input_bytes"]
        lines.append(f"of these {beside:,} beside the network's input of {own:,}, which lies apart")
    if "fits" in answer:
        lines.append(f"budget {answer['budget_bytes']:,} bytes: {'fits' if answer['fits'] else 'does not fit'}")
    return "\n".join(lines)
