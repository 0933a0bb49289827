"""A placed Program -> C: a loop for each run of equal parts, one kernel call for each step in it.

Calls of a loop differ from part to part in addresses only, and these grow evenly; so a loop is found by comparing its
parts, never assumed. The weights of operators that run in slices are stored slice by slice, in the order of use.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyredux import memory
from tinyredux.codegen.artifact import (
    NOTHING,
    Artifact,
    Copies,
    artifact,
    check_name,
    details,
    functions,
    head,
    model_c,
    sources,
    with_hot_weights,
)
from tinyredux.codegen.calls import Address, Call, Weights, calls_of, mark
from tinyredux.codegen.check import check_call
from tinyredux.graph import AddConstant, Attention, Conv, Graph, LayerNorm, Mul, Softmax, Weighted, constant_names, macs
from tinyredux.kernels import FastSteps, scheduled
from tinyredux.memory import Arena, Blob, Item, Loop, Node, Program, Step, View

MACROS = """#define AT(offset) (tr_arena + (offset))
#define SUMS32(offset) ((int32_t *)(void *)(tr_arena + (offset)))
#define SUMS16(offset) ((int16_t *)(void *)(tr_arena + (offset)))
"""
FORM_MACROS = "#define I16(offset) ((const int16_t *)(const void *)(tr_weights + (offset)))\n"
POINTERS = {"AT": "int8_t *", "I8": "const int8_t *", "I16": "const int16_t *", "I32": "const int32_t *"}
VARIABLES = "ijkmn", "pqrst"  # of loops by depth; forms have variables of their own
Declared = tuple[str, tuple[tuple[str, int | str], ...], str]  # struct type, its fields, the assertion before it


@dataclass(frozen=True)
class Block:
    """A `for` loop around calls and other loops."""

    variable: str
    count: int
    body: tuple[Call | Block, ...]

    def addresses(self) -> tuple[Address, ...]:
        """Returns the addresses of all calls in it."""
        return tuple(address for node in self.body for address in node.addresses())

    def moved(self, addresses: Iterator[Address]) -> Block:
        """Returns this loop with the next ones of other addresses in its calls."""
        return replace(self, body=tuple(node.moved(addresses) for node in self.body))


def emit_partial(program: Program, arena: Arena, call: str) -> Artifact:
    """Returns the Artifact of a placed program, all by reference kernels. Raises ValueError where `verify` finds it wrong."""
    return emit_steps(FastSteps(program, arena), call)


def emit_steps(fast: FastSteps, call: str, copies: Copies = NOTHING) -> Artifact:
    """Returns the Artifact of a placed program: each step by its form, as a row convolution or by its reference kernel, with
    `copies` in sections of their own. Equal input gives equal bytes; `call` is how to make it again. Raises ValueError where
    `verify` finds the plan wrong."""
    program, arena = fast.program, fast.arena
    check_name(program.graph.name)
    for name in program.graph.outputs:
        check_name(name, "an output's name")
    memory.verify(program, arena)
    graph, weights, structs = program.graph, Weights(fast, copies.arrays), dict[Declared, str]()
    items = list(zip(program.schedule.items, program.nodes, statements(fast, weights, structs), strict=True))
    bodies = [
        "\n".join((f"    /* {_title(fast, weights.blob, item, nodes)} */", f"    tr_mark({index});", *lines))
        for index, (item, nodes, lines) in enumerate(items)
    ]
    codes = functions(fast.forms.values(), (scheduled(code, fast.core) for code in fast.codes()))
    declarations = "".join(f"{code.declaration};\n" for code in codes)
    for (kind, fields, check), name in structs.items():
        body = ", ".join(f".{key} = {value}" for key, value in fields)
        declarations += f"{check}static const struct {kind} {name} = {{{body}}};\n"
    described = [_described_item(fast, item, nodes) for item, nodes, _ in items]
    macros, tensors = MACROS + FORM_MACROS * bool(fast.forms), memory.tensors_end(program, arena)
    files = sources(codes, head(graph, call, "The kernels"), copies.functions) if codes else {}
    c = model_c(graph, described, arena.offsets, declarations, "\n".join(bodies), call, macros)
    files["model.c"] = with_hot_weights(c, weights.hot)
    return artifact(graph, described, weights.blob, files, (tensors, arena.size_bytes - tensors), call, weights.hot)


def statements(fast: FastSteps, weights: Weights, structs: dict[Declared, str]) -> list[list[str]]:
    """Returns the lines of C that compute each item; `structs` gets the parameters that they name."""
    return [
        [line for node in _nodes(fast, weights, nodes, 0) for line in lines_of(node, structs, "    ")]
        for nodes in fast.program.nodes
    ]


def _described_item(fast: FastSteps, item: Item, nodes: tuple[Node, ...]) -> dict[str, Any]:
    """Returns what the manifest says of an item, and of the form of an operator that is computed at once."""
    graph, steps = fast.program.graph, [*Loop((nodes,)).steps()]
    ops, whole = [graph.by_name[name] for name in item.ops], item.kind == "whole"
    facts: dict[str, Any] = {"module": ""}
    if whole and not any(step in fast.convs for step in steps):
        facts = {"module": graph.origin.get(item.sink, ""), "form": "reference"}
    if by_form := fast.form_of(nodes):
        form = by_form[1]
        facts |= {"form": form.name, "cycles_predicted": form.cycles, "scratch_bytes": form.scratch_bytes}
        facts |= {"proof": form.proof} if form.proof else {}
    return {
        "name": "+".join(item.ops), "kind": type(ops[0]).__name__ if whole else item.kind,
        "macs": sum(macs(graph, op) for op in ops), "macs_executed": memory.executed_macs(graph, steps), **facts,
    }  # fmt: skip


def _title(fast: FastSteps, blob: Blob, item: Item, nodes: tuple[Node, ...]) -> str:
    """Returns the comment above an item: operators and shapes; in which parts they run, or the bytes of one that runs at once."""
    graph, steps, entries = fast.program.graph, list(Loop((nodes,)).steps()), blob.entries
    ops = [graph.by_name[name] for name in item.ops]
    if item.kind != "whole":
        shapes = [f"{op.name}: {type(op).__name__} -> {_shape(graph, op.output)}" for op in ops]
        return "\n     * ".join([", ".join(shapes), *describe(graph, item)])
    (op,) = ops
    sides = " + ".join(_shape(graph, name) for name in op.inputs)
    lines = [f"{op.name}: {type(op).__name__} {sides} -> {_shape(graph, op.output)}{details(op)}"]
    if steps:
        reads = ", ".join(f"{view.tensor} {_range(fast.arena, view)}" for step in steps for view in step.inputs)
        lines.append(f"arena: reads {reads}; writes {op.output} {_range(fast.arena, *(step.output for step in steps))}")
        if scratch := steps[0].scratch:
            start = fast.arena.offsets[scratch]
            lines[-1] += f"; scratch {start}..{start + fast.program.buffers[scratch].size_bytes}"
    named = {name.removeprefix(f"{op.name}."): entry for name, entry in entries.items() if name.startswith(f"{op.name}.")}
    if isinstance(op, Weighted) and op.weights in entries:
        named = {"weights": entries[op.weights], "bias": entries[op.bias]}
    where = ", ".join(f"{key} {entry.offset}..{entry.offset + entry.size_bytes}" for key, entry in named.items())
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
    sink = graph.by_name[item.sink]
    height, width, channels = graph.tensors[sink.output].shape
    match item.kind:
        case "spatial":
            inner = [f"  {line}" for part in item.inner for line in describe(graph, part) or [f"{part.sink}, whole"]]
            return [f"in patches of {item.patch[0] or height} rows and {item.patch[1] or width} columns of {item.sink}:", *inner]
        case "rolling":
            return [f"in strips of {item.patch[0]} rows of {item.sink}; rows that later strips read again are kept"]
        case "materialise":
            return [f"{item.sink} in slices of {min(item.width, channels)} of {channels} channels"]
        case "accumulate":
            total = graph.tensors[sink.inputs[0]].shape[2]
            return [f"{item.sink} adds up slices of {min(item.width, total)} of {total} input channels"]
    return []


def _nodes(fast: FastSteps, weights: Weights, nodes: Sequence[Step | Loop], depth: int) -> list[Call | Block]:
    """Returns calls and loops for steps and loops of parts."""
    found: list[Call | Block] = []
    for node in nodes:
        if isinstance(node, Step):
            parts = list[Sequence[Call | Block]]()
            for step in _lines(fast.program.graph, node):
                calls = calls_of(fast, weights, step)
                if calls[0].struct:  # a reference kernel's
                    check_call(calls[0], step, fast.arena)
                parts.append(calls)
        else:
            parts = [_nodes(fast, weights, part, depth + 1) for part in node.parts]
        found += _rolled(parts, VARIABLES[bool(fast.forms)][depth])
    return found


def _lines(graph: Graph, step: Step) -> list[Step]:
    """Returns a step as steps that its kernel can do: where there are gaps that it does not know, one for each row."""
    op = graph.by_name[step.op]
    gaps = any(view.gaps[0] for view in (*step.inputs, step.output))
    gaps |= (
        bool(constant_names(op)) and not isinstance(op, Weighted) and step.output.box.shape[1] < graph.tensors[op.output].shape[1]
    )
    if isinstance(op, AddConstant) and gaps:
        return memory.row_by_row(step)  # the constant has no gaps
    if step.kind == "copy" or (memory.is_elementwise(op) and not isinstance(op, Mul)):  # whose kernel knows all gaps
        return memory.in_lines(step)
    in_rows = isinstance(op, Softmax | LayerNorm | Attention) or (isinstance(op, Conv) and op.groups > 1 and step.output.gaps[0])
    return memory.window_rows(graph, op, step) if in_rows and gaps else [step]


def _rolled(parts: Sequence[Sequence[Call | Block]], variable: str) -> list[Call | Block]:
    """Returns parts one after the other; runs of parts whose addresses grow evenly become loops."""
    found: list[Call | Block] = []
    while parts:
        count = next((i for i in range(1, len(parts)) if not _continues(parts, i)), len(parts))
        if count > 1:
            found.append(Block(variable, count, tuple(_growing(a, b, variable) for a, b in zip(*parts[:2], strict=True))))
        else:
            found += parts[0]
        parts = parts[count:]
    return found


def _continues(parts: Sequence[Sequence[Call | Block]], i: int) -> bool:
    """True where part `i` is alike to the first two, its addresses as far on as theirs have grown till then."""
    some = parts[0], parts[1], parts[i]
    bases = ([address.base for node in part for address in node.addresses()] for part in some)
    return some[0] == some[1] == some[2] and all(c - a == (b - a) * i for a, b, c in zip(*bases, strict=True))


def _growing(a: Call | Block, b: Call | Block, variable: str) -> Call | Block:
    pairs = zip(a.addresses(), b.addresses(), strict=True)
    return a.moved(replace(x, terms=((variable, y.base - x.base), *x.terms)) if y.base != x.base else x for x, y in pairs)


def lines_of(node: Call | Block, structs: dict[Declared, str], indent: str, moved: set[str] | None = None) -> list[str]:
    """Returns a call or loop as lines of C. In a loop the pointers to factors per channel move with the part, in a copy of the
    struct; `moved` names those that the scope has already."""
    if isinstance(node, Block):
        name, own = node.variable, set[str]()
        lines = [line for inner in node.body for line in lines_of(inner, structs, indent + "    ", own)]
        return [f"{indent}for (int32_t {name} = 0; {name} < {node.count}; {name}++) {{", *lines, f"{indent}}}"]
    if node.text:
        return textwrap.indent(_form_text(node), indent).splitlines()
    arguments, scratch = [a.text() for a in node.arguments], [node.scratch] if node.scratch else []
    if not node.struct:
        return [f"{indent}{node.kernel}({', '.join(arguments)});"]
    moving = any(a.terms for a in node.factors)
    factors = {key: a.text() for key, a in zip(("multiplier", "shift"), node.factors, strict=False)}
    fields: tuple[tuple[str, int | str], ...] = (*node.fields, *(() if moving else factors.items()))
    free = f"{node.op}_{len(structs)}" if node.op in structs.values() else node.op
    name = structs.setdefault((node.struct, fields, node.check), free)
    lines, known = list[str](), moved if moved is not None else set()
    if moving:
        part = f"{name}_part"
        lines = [] if part in known else [f"struct {node.struct} {part} = {name};"]
        lines += [f"{part}.{key} = {text};" for key, text in factors.items()]
        known.add(part)
        name = part
    call = f"{node.kernel}({', '.join((*arguments, f'&{name}', *scratch))});"
    return [f"{indent}{line}" for line in (*lines, call)]


def _form_text(call: Call) -> str:
    """Returns the statements of a form with its arguments: as they are, or by pointers of their own where they move with a loop's
    parts, whose variables the form's own loops could hide."""
    text, pointers = call.text, list[str]()
    for number, address in enumerate(call.arguments):
        place = f"(tr_arena + {address.base})" if address.kind == "AT" else address.text()
        if address.terms:
            place = f"{'to' if number == 0 else 'from'}_{number}"
            read = "const " * (number > 0 and address.kind == "AT")
            pointers.append(f"    {read}{POINTERS[address.kind]}const {place} = {address.text()};")
        text = text.replace(mark(number), place)
    return "\n".join(["{", *pointers, textwrap.indent(text, "    "), "}"]) if pointers else text
