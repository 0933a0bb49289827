"""The memory plan of a network without building anything: its numbers as JSON, and a timeline for terminals."""

import itertools
from functools import partial
from typing import Any

from tinyredux import memory
from tinyredux.files import expect
from tinyredux.graph import Graph, total_macs
from tinyredux.kernels import STALLED, cycles
from tinyredux.memory import Arena, Item, Program, blocks_of, executed_macs, live_bytes, moments
from tinyredux.methods.partial import Partial, what_fits
from tinyredux.partial import SLOWDOWN, PartialPlan, plan_hybrid, plan_partial
from tinyredux.settings import Settings, network

BAR = 60  # characters of the arena's map
PRICE = partial(cycles, core=STALLED)  # a plan is the same on every board
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
METHODS = ("exact", "partial")


def int8_graph(net: str, data: str | None = None, seed: int = 0, rounding: str | None = None) -> Graph:
    """Returns the int8 graph of a built-in network, of `path/to/file.py:factory` or of `path/to/model.tflite`."""
    return network(Settings(net, data=data, seed=seed, rounding=rounding)).int8


def plan(
    graph: Graph, net: str, method: str = "partial", accumulator: str = "int32", budget_bytes: int | None = None,
    mac_limit: float = 1.0, input_outside: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Returns the plan as the contract's JSON object, with `budget_bytes` and `fits` where a budget is given.

    With a `mac_limit` above 1 or `input_outside` it is a hybrid plan; `beside_input_bytes` is then what the arena holds apart
    from the network's input, which is how memory tables with the input outside the arena count. `lower_bound_bytes` holds for
    every schedule of the plan's kind, `channel_bound_bytes` for those that compute nothing twice; `least_is_proven`: the least
    plan in parts reaches that one.

    Raises ValueError for a method or accumulator that does not exist, naming those that do.
    """
    expect(Graph, graph, "what to plan", "such as int8_graph('lenet')")
    if budget_bytes is not None:
        expect(int, budget_bytes, "sram", "in bytes")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if budget_bytes is not None and budget_bytes < 0:
        raise ValueError(f"sram is {budget_bytes} bytes, expected 0 or more")
    Partial(None, accumulator, mac_limit, input_outside)  # which checks what it is given
    found, whole = plan_in_parts(graph, accumulator, budget_bytes or 0, mac_limit, input_outside), memory.plan(graph)
    exact, layerwise = method == "exact", layerwise_steps(graph, whole)
    best = whole if exact else found
    factor = 1.0 if exact else executed_macs(graph, found.program.steps()) / max(1, total_macs(graph))
    items = [] if exact else [item for item in found.program.schedule.items if item.kind != "whole"]
    answer: dict[str, Any] = {
        "schema": 1, "net": net, "peak_bytes": found.peaks, "accumulator": accumulator, "least_bytes": found.least_bytes,
        "channel_bound_bytes": found.channel_bound_bytes, "least_is_proven": found.least_bytes <= found.channel_bound_bytes,
        "layerwise": layerwise, "macs_factor": round(factor, 4),
        "placement_bytes": whole.total_bytes if exact else found.peak_bytes,
        "lower_bound_bytes": best.lower_bound_bytes, "optimal": best.optimal, "regions": [region(graph, item) for item in items],
        "steps": layerwise if exact else program_steps(found.program, found.arena),
    }  # fmt: skip
    if input_outside:
        answer |= {"input_bytes": graph.input.size_bytes}
        answer |= {"beside_input_bytes": answer["placement_bytes"] - graph.input.size_bytes}
    if budget_bytes is not None:
        answer |= {"budget_bytes": budget_bytes, "fits": answer["placement_bytes"] <= budget_bytes}
        answer |= {} if answer["fits"] else {"advice": what_fits(graph, budget_bytes)}
    return answer


def plan_in_parts(
    graph: Graph, accumulator: str = "int32", budget_bytes: int = 0, mac_limit: float = 1.0, input_outside: bool = False
) -> PartialPlan:
    """Returns the plan for reference kernels: hybrid with a `mac_limit` above 1 or `input_outside`, else in slices."""
    if mac_limit != 1 or input_outside:
        return plan_hybrid(graph, mac_limit, accumulator, input_outside, PRICE)
    return plan_partial(graph, accumulator, budget_bytes, SLOWDOWN, PRICE)


def layerwise_steps(graph: Graph, plan: memory.MemoryPlan) -> list[dict[str, Any]]:
    """Returns for each operator what is alive while it runs: {"op", "live_bytes", "buffers": {name: [offset, bytes]}}."""
    spans, found = memory.lifetimes(graph), []
    for i, step in enumerate(plan.steps):
        alive = [name for name, (first, last) in spans.items() if first <= i <= last]
        buffers = {name: [plan.offsets[name], graph.tensors[name].size_bytes] for name in alive}
        buffers |= {f"{step.op}:scratch": list(plan.scratch[step.op])} if step.op in plan.scratch else {}
        found.append({"op": step.op, "live_bytes": step.live_bytes, "buffers": buffers})
    return found


def program_steps(program: Program, arena: Arena) -> list[dict[str, Any]]:
    """Returns the same for each item of a placed program, at the moment of the item at which most bytes are alive."""
    live, found, clock = live_bytes(blocks_of(program.buffers, program.ties)), [], 0
    for item, nodes in zip(program.schedule.items, program.nodes, strict=True):
        end = clock + moments(nodes)
        if end > clock:
            at = max(range(clock, end), key=lambda moment: live[moment])
            alive = [name for name, buffer in program.buffers.items() if buffer.first <= at <= buffer.last]
            buffers = {name: [arena.offsets[name], program.buffers[name].size_bytes] for name in alive}
            found.append({"op": "+".join(item.ops), "live_bytes": live[at], "buffers": buffers})
        clock = end
    return found


def region(graph: Graph, item: Item) -> dict[str, Any]:
    """Returns a region of the contract: its operators, whether it runs in slices or patches, how many and how wide."""
    base = item.inner[0] if item.kind == "spatial" else item
    ops = graph.by_name
    sink = ops[base.sink]
    channels = graph.tensors[sink.inputs[0] if base.kind == "accumulate" else sink.output].shape[2]
    width = min(base.width, channels) or channels
    height, columns, _ = graph.tensors[ops[item.sink].output].shape
    patches, in_rows = 1, item.kind in ("spatial", "rolling")
    if in_rows:
        rows, across = item.patch[0] or height, item.patch[1] or columns
        patches = -(-height // rows) * -(-columns // across)
    return {
        "ops": list(item.ops), "kind": "spatial" if in_rows else "channel",
        "parts": patches * -(-channels // width), "slice_channels": width,
    }  # fmt: skip


def timeline(answer: dict[str, Any]) -> str:
    """Returns the plan for a terminal: maps of the arena layer by layer and in parts, to one scale, and the peaks.

    A row is a step; its letters are the buffers alive then, from address 0 on the left, `.` a free byte's place, at the end
    the live bytes. Below each map the letters' names and bytes.
    """
    scale = max(offset + size for kind in ("layerwise", "steps") for s in answer[kind] for offset, size in s["buffers"].values())
    lines = ["layer by layer:", *_map(answer["layerwise"], scale)]
    if answer["steps"] != answer["layerwise"]:
        lines += ["", "in parts:", *_map(answer["steps"], scale)]
    peaks = ", ".join(f"{kind} {count:,}" for kind, count in answer["peak_bytes"].items())
    proven = "no schedule of this kind needs less" if answer["optimal"] else f"lower bound {answer['lower_bound_bytes']:,}"
    lines += ["", f"peak bytes: {peaks}"]
    lines.append(f"placed in {answer['placement_bytes']:,} bytes ({proven}), MACs x {answer['macs_factor']}")
    apart = "beside_input_bytes" in answer  # then the least plan, whose input is not, compares with nothing
    if answer["steps"] != answer["layerwise"] and answer["least_bytes"] < answer["placement_bytes"] and not apart:
        lines.append(f"more bytes for fewer cycles: the least is {answer['least_bytes']:,}, ask for it with --sram")
    if apart:
        beside, own = answer["beside_input_bytes"], answer["input_bytes"]
        lines.append(f"of these {beside:,} beside the network's input of {own:,}, which lies apart")
    if "fits" in answer:
        fits = "fits" if answer["fits"] else f"does not fit; {answer['advice']}"
        lines.append(f"budget {answer['budget_bytes']:,} bytes: {fits}")
    return "\n".join(lines)


def _map(steps: list[dict[str, Any]], scale: int) -> list[str]:
    """Returns a row for each step and a row of names and bytes for each three buffers; `scale` bytes are the full width."""
    sizes = {name: size for step in steps for name, (_, size) in step["buffers"].items()}
    letters = dict(zip(sizes, itertools.cycle(LETTERS), strict=False))
    names = [step["op"] if len(step["op"]) <= BAR else step["op"][: BAR - 3] + "..." for step in steps]
    width, lines = max(map(len, names)), []
    for name, step in zip(names, steps, strict=True):
        row = ["."] * BAR
        for buffer, (offset, size) in sorted(step["buffers"].items(), key=lambda pair: -pair[1][1]):
            first = min(BAR - 1, offset * BAR // scale)
            last = max(first + 1, round((offset + size) * BAR / scale))
            row[first:last] = letters[buffer] * (min(last, BAR) - first)
        lines.append(f"{name:{width}}  {''.join(row)}  {step['live_bytes']:>9,}")
    said = [f"{letters[name]} {name} {size:,}" for name, size in sizes.items()]
    return [*lines, *(f"  {'; '.join(said[i : i + 3])}" for i in range(0, len(said), 3))]
