"""A placed Program -> C: a loop for each run of equal parts, one kernel call for each step in it.

Calls of a loop differ from part to part in addresses only, and these grow evenly; so a loop is found by comparing its
parts, never assumed. The weights of operators that run in slices are stored slice by slice, in the order of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyredux.codegen.calls import TAKES_SCRATCH, Address, Call, Fields, Weights, calls_of
from tinyredux.codegen.check import check_call
from tinyredux.codegen.fast import FORM_MACROS, described_form, form_call, programs, prototypes, sources
from tinyredux.codegen.layerwise import Artifact, artifact, c_struct, head
from tinyredux.graph import Conv, Graph, Op, Softmax, macs
from tinyredux.kernels import FastSteps, Form, scheduled
from tinyredux.memory import (
    Arena,
    Item,
    Loop,
    Program,
    Step,
    executed_macs,
    in_lines,
    is_elementwise,
    row_by_row,
    verify,
    window_rows,
)

MACROS = """#define AT(offset) (tr_arena + (offset))
#define SUMS32(offset) ((int32_t *)(void *)(tr_arena + (offset)))
#define SUMS16(offset) ((int16_t *)(void *)(tr_arena + (offset)))
"""


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
    """Returns the Artifact of a placed program with row convolutions. Raises ValueError where `verify` finds the plan wrong."""
    program, arena = fast.program, fast.arena
    verify(program, arena)
    weights = Weights(fast)
    graph = program.graph
    structs: dict[tuple[str, Fields], str] = {}
    bodies = []
    for index, (item, nodes) in enumerate(zip(program.schedule.items, program.nodes, strict=True)):
        lines = [f"    /* {_title(graph, item)} */", f"    tr_mark({index});"]
        if by_form := fast.form_of(nodes):
            lines.append(_by_form(fast, weights, *by_form))
        else:
            lines += [line for node in _nodes(fast, weights, nodes, 0) for line in lines_of(node, structs, "    ")]
        bodies.append("\n".join(lines))
    declarations = "".join(c_struct(kind, name, dict(fields)) for (kind, fields), name in structs.items())
    described = [
        {
            "name": "+".join(item.ops), "kind": _kind(graph, item), "module": "",
            "macs": sum(macs(graph, op) for op in _ops(graph, item)),
            "macs_executed": executed_macs(graph, Loop((nodes,)).steps()),
            **(described_form(by_form[1]) if (by_form := fast.form_of(nodes)) else {}),
        }
        for item, nodes in zip(program.schedule.items, program.nodes, strict=True)
    ]  # fmt: skip
    codes = [scheduled(code, fast.core) for code in fast.codes()] + programs({step.op: form for step, form in fast.forms.items()})
    declarations = prototypes(codes) + declarations
    files = sources(codes, head(graph, call, "The kernels")) if codes else {}
    ends = {name: arena.offsets[name] for name in (graph.inputs[0], graph.outputs[0])}
    macros = MACROS + FORM_MACROS * bool(fast.forms)
    return artifact(
        graph, described, weights.blob, declarations, "\n".join(bodies), ends, (arena.size_bytes, 0), call, macros, files
    )


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


def _title(graph: Graph, item: Item) -> str:
    ops = {op.name: op for op in graph.ops}
    shapes = [
        f"{name}: {type(ops[name]).__name__} -> {'x'.join(map(str, graph.tensors[ops[name].output].shape))}" for name in item.ops
    ]
    return "\n     * ".join([", ".join(shapes), *describe(graph, item)])


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


def lines_of(node: Call | Block, structs: dict[tuple[str, Fields], str], indent: str) -> list[str]:
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
    name = structs.setdefault((node.struct, tuple(fields.items())), f"{node.op}_{len(structs)}")
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
