"""A placed Program -> C: a loop for each run of equal parts, one kernel call for each step in it.

Calls of a loop differ from part to part in addresses only, and these grow evenly; so a loop is found by comparing its
parts, never assumed. The weights of operators that run in slices are stored slice by slice, in the order of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyredux.codegen.artifact import Artifact, artifact, c_struct, check_name, details, head
from tinyredux.codegen.calls import TAKES_SCRATCH, Address, Call, Fields, Weights, calls_of
from tinyredux.codegen.check import check_call
from tinyredux.codegen.fast import FORM_MACROS, described_form, form_call, functions, prototypes, sources
from tinyredux.graph import Conv, Graph, Op, Softmax, Weighted, macs
from tinyredux.kernels import FastSteps, Form, scheduled
from tinyredux.memory import (
    Arena,
    Blob,
    Item,
    Loop,
    Node,
    Program,
    Step,
    View,
    executed_macs,
    in_lines,
    is_elementwise,
    row_by_row,
    tensors_end,
    verify,
    window_rows,
)

MACROS = """#define AT(offset) (tr_arena + (offset))
#define SUMS32(offset) ((int32_t *)(void *)(tr_arena + (offset)))
#define SUMS16(offset) ((int16_t *)(void *)(tr_arena + (offset)))
"""


Declared = tuple[str, Fields, str]  # struct type, its fields, the assertion before it


@dataclass(frozen=True)
class Block:
    """A `for` loop around calls and other loops."""

    variable: str
    count: int
    body: tuple[Call | Block, ...]

    def shape(self) -> tuple[Any, ...]:
        """Returns what loops must share to be one loop in another."""
        return self.variable, self.count, [node.shape() for node in self.body]

    def addresses(self) -> tuple[Address, ...]:
        """Returns the addresses of all calls in it."""
        return tuple(address for node in self.body for address in node.addresses())

    def moved(self, addresses: Sequence[Address]) -> Block:
        """Returns this loop with other addresses in its calls."""
        body, at = [], 0
        for node in self.body:
            count = len(node.addresses())
            body.append(node.moved(addresses[at : at + count]))
            at += count
        return replace(self, body=tuple(body))


def emit_partial(program: Program, arena: Arena, call: str) -> Artifact:
    """Returns the Artifact of a placed program, all by reference kernels. Raises ValueError where `verify` finds it wrong."""
    return emit_steps(FastSteps(program, arena), call)


def emit_steps(fast: FastSteps, call: str) -> Artifact:
    """Returns the Artifact of a placed program: each step by its form, as a row convolution or by its reference kernel. Equal
    input gives equal bytes; `call` is how to make it again. Raises ValueError where `verify` finds the plan wrong."""
    program, arena = fast.program, fast.arena
    check_name(program.graph.name)
    verify(program, arena)
    graph, weights, structs = program.graph, Weights(fast), dict[Declared, str]()
    items = list(zip(program.schedule.items, program.nodes, statements(fast, weights, structs), strict=True))
    bodies = [
        "\n".join((f"    /* {_title(fast, weights.blob, item, nodes)} */", f"    tr_mark({index});", *lines))
        for index, (item, nodes, lines) in enumerate(items)
    ]
    declarations = "".join(check + c_struct(kind, name, dict(fields)) for (kind, fields, check), name in structs.items())
    described = [_described_item(fast, item, nodes) for item, nodes, _ in items]
    codes = [scheduled(code, fast.core) for code in fast.codes()]
    codes += functions({step.op: form for step, form in fast.forms.items()})
    files = sources(codes, head(graph, call, "The kernels")) if codes else {}
    ends = {name: arena.offsets[name] for name in (graph.inputs[0], graph.outputs[0])}
    macros, tensors = MACROS + FORM_MACROS * bool(fast.forms), tensors_end(program, arena)
    sizes = tensors, arena.size_bytes - tensors
    return artifact(
        graph, described, weights.blob, prototypes(codes) + declarations, "\n".join(bodies), ends, sizes, call, macros, files
    )


def statements(fast: FastSteps, weights: Weights, structs: dict[Declared, str]) -> list[list[str]]:
    """Returns the lines of C that compute each item; `structs` gets the parameters that they name."""
    return [
        [_by_form(fast, weights, *by_form)]
        if (by_form := fast.form_of(nodes))
        else [line for node in _nodes(fast, weights, nodes, 0) for line in lines_of(node, structs, "    ")]
        for nodes in fast.program.nodes
    ]


def _described_item(fast: FastSteps, item: Item, nodes: tuple[Node, ...]) -> dict[str, Any]:
    graph, by_form = fast.program.graph, fast.form_of(nodes)
    at_once = item.kind == "whole" and not any(step in fast.convs for step in Loop((nodes,)).steps())
    return {
        "name": "+".join(item.ops), "kind": _kind(graph, item), "module": graph.origin.get(item.sink, "") if at_once else "",
        "macs": sum(macs(graph, op) for op in _ops(graph, item)),
        "macs_executed": executed_macs(graph, Loop((nodes,)).steps()),
        **(described_form(by_form[1] if by_form else None) if at_once else {}),
    }  # fmt: skip


def _by_form(fast: FastSteps, weights: Weights, step: Step, form: Form) -> str:
    """Returns the statements of a step that is computed by a form."""
    op, at = next(op for op in fast.program.graph.ops if op.name == step.op), fast.arena.offsets
    offsets = {view.tensor: at[view.buffer] + view.offset for view in (*step.inputs, step.output)}
    scratch = {op.name: (at[step.scratch], form.scratch_bytes)} if step.scratch else {}
    return form_call(offsets, scratch, weights.blob, op, form)


def _ops(graph: Graph, item: Item) -> list[Op]:
    return [op for op in graph.ops if op.name in item.ops]


def _kind(graph: Graph, item: Item) -> str:
    return type(_ops(graph, item)[-1]).__name__ if item.kind == "whole" else item.kind


def _title(fast: FastSteps, blob: Blob, item: Item, nodes: tuple[Node, ...]) -> str:
    """Returns the comment above an item: operators and shapes; in which parts they run, or the bytes of one that runs at once."""
    graph = fast.program.graph
    if item.kind != "whole":
        shapes = [f"{op.name}: {type(op).__name__} -> {_shape(graph, op.output)}" for op in _ops(graph, item)]
        return "\n     * ".join([", ".join(shapes), *describe(graph, item)])
    (op,) = _ops(graph, item)
    sides = " + ".join(_shape(graph, name) for name in op.inputs)
    lines, steps = (
        [f"{op.name}: {type(op).__name__} {sides} -> {_shape(graph, op.output)}{details(op)}"],
        list(Loop((nodes,)).steps()),
    )
    if steps:
        reads = ", ".join(f"{view.tensor} {_range(fast.arena, view)}" for step in steps for view in step.inputs)
        lines.append(f"arena: reads {reads}; writes {op.output} {_range(fast.arena, *(step.output for step in steps))}")
        if scratch := steps[0].scratch:
            start = fast.arena.offsets[scratch]
            lines[-1] += f"; scratch {start}..{start + fast.program.buffers[scratch].size_bytes}"
    named = {"weights": op.weights, "bias": op.bias} if isinstance(op, Weighted) else {}
    if named.get("weights") not in blob.entries:
        named = {name.removeprefix(f"{op.name}."): name for name in blob.entries if name.startswith(f"{op.name}.")}
    entries = {key: blob.entries[name] for key, name in named.items()}
    where = ", ".join(f"{key} {entry.offset}..{entry.offset + entry.size_bytes}" for key, entry in entries.items())
    return "\n     * ".join([*lines, *([f"weights.bin: {where}"] if where else [])])


def _shape(graph: Graph, tensor: str) -> str:
    return "x".join(map(str, graph.tensors[tensor].shape))


def _range(arena: Arena, *views: View) -> str:
    """Returns from the first to the end of the last byte of views."""
    starts = [arena.offsets[view.buffer] + view.offset for view in views]
    ends = [start + view.span_bytes for start, view in zip(starts, views, strict=True)]
    return f"{min(starts)}..{max(ends)}"


def describe(graph: Graph, item: Item) -> list[str]:
    """Returns lines that say in which parts an item runs; none for a whole operator."""
    ops = {op.name: op for op in graph.ops}
    height, width, channels = graph.tensors[ops[item.sink].output].shape
    match item.kind:
        case "spatial":
            inner = [f"  {line}" for part in item.inner for line in describe(graph, part) or [f"{part.sink}, whole"]]
            return [f"in patches of {item.patch[0] or height} rows and {item.patch[1] or width} columns of {item.sink}:", *inner]
        case "materialise":
            return [f"{item.sink} in slices of {min(item.width, channels)} of {channels} channels"]
        case "accumulate":
            total = graph.tensors[ops[item.sink].inputs[0]].shape[2]
            return [f"{item.sink} adds up slices of {min(item.width, total)} of {total} input channels"]
    return []


def _nodes(fast: FastSteps, weights: Weights, nodes: Sequence[Step | Loop], depth: int) -> list[Call | Block]:
    """Returns calls and loops for steps and loops of parts."""
    found: list[Call | Block] = []
    for node in nodes:
        if isinstance(node, Step):
            op = next(op for op in fast.program.graph.ops if op.name == node.op)
            found += _rolled([_checked(fast, weights, line) for line in _lines(fast.program.graph, op, node)], "ijkmn"[depth])
        else:
            parts = [_nodes(fast, weights, part, depth + 1) for part in node.parts]
            found += _rolled(parts, "ijkmn"[depth])
    return found


def _lines(graph: Graph, op: Op, step: Step) -> list[Step]:
    """Returns a step as steps that its kernel can do: where there are gaps that it does not know, one for each row."""
    if step.kind == "copy" or is_elementwise(op):
        return in_lines(step)
    if isinstance(op, Softmax) and any(view.gaps[0] for view in (*step.inputs, step.output)):
        return row_by_row(step)
    return window_rows(graph, op, step) if isinstance(op, Conv) and op.groups > 1 and step.output.gaps[0] else [step]


def _checked(fast: FastSteps, weights: Weights, step: Step) -> list[Call]:
    """Returns the kernel calls of a step, a reference kernel's held against it."""
    calls = calls_of(fast, weights, step)
    if calls[0].struct:
        check_call(calls[0], step, fast.arena)
    return calls


def _rolled(parts: Sequence[Sequence[Call | Block]], variable: str) -> list[Call | Block]:
    """Returns parts one after the other; runs of parts whose addresses grow evenly become loops."""
    found: list[Call | Block] = []
    start = 0
    while start < len(parts):
        end = start + 1
        while end < len(parts) and _continues(parts, start, end):
            end += 1
        if end - start > 1:
            body = [_growing(a, b, variable) for a, b in zip(parts[start], parts[start + 1], strict=True)]
            found.append(Block(variable, end - start, tuple(body)))
        else:
            found += parts[start]
        start = end
    return found


def _continues(parts: Sequence[Sequence[Call | Block]], start: int, end: int) -> bool:
    if not len(parts[start]) == len(parts[start + 1]) == len(parts[end]):
        return False
    for first, second, now in zip(parts[start], parts[start + 1], parts[end], strict=True):
        if not first.shape() == second.shape() == now.shape():
            return False
        for a, b, c in zip(first.addresses(), second.addresses(), now.addresses(), strict=True):
            if c.base - a.base != (b.base - a.base) * (end - start):
                return False
    return True


def _growing(a: Call | Block, b: Call | Block, variable: str) -> Call | Block:
    pairs = zip(a.addresses(), b.addresses(), strict=True)
    return a.moved([replace(x, terms=((variable, y.base - x.base), *x.terms)) if y.base != x.base else x for x, y in pairs])


def lines_of(node: Call | Block, structs: dict[Declared, str], indent: str) -> list[str]:
    """Returns a call or loop as lines of C. In a loop the pointers to factors per channel move with the part."""
    if isinstance(node, Block):
        lines = _declared_once(
            [line for inner in node.body for line in lines_of(inner, structs, indent + "    ")], indent + "    "
        )
        name = node.variable
        return [f"{indent}for (int32_t {name} = 0; {name} < {node.count}; {name}++) {{", *lines, f"{indent}}}"]
    if not node.struct:
        return [f"{indent}{node.kernel}({', '.join(a.text() for a in node.arguments)});"]
    moving = any(a.terms for a in node.factors)
    fields = dict(node.fields)
    if not moving:
        fields |= {key: a.text() for key, a in zip(("multiplier", "shift"), node.factors, strict=False)}  # type: ignore[misc]
    free = f"{node.op}_{len(structs)}" if node.op in structs.values() else node.op
    name = structs.setdefault((node.struct, tuple(fields.items()), node.check), free)
    scratch = [a.text() for a in node.scratch] or (["0"] if node.kernel in TAKES_SCRATCH else [])
    arguments = [a.text() for a in node.arguments]
    if not moving:
        return [f"{indent}{node.kernel}({', '.join((*arguments, f'&{name}', *scratch))});"]
    part = f"{name}_part"
    return [
        f"{indent}struct {node.struct} {part} = {name};",
        f"{indent}{part}.multiplier = {node.factors[0].text()};",
        f"{indent}{part}.shift = {node.factors[1].text()};",
        f"{indent}{node.kernel}({', '.join((*arguments, f'&{part}', *scratch))});",
    ]


def _declared_once(lines: list[str], indent: str) -> list[str]:
    """Returns the lines of a scope without further declarations of a struct: calls one after the other may move the same one."""
    seen: set[str] = set()
    found = []
    for line in lines:
        if line.startswith(f"{indent}struct "):
            if line in seen:
                continue
            seen.add(line)
        found.append(line)
    return found
