"""Attention two queries at a time: what all queries of a head read is widened once, and its products are generated.

Keys lie in fours, of each two channels a word of every key; values in fours of channels, of each two keys a word of every
channel. So the scores of two queries with four keys, and the sums of two queries for four channels, are the same loop: eight
sums, two words of rows, four of columns, sixteen products. Scores become weights of 13 bits by the C kernel's table of powers.

Weights. With x twice a score's distance below the largest, m the multiplier and r the right shift:

    CMP, MOV  x = max(x, twice the least difference that counts), whose weight is 0 anyhow
    SMMULR    t = floor(x * m / 2^32 + 1/2)      at most 0
    SUB, LSR  power = (2^r / 2 - t) >> r         rounded, halves away from zero, and its sign turned
    LDRH      w = 2^15 * 2^-(power mod 256 / 256)
    LSR ...   w = ((w >> (power / 256)) + 4) >> 3

Rows are filled up with zeros to whole rounds of the loop. Range: as in attention.c.

Tokens of one cluster leave TREC as equal queries. A second form compares queries and computes each that differs once: the same
bytes, for as many rows of scores as there are clusters.

A bias is added to the scores of both queries in C. Equal queries have different ones, and are all computed then.

Source: ours, from the definitions in `fixedpoint`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyredux import fixedpoint
from tinyredux.graph import Array, Attention, Graph, Op, Rearrange, TrecConv
from tinyredux.int8 import AttentionParams, attention_params
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.layers import Fields, c_call
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.trec import trec_sizes

STEPS = 12  # words of a row in a round of the inner loop, at most: 672 bytes of code
LEAST_DISTANCE = -(2**30)  # twice this is an int32
# Of the C around: a head's query, an output, four bytes that are widened. After least squares over 13 simulated attentions, whose
# cycles they meet within 5 % (on the M7 within 8 % but for one of 16 %).
C_CYCLES = {"cortex-m4": (570, 45, 14), "cortex-m7": (250, 10, 40), "cortex-m33": (350, 25, 30)}
BIAS_CYCLES = {"cortex-m4": 15, "cortex-m7": 10, "cortex-m33": 15}  # of the bias of a score
COMPARED = 40  # of comparing two queries, nearly all of which differ in their first word; rough


@dataclass(frozen=True)
class Rows:
    """Rows of `words` words, in `rounds` of `steps`; the sums of two rows lie `out_bytes` apart."""

    words: int
    out_bytes: int

    @property
    def rounds(self) -> int:
        """Rounds of the inner loop."""
        return -(-self.words // STEPS)

    @property
    def steps(self) -> int:
        """Words in a round."""
        return -(-self.words // self.rounds)

    @property
    def padded(self) -> int:
        """Words of a row with the zeros at its end."""
        return self.rounds * self.steps


@dataclass(frozen=True)
class Sizes:
    """How many heads, queries and keys an attention has, and how deep each head's keys and values are."""

    heads: int
    queries: int
    keys: int
    depth: int
    value_depth: int

    @property
    def scores(self) -> Rows:
        """Rows of queries, whose sums are the scores."""
        return Rows(2 * -(-self.depth // 4), 16 * -(-self.keys // 4))

    @property
    def sums(self) -> Rows:
        """Rows of weights, whose sums become outputs."""
        return Rows(-(-self.keys // 2), 16 * -(-self.value_depth // 4))


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the form of an attention whose rows are short enough to reach the second from the first, whose factor is no left
    shift, and whose masked scores are near enough; of one behind a TREC layer, whose clusters are tokens, also that which
    computes equal queries once."""
    if not isinstance(op, Attention):
        return []
    sizes, params, clusters = sizes_of(graph, op), attention_params(graph, op), 0.0 if op.bias else likely_queries(graph, op)
    longest = max(max(4 * (rows.padded + STEPS), rows.out_bytes + 16) for rows in (sizes.scores, sizes.sums))
    if longest > LARGEST_IMMEDIATE or not -31 <= params.score_shift <= 0 or (op.bias and not _hides(params)):
        return []
    return [
        _form(sizes, params, core, bias=graph.constants.get(op.bias)),
        *([shared_form(graph, op, core, clusters)] if clusters else []),
    ]


def _hides(params: AttentionParams) -> bool:
    """True where a masked score's distance to any other fits, and what is as far as that has no weight."""
    farthest = 2 * params.masked - params.least
    apart = np.array([[0, max(params.least, LEAST_DISTANCE)]])
    no_limit = -fixedpoint.INT32_MAX
    weights = fixedpoint.attention_weights(apart, params.score_multiplier, params.score_shift, no_limit)
    return farthest >= LEAST_DISTANCE and int(weights[0, 1]) == 0


def sizes_of(graph: Graph, op: Attention) -> Sizes:
    """Returns the sizes of an attention."""
    (height, width, _), (key_h, key_w, depth), (_, _, value_depth) = (graph.tensors[name].shape for name in op.inputs)
    return Sizes(op.heads, height * width, key_h * key_w, depth // op.heads, value_depth // op.heads)


def shared_form(graph: Graph, op: Attention, core: str, clusters: float) -> Form:
    """Returns the form that computes equal queries once; `clusters`: how many are likely to differ."""
    return _form(sizes_of(graph, op), attention_params(graph, op), core, clusters)


def likely_queries(graph: Graph, op: Attention) -> float:
    """Returns how many queries are likely to differ, 0 where nothing says that some are equal: behind TREC with blocks as long as
    a token and without exact channels, as many as there are clusters."""
    source = graph.producer(op.inputs[0])
    source = graph.producer(source.inputs[0]) if isinstance(source, Rearrange) else source
    if not isinstance(source, TrecConv):
        return 0
    sizes = trec_sizes(graph, source)
    return sizes.likely_clusters if sizes.blocks == 1 and not sizes.exact_c else 0


def _form(sizes: Sizes, params: AttentionParams, core: str, clusters: float = 0, bias: Array | None = None) -> Form:
    """Returns the form, with the `bias` of its scores or without; with `clusters`, the number of queries that are likely to
    differ, it computes equal ones once."""
    scores, sums, heads, queries, keys = sizes.scores, sizes.sums, sizes.heads, sizes.queries, sizes.keys
    key_groups, value_groups = scores.out_bytes // 16, sums.out_bytes // 16
    score, blend, weigh = pairs_function(scores, key_groups), pairs_function(sums, value_groups), weigh_function(params, keys)
    words = 4 * key_groups * scores.padded + 4 * value_groups * sums.padded + 2 * (scores.padded + sums.padded)
    words += 8 * max(key_groups, value_groups) + queries * bool(clusters)
    each_query, each_output, each_four = C_CYCLES[core]
    pairs = (clusters + 1) / 2 if clusters else -(-queries // 2)
    pair = cycles_of(score, core) + cycles_of(blend, core) + 2 * cycles_of(weigh, core) + 2 * each_query
    pair += 2 * sizes.value_depth * each_output + scores.words * each_four
    widened = 2 * key_groups * scores.words + 2 * sums.words * value_groups
    cycles = heads * (pairs * pair + widened * each_four) + queries * clusters * COMPARED
    fields: Fields = {
        "heads": heads, "queries": queries, "keys": keys, "depth": sizes.depth, "value_depth": sizes.value_depth,
        "key_words": scores.padded, "value_words": sums.padded, "shares": int(clusters > 0), "multiplier": params.multiplier,
        "shift": params.shift, "query_zero_point": params.query_zero_point, "value_zero_point": params.value_zero_point,
        "output_zero_point": params.output_zero_point, "score": score.name, "weigh": weigh.name, "blend": blend.name,
    }  # fmt: skip

    more: Fields = {}
    if bias is not None:
        cycles += heads * queries * keys * BIAS_CYCLES[core]
        more = {"bias_head": bias[0].size if len(bias) > 1 else 0, "bias_step": params.bias_step, "masked": params.masked}

    def call(places: Places) -> str:
        arguments = [places.out, *places.inputs, "&parameters", f"(int32_t *)(void *)({places.scratch})"]
        every = {**fields, **more, **({"bias": places.arrays["bias"]} if more else {})}
        kind = f"{'' if more else 'static '}const struct tr_attention_pairs"
        return c_call("tr_attention_pairs_s8", kind, every, arguments)

    functions = tuple({function.name: function for function in (score, weigh, blend)}.values())
    arrays = {} if bias is None else {"bias": bias}
    return Form("attention_shared" if clusters else "attention_pairs", round(cycles), 4 * words, functions, call, arrays)


def pairs_function(rows: Rows, groups: int) -> Function:
    """Returns the function that multiplies two rows with groups of four columns; `groups` is their usual number.

    columns: of each group and word four words, one of each column; out: int32 sums, those of the second row `out_bytes` behind.
    """
    rounds = f"x{rows.rounds}" if rows.rounds > 1 else ""
    name, row_bytes = f"tr_pairs_w{rows.padded}{rounds}_o{rows.out_bytes}", 4 * rows.padded
    arguments = ("int32_t *out", "const uint32_t *columns", "const uint32_t *rows", "int32_t groups")
    p = Function(name, arguments, f"Two rows of {rows.padded} words times four columns, `groups` times.")
    p.keep("*out", "groups")
    totals = [[f"sum{row}_{column}" for column in range(4)] for row in range(2)]
    p.new(*totals[0], *totals[1])
    if rows.rounds > 1:
        p.new_float("rounds")
    with p.loop("groups_kept", groups):
        for total in (*totals[0], *totals[1]):
            p.mov(total, 0)
        if rows.rounds > 1:
            with p.registers("counted"):
                p.mov("counted", rows.rounds)
                p.vmov("rounds", "counted")
            with p.loop("rounds", rows.rounds):
                _round(p, rows, totals)
        else:
            _round(p, rows, totals)
        p.move("rows", "rows", -row_bytes)
        with p.fetched("out"):
            p.store("out", 0, *totals[0])
            p.store("out", rows.out_bytes, *totals[1])
            p.add("out", "out", 16)
    return p


def _round(p: Function, rows: Rows, totals: list[list[str]]) -> None:
    with p.registers("row0", "row1", "column0", "column1"):
        for step in range(rows.steps):
            p.load("rows", 4 * step, "row0", "row1", step=4 * rows.padded)
            for first in (0, 2):
                p.load("columns", 16 * step + 4 * first, "column0", "column1")
                for column in range(2):
                    for row in range(2):
                        total = totals[row][first + column]
                        p.smlad(total, f"row{row}", f"column{column}", total)
    p.add("rows", "rows", 4 * rows.steps)
    p.add("columns", "columns", 16 * rows.steps)


def weigh_function(params: AttentionParams, keys: int) -> Function:
    """Returns the function that turns the scores of one query into weights; their sum takes the place of the first score."""
    multiplier, right, least = params.score_multiplier, -params.score_shift, 2 * max(params.least, LEAST_DISTANCE)
    name = f"tr_weigh_{keys}_{multiplier:x}_{right}_{-least:x}"
    p = Function(
        name, ("int32_t *scores", "int16_t *weights", "const uint16_t *powers"), f"Weights of {keys} scores, and their sum."
    )
    pairs, odd = divmod(keys, 2)
    p.new("largest", "least", "multiplier", "half", "total", "left", "x0", "x1", "w0", "w1")
    p.ldr("largest", "scores", 0)
    if pairs:
        p.constant("left", pairs)
        with p.loop("left", pairs):
            p.load("scores", 0, "x0", "x1")
            p.add("scores", "scores", 8)
            p.at_least("largest", "x0")
            p.at_least("largest", "x1")
    if odd:
        p.ldr("x0", "scores", 0)
        p.at_least("largest", "x0")
    p.move("scores", "scores", -8 * pairs, "left")
    p.new_float("*first")
    p.vmov("first", "scores")
    for register, value in (("least", least & 0xFFFFFFFF), ("multiplier", multiplier), ("half", (1 << right) >> 1), ("total", 0)):
        p.constant(register, value)
    if pairs:
        p.constant("left", pairs)
        with p.loop("left", pairs):
            p.load("scores", 0, "x0", "x1")
            p.add("scores", "scores", 8)
            for i in range(2):
                _weight(p, f"x{i}", f"w{i}", right)
            p.add("total", "total", "w0")
            p.add("total", "total", "w1")
            p.orr("w0", "w0", "w1", "lsl 16")
            p.str_post("w0", "weights", 4)
    if odd:
        p.ldr("x0", "scores", 0)
        _weight(p, "x0", "w0", right)
        p.add("total", "total", "w0")
        p.str("w0", "weights", 0)
    p.vmov("scores", "first")
    p.str("total", "scores", 0)
    return p


def _weight(p: Function, x: str, weight: str, right: int) -> None:
    """Turns the score in register `x` into a weight; `x` is lost."""
    p.sub(x, x, "largest")
    p.add(x, x, x)
    p.at_least(x, "least")
    p.smmulr(x, x, "multiplier")
    p.sub(x, "half", x)
    if right:
        p.lsr(x, x, right)
    p.uxtb(weight, x)
    p.ldrh_at(weight, "powers", weight)
    p.lsr(x, x, 8)
    p.lsr(weight, weight, x)
    p.add(weight, weight, 4)
    p.lsr(weight, weight, 3)
