"""torch.nn.Module -> Graph through `torch.export`: batch norm folded, ReLU fused, HWC layout.

An operator that has no counterpart is refused by name, with its place in the module and the nearest form that works.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import fx, nn
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from tinyredux.files import first_line, require
from tinyredux.frontends import lines, tokens
from tinyredux.frontends.builder import Builder, Call, UnsupportedOperatorError, arguments, refuse
from tinyredux.frontends.moves import piece, shuffled, turn
from tinyredux.frontends.operators import HANDLERS, flatten
from tinyredux.frontends.pt2e import from_program, quantised_program
from tinyredux.frontends.settle import settled
from tinyredux.graph import STACK, Graph, Shape, Tensor, TrecConv, check_input_shape, check_most, constant_names, verify
from tinyredux.int8 import interpret

NEAREST = {  # supported form: what is refused in its favour
    "nn.BatchNorm2d": ("group_norm", "instance_norm"),
    "nn.Softmax, or logits without it": ("log_softmax",),
    "bilinear upsampling, without antialias": ("upsample_bicubic2d", "_upsample_bilinear2d_aa"),
    "a slice of one or more": ("select",),
    "the logits themselves; the index of the largest is the class": ("argmax",),
}
SUPPORTED = (
    "Conv2d, BatchNorm2d, ReLU, ReLU6 and other functions of one value, Linear, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, add, "
    "amax, mean, mul, cat, flatten, Softmax"
)
DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
MAPS = ("conv2d", "trec_conv", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
TOLERANCE = {torch.float16: 0.05, torch.bfloat16: 0.2, torch.float32: 1e-3, torch.float64: 1e-3}  # of the largest output
ALIASES = (*DROPOUTS, "clone", "contiguous", "detach", "alias", "to", "_to_copy", "lift_fresh_copy")
TURNS = ("permute", "transpose", "movedim")
FLATTENS = ("flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view")


def export(module: nn.Module | torch.export.ExportedProgram, input_shape: Shape | None = None, *, name: str = "net") -> Graph:
    """Returns the float Graph of a torch module for images of `input_shape` (channels, height, width) or (channels, length).

    Without one, it is the attribute `input_shape` of the module. Weights are taken as they are, the module is left as it was;
    it is run on two random images, and the graph must compute what it computes. `name` is what generated files are called by.
    A tuple, list or dictionary of tensors becomes as many outputs, called by its keys; labels belong to the first. A map may end
    with its axes exchanged where its values then lie in that order: `permute(0, 2, 3, 1).reshape(len(images), -1, classes)`.
    What PT2E has quantised, an exported program or a converted module, becomes an int8 Graph as it is.
    Raises UnsupportedOperatorError for what no kernel computes, ValueError for shapes or weights that are wrong. Chapter 13.
    """
    if (program := quantised_program(module, input_shape, name)) is not None:
        return from_program(program, name)
    assert isinstance(module, nn.Module)
    graph, builder = export_with_names(module, input_shape, name=name)
    for tensor in graph.tensors.values():
        check_most(name, max(tensor.shape), "rows, columns or channels", tensor.name)
        check_most(name, tensor.elements, "values", tensor.name)
    line = len(getattr(module, "input_shape", ()) if input_shape is None else input_shape) == 2
    _compare(graph, module, name, builder.in_place_order, line)
    return graph


def _compare(graph: Graph, module: nn.Module, name: str, in_place_order: set[str], line: bool) -> None:
    """Raises ValueError where the graph computes something else of two random images than the module itself.

    No list of operators is complete; this holds whatever a module does that torch's program does not show. Layers of TREC are
    left out: near a border between clusters, rounding decides.
    """
    if any(isinstance(op, TrecConv) for op in graph.ops):
        return
    height, width, channels = graph.input.shape
    images = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    with _evaluated(module) as like:
        try:
            given = (images[:, :, 0] if line else images).to(like)
            returned = [value.to("cpu", torch.float32).numpy() for value in pytree.tree_leaves(module(given))]
        except (Exception, SystemExit, GeneratorExit) as failure:
            advice = "keep the first dimension, as flatten(1) does"
            raise ValueError(f"{name}: runs for one image, not for two: {first_line(failure)}; {advice}") from failure
    values = interpret.run_all(graph, images.numpy().transpose(0, 2, 3, 1))
    for expected, output in zip(returned, graph.outputs, strict=True):
        found = values[output] if output in in_place_order else values[output].transpose(0, 3, 1, 2)
        if expected.shape[:1] != (2,) or expected.size != found.size:
            raise ValueError(
                f"{name}: returns {expected.shape} for two images, expected (2, ...); keep the first dimension apart"
            )
        error, largest = np.abs(found - expected.reshape(found.shape)).max(), np.abs(expected).max()
        if np.isfinite(largest) and error > 1e-6 + TOLERANCE[like.dtype] * largest:
            raise ValueError(
                f"{name}: its forward() gives other values than torch's own program of it, by {error:.3g} of {largest:.3g} for "
                "random images; make it depend on the images alone: no random numbers, no statistics of the batch, no state"
            )


@contextlib.contextmanager
def _evaluated(module: nn.Module) -> Iterator[torch.Tensor]:
    """Puts a module into eval mode, without gradients; gives a tensor of its type. Every part then has its former mode again."""
    floats = (value for value in (*module.parameters(), *module.buffers()) if value.is_floating_point())
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            module.eval()
            yield next(floats, torch.zeros(1)).flatten()[:0]
    finally:
        for part, training in modes.items():
            part.training = training


def export_with_names(module: nn.Module, input_shape: Shape | None = None, *, name: str = "net") -> tuple[Graph, Builder]:
    """Returns the Graph and how it was built: torch's own program, and which tensor each of its nodes became."""
    shape: object = getattr(module, "input_shape", None) if input_shape is None else input_shape
    channels, height, width = check_input_shape(tuple(shape) if isinstance(shape, list) else shape, name)
    line = isinstance(shape, (list, tuple)) and len(shape) == 2
    program = _trace(module, (1, channels, width) if line else (1, channels, height, width), name)
    if line:
        lines.as_maps(program)
    tokens.as_products(program)
    value = {str(node): "input" for node in program.graph_signature.user_inputs}
    graph = Graph(name, (), {"input": Tensor("input", (height, width, channels))}, {}, ("input",), ())
    builder = Builder(program, graph, value)
    for node in program.graph.nodes:
        if node.op == "call_function":
            _convert(builder, node)
    return _finish(builder, name), builder


def _trace(module: nn.Module, shape: tuple[int, ...], name: str) -> torch.export.ExportedProgram:
    """Returns torch's own program of a module in eval mode; every part then has its former mode again."""
    check_most(name, sum(not [*part.children()] for part in module.modules()), "parts")
    if len(wanted := _required(module)) > 1:
        raise ValueError(f"{name}: its forward() takes {', '.join(wanted)}, expected the images alone; {STACK}")
    for key, value in (*module.named_parameters(), *module.named_buffers()):
        check_most(name, value.numel(), "weights", key)
        whole = isinstance(value, nn.Parameter) and not value.is_floating_point()
        if value.is_meta or value.is_complex() or value.is_quantized or value.is_sparse or whole:
            held = "on the meta device, without values" if value.is_meta else f"{value.layout} of {value.dtype}"
            raise ValueError(f"{name}: {key} is {held}; expected dense floating-point weights; export makes the integers")
    with _evaluated(module) as like:
        try:
            return torch.export.export(module, (torch.zeros(shape, dtype=like.dtype, device=like.device),))
        except (Exception, SystemExit, GeneratorExit) as failure:
            raise ValueError(f"{name}: torch.export cannot trace it for an input of {shape}: {first_line(failure)}") from failure


def _required(module: nn.Module) -> list[str]:
    """Returns the arguments without which a module's forward() does not run."""
    free = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(module.forward).parameters.values()
    return [one.name for one in parameters if one.kind in free and one.default is one.empty]


def _finish(builder: Builder, name: str) -> Graph:
    (result,) = (node for node in builder.program.graph.nodes if node.op == "output")
    changed = [spec.target for spec in builder.program.graph_signature.output_specs if spec.kind is not OutputKind.USER_OUTPUT]
    if changed:
        raise ValueError(f"{name}: changes {changed[0]} while it runs; an inference may not change the network")
    spec = builder.program.call_spec.out_spec
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(len(result.args[0])), spec))
    outputs: dict[str, pytree.KeyPath] = {}
    for (path, _), node in zip(paths, result.args[0], strict=True):
        output = _returned(builder, node, name, pytree.keystr(path))
        if output in outputs:
            both = f"{pytree.keystr(outputs[output])} and {pytree.keystr(path)}"
            raise ValueError(f"{name}: returns the same values twice, as {both}; return them once")
        outputs[output] = path
    needed, ops = {*outputs}, []
    for op in reversed(builder.graph.ops):
        if op.output in needed:
            needed.update(op.inputs)
            ops.append(op)
    require(ops, f"{name}: no operator between input and output; nothing to compile")
    ops.reverse()
    constants = {key: builder.graph.constants[key] for op in ops for key in constant_names(op)}
    tensors = {key: tensor for key, tensor in builder.graph.tensors.items() if key in needed}
    origin = {op.name: builder.graph.origin[op.name] for op in ops}
    graph = builder.graph.with_ops(ops, tensors=tensors, constants=constants, outputs=tuple(outputs), origin=origin)
    graph = settled(graph)
    graph = _with_names(builder, graph, {output: said for output, path in outputs.items() if (said := _said(path))}, name)
    verify(graph)
    return graph


def _returned(builder: Builder, node: object, name: str, where: str) -> str:
    """Returns the tensor behind a node that a module returns at a place of its tuple or dictionary, if it is in one."""
    at = f" as {where}" if where else ""
    if not isinstance(node, fx.Node) or node.name not in builder.value:
        raise ValueError(f"{name}: returns a constant{at}, which does not depend on the input; nothing to compile")
    if node.name in builder.padded:
        raise refuse(node, "zero padding at the end", "padding before a convolution")
    if node.name in builder.scores:
        tokens.multiply(Call(builder, node, _name(node)))
    if node.name in builder.turned:
        tokens.take_part(Call(builder, node, _name(node)), node)
    tensor = builder.graph.tensors[builder.value[node.name]]
    if node.name in builder.turned:
        if not torch.equal(builder.turned[node.name].flatten(), torch.arange(tensor.elements)):
            raise _no_turn(builder, node)
        builder.in_place_order.add(tensor.name)
    elif builder.holds_flat_map(node):
        what = f"flattens a {tensor.shape} map at its end{at}"
        raise UnsupportedOperatorError(f"{name}: {what}; return the map itself, or add a Linear layer")
    if where and tensor.name in builder.graph.inputs:
        raise ValueError(f"{name}: returns its input{at}; leave it out, whoever calls has it")
    return tensor.name


def _no_turn(builder: Builder, node: fx.Node) -> UnsupportedOperatorError:
    """Returns the error for axes exchanged before the end, or to another order than that of values as they lie."""
    while (kind := _name(node)) not in TURNS and node.all_input_nodes[0].name in builder.turned:
        node = node.all_input_nodes[0]
    if kind in TURNS:
        instead = "keeping the channels in place; the layout is HWC, which permute(0, 2, 3, 1) may say at the end"
        return refuse(node, f"operator {kind}", instead)
    shapes = f"{tuple(node.all_input_nodes[0].meta['val'].shape)} to {tuple(node.meta['val'].shape)}"
    return refuse(node, f"reshape of {shapes}", "flatten to (1, features)")


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", "").split(".")[0]


def _said(path: pytree.KeyPath) -> str:
    """Returns what a module calls one of its outputs: the keys of dictionaries and fields on the way to it, empty without any."""
    if all(isinstance(key, pytree.SequenceKey) for key in path):
        return ""
    keys = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", ""))) for key in path)
    return re.sub(r"[^\w.+-]+", "_", ".".join(map(str, keys)), flags=re.ASCII)


def _with_names(builder: Builder, graph: Graph, names: dict[str, str], name: str) -> Graph:
    """Returns the graph whose outputs have the names that the module gives them; so has what the builder knows."""
    tensors = {names.get(key, key): replace(one, name=names.get(key, key)) for key, one in graph.tensors.items()}
    if len(tensors) < len(graph.tensors):
        raise ValueError(
            f"{name}: calls its outputs {', '.join(names.values())}, where each must have a name of its own, and none "
            f"that of an operator: {', '.join(graph.tensors)}; choose other keys"
        )
    ops = [
        replace(op, inputs=tuple(names.get(key, key) for key in op.inputs), output=names.get(op.output, op.output))
        for op in graph.ops
    ]
    builder.in_place_order = {names.get(key, key) for key in builder.in_place_order}
    builder.value = {node: names.get(key, key) for node, key in builder.value.items()}
    return graph.with_ops(ops, tensors=tensors, outputs=tuple(names.get(key, key) for key in graph.outputs))


def _convert(builder: Builder, node: fx.Node) -> None:
    name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    kind = lines.KINDS.get(name.rstrip("_"), name.rstrip("_"))
    operands = [arg for arg in node.all_input_nodes if arg.name in builder.value]
    if (
        not operands
        and getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        and not _is_fresh(node.all_input_nodes[0])
    ):
        raise refuse(node, f"{name} on a weight while running", "weights that stay as they are")
    if not operands or kind == "_assert_tensor_metadata" or (kind == "getitem" and not node.users):
        return  # works on constants alone (shapes, weights from others), states what holds, or a pool's indices that nobody reads
    _check(node, kind, operands[0])
    if name.endswith("_") and any(names > 1 for names in map(builder.names_read, operands)):
        raise refuse(node, f"{kind} in place on a tensor that is read again under another name", f"{kind} not in place")
    if kind not in ("conv2d", "trec_conv", "pad", "constant_pad_nd") and any(arg.name in builder.padded for arg in operands):
        raise refuse(node, f"zero padding before {kind}", "padding before a convolution, or the pool's own padding")
    if tokens.convert(Call(builder, node, kind), HANDLERS):
        return
    call, is_turned = Call(builder, node, kind), [arg for arg in operands if arg.name in builder.turned]
    if is_turned and kind in HANDLERS:
        raise _no_turn(builder, is_turned[0])
    if kind in ALIASES or (kind == "getitem" and node.args[1] == 0 and not _is_split(operands[0])):
        call.alias(operands[0])
    elif kind == "getitem" and _is_split(operands[0]):
        piece(call)
    elif node.name in builder.dealt:
        call.alias(operands[0])
    elif kind in FLATTENS and (between := _dealing(node)):
        shuffled(call, node.meta["val"].shape[1])
        builder.dealt |= between
    elif kind in TURNS or (kind in FLATTENS and (is_turned or len(call.shape) == 5)):
        turn(call)
    elif kind in FLATTENS or (kind == "select" and _is_single(operands[0], node.args[1])):
        flatten(call)
    elif kind in HANDLERS:
        HANDLERS[kind](call)
    else:
        nearest = next((form for form, kinds in NEAREST.items() if kind in kinds), f"one of {SUPPORTED}")
        raise refuse(node, f"operator {kind}", nearest)


def _check(node: fx.Node, kind: str, source: fx.Node) -> None:
    """Refuses what no handler looks at: dropout while running, values that are no numbers with a fraction, maps without batch."""
    if kind in DROPOUTS and all(arguments(node, p=0.5, train=False)):
        raise refuse(node, f"{kind} while running (training=True)", "training=self.training")
    values = node.meta["val"] if isinstance(node.meta["val"], (tuple, list)) else [node.meta["val"]]
    known = kind in ALIASES or kind in FLATTENS or kind in HANDLERS
    if known and isinstance(values[0], torch.Tensor) and values[0].dtype not in TOLERANCE:
        raise refuse(node, f"{kind} to {values[0].dtype}", "floating point throughout; export makes the integers")
    rank = source.meta["val"].ndim if isinstance(source.meta["val"], torch.Tensor) else 4
    if kind in MAPS and rank != 4:
        raise refuse(node, f"{kind} on a tensor of shape {tuple(source.meta['val'].shape)}", "maps (1, channels, height, width)")


def _is_fresh(node: fx.Node) -> bool:
    """True for a tensor of its own that one node alone reads, which may change it: a mask that torch makes of a module's mask."""
    made = node.op == "call_function" and hasattr(node.target, "_schema")
    return made and len(node.users) == 1 and node.target._schema.returns[0].alias_info is None  # type: ignore[union-attr]


def _is_single(source: fx.Node, axis: object) -> bool:
    """True where an axis of a torch value has one element, so that selecting from it is a reshape."""
    return isinstance(axis, int) and source.meta["val"].shape[axis] == 1


def _is_split(node: fx.Node) -> bool:
    return _name(node) in ("chunk", "split", "split_with_sizes", "tensor_split")


def _dealing(node: fx.Node) -> set[str]:
    """Returns the nodes behind a reshape to (1, groups, C / groups, H, W) that make a shuffle of channels of it: the exchange of
    both, and the reshape back; none for another reshape."""
    shape, before = tuple(node.meta["val"].shape), tuple(node.all_input_nodes[0].meta["val"].shape)
    names, current = set[str](), node
    if len(shape) != 5 or len(before) != 4 or shape[3:] != before[2:]:
        return set()
    for wanted in ("transpose", "contiguous", "reshape"):
        users = list(current.users)
        kind = _name(users[0]) if len(users) == 1 else ""
        if wanted == "contiguous" and kind not in ("contiguous", "clone"):
            continue
        if wanted == "transpose" and not (kind == "transpose" and sorted(users[0].args[1:]) == [1, 2]):  # type: ignore[type-var]
            return set()
        if wanted == "reshape" and (kind not in FLATTENS or tuple(users[0].meta["val"].shape) != before):
            return set()
        current = users[0]
        names.add(current.name)
    return names
