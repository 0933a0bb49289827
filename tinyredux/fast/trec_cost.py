"""Does TREC pay? Predicted cycles of a layer's TREC and of its exact convolution, in either kernel set.

Generated code prices itself (`fast.trec`); one of its constants was set on ten layers, so their small error is that of a fit.
The plain C of trec_conv.c is a sum of counts; cycles for each were fitted to 14 layers in the simulator (3x3, 5x5, 1x1; maps of
8 to 16; 16 to 256 outputs; 2 to 6 bits; blocks of a tap to the whole window); on these same layers it is at most 6.4 % off. Every
block is taken to have as many clusters as it can have.
"""

from __future__ import annotations

from tinyredux.fast.choose import candidates
from tinyredux.fast.reference_cost import reference_cycles
from tinyredux.graph import Conv, Graph, Op, TrecConv
from tinyredux.memory import clustering
from tinyredux.trec_sizes import TrecSizes

CYCLES = {  # for each of `counts`
    "cortex-m4": (4.35, 72.1, 2.2, 2.1, 5.95, 5.0, 85.4, 16.5),
    "cortex-m7": (3.17, 43.6, 1.03, 1.35, 3.27, 2.64, 50.7, 8.8),
}


def counts(sizes: TrecSizes) -> list[int]:
    """Returns how often the C kernel multiplies for a hash, assigns, adds to a mean, multiplies a mean and widens it, adds up a
    product, finishes a sum, copies an output."""
    outputs, matrix = sizes.out_c - sizes.exact_c, sizes.clusters * sizes.columns
    passes, slices = sizes.rows * sizes.blocks, -(-outputs // sizes.slice_c)
    added = outputs if sizes.blocks > 1 else 0
    return [
        sizes.rows * sizes.columns * sizes.bits, passes * (1 + sizes.bits), sizes.rows * sizes.columns, matrix * outputs,
        matrix * slices, passes * added, sizes.rows * added, sizes.rows * (outputs - added + sizes.exact_c),
    ]  # fmt: skip


def layer_cycles(graph: Graph, op: Op, kernels: str, core: str) -> float:
    """Returns the predicted cycles of a convolution or a TREC layer in a kernel set; forms with their flash stalls."""
    if isinstance(op, TrecConv):
        each = CYCLES["cortex-m7" if core == "cortex-m7" else "cortex-m4"]
        plain = sum(n * cycles for n, cycles in zip(counts(clustering(graph, op)), each, strict=True))
    else:
        plain = reference_cycles(graph, op, core)
    return min([plain, *(form.cost for form in candidates(graph, op, core))]) if kernels == "fast" else plain


def losing(graph: Graph, kernels: str, core: str) -> list[str]:
    """Returns the TREC layers that their exact convolution is predicted to beat."""
    found = []
    for op in graph.ops:
        if isinstance(op, TrecConv):
            conv = Conv(
                op.name,
                op.inputs,
                op.output,
                op.weights,
                op.bias,
                op.activation,
                op.weight_scale,
                op.kernel,
                op.stride,
                op.padding,
            )
            exact = graph.with_ops([conv if other is op else other for other in graph.ops])
            if layer_cycles(exact, conv, kernels, core) <= layer_cycles(graph, op, kernels, core):
                found.append(op.name)
    return found
