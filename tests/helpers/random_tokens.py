"""Random transformer blocks, in int8: attention of 1 to 8 heads over 1 to 197 tokens, of odd and even widths, in a fourth of them
with masks and biases, in another as products of matrices and a softmax."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyredux import graph as ir
from tinyredux.graph import (
    Add,
    AddConstant,
    Attention,
    Conv,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Op,
    Pool,
    Quant,
    Softmax,
    Tensor,
)
from tinyredux.int8 import SOFTMAX_OUTPUT

TOKENS = ((1, 1), (1, 2), (2, 1), (3, 3), (4, 4), (1, 13), (9, 1), (5, 7), (8, 8), (1, 100), (14, 14), (1, 197))


def random_block(seed: int, most_tokens: int = 197) -> Graph:
    """Returns a network of one or two blocks, their normalisations before or after what they add, of a random width; an embedding
    of the positions and a mean over the tokens, or not."""
    rng = np.random.default_rng(seed)
    sizes = [some for some in TOKENS if some[0] * some[1] <= most_tokens]
    size = sizes[int(rng.integers(len(sizes)))]
    heads, depth = int(rng.integers(1, 9)), int(rng.integers(1, 10))
    width, first = heads * depth, bool(rng.integers(2))
    quant = Quant((0.04,), int(rng.integers(-20, 21)))
    tensors, constants, ops = {"input": Tensor("input", (*size, width), "int8", quant)}, dict[str, np.ndarray](), list[Op]()

    def add(op: Op, outputs: int = 0) -> str:
        if outputs:
            inputs = tensors[op.inputs[0]].shape[2]
            constants[f"{op.name}.weights"] = rng.integers(-127, 128, (outputs, 1, 1, inputs)).astype(np.int8)
            constants[f"{op.name}.bias"] = rng.integers(-2000, 2001, outputs).astype(np.int32)
            scales = tuple(rng.uniform(0.5, 2, outputs) / (74 * np.sqrt(inputs)))
            op = replace(op, weights=f"{op.name}.weights", bias=f"{op.name}.bias", weight_scale=scales)  # type: ignore[call-arg]
        ops.append(op)
        shape = ir.output_shape(Graph("block", tuple(ops), tensors, constants, ("input",), ("input",)), op)
        own = Quant((0.025,), int(rng.integers(-9, 10))) if isinstance(op, LayerNorm) else quant
        own = SOFTMAX_OUTPUT if isinstance(op, Softmax) else own
        tensors[op.output] = Tensor(op.output, shape, "int8", own)
        return op.output

    def name(kind: str) -> str:
        return f"{kind}{len(ops)}"

    def conv(source: str, outputs: int) -> str:
        return add(Conv(*_named(name("conv"), source)), outputs)

    def norm(source: str, when: bool) -> str:
        return add(LayerNorm(*_named(name("norm"), source))) if when else source

    last = "input"
    if rng.integers(2):
        own, label = Quant((0.01,), 3), name("embed")
        constants[f"{label}.values"] = rng.integers(-128, 128, (*size, width)).astype(np.int8)
        last = add(AddConstant(*_named(label, last), f"{label}.values", own))
    if seed % 5 == 1:  # a class token or two
        own, label = np.random.default_rng((seed, 1)), name("extend")
        constants[f"{label}.values"] = own.integers(-128, 128, (int(own.integers(1, 3)), width)).astype(np.int8)
        last = add(Extend(*_named(label, last), f"{label}.values", int(own.integers(len(constants[f"{label}.values"]) + 1))))
        size = tensors[last].shape[:2]
    for _ in range(int(rng.integers(1, 3))):
        source = norm(last, first)
        q, k, v = (conv(source, width) for _ in range(3))
        label, scale = name("attention"), float(rng.choice((depth**-0.5, 1.0, 0.01)))
        if seed % 4 == 3:  # step by step, each head's matrices turned or not
            tokens, by, across = size[0] * size[1], (0, depth, width, 1), (0, depth, 1, width)
            sizes = (heads, tokens, depth, tokens, by, across, (heads, tokens), False, scale)
            scores = add(MatMul(label, (q, k), f"{label}_scores", *sizes))
            shares = add(Softmax(f"{label}_softmax", (scores,), f"{label}_shares"))
            square = (0, tokens * tokens, tokens, 1)
            found = add(MatMul(f"{label}_sum", (shares, v), f"{label}_out", heads, tokens, tokens, depth, square, by, size, True))
        else:
            attention = Attention(label, (q, k, v), f"{label}_out", heads, scale)
            if seed % 4 == 1:  # a bias, and three of four keys masked, but never a query's own
                bias = rng.integers(-127, 128, (int(rng.choice((1, heads))), size[0] * size[1], size[0] * size[1]))
                bias[(rng.random(bias.shape) < 0.75) & ~np.eye(bias.shape[1], dtype=bool)] = -128
                constants[f"{label}.bias"] = bias.astype(np.int8)
                attention = replace(attention, bias=f"{label}.bias", bias_step=int(rng.integers(1, 40)))
            found = add(attention)
        label = name("add")
        last = norm(add(Add(label, (last, conv(found, width)), f"{label}_out")), not first)
        inner = conv(norm(last, first), int(rng.integers(1, 4 * width + 1)))
        inner = add(Lookup(*_named(name("gelu"), inner), "gelu"))
        label = name("add")
        last = norm(add(Add(label, (last, conv(inner, width)), f"{label}_out")), not first)
    if rng.integers(2):
        last = add(Pool(*_named(name("mean"), last), kind="mean", kernel=size))
    graph = Graph("block", tuple(ops), tensors, constants, ("input",), (last,))
    ir.verify(graph)
    return graph


def _named(name: str, source: str) -> tuple[str, tuple[str], str]:
    return name, (source,), f"{name}_out"
