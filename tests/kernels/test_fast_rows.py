"""Packed-product row convolution against the interpreter, bit for bit: geometries, adversarial weights and inputs, proofs."""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import host, made

from tinyredux.boards import find_board
from tinyredux.explore.bench import bench_layer, layer_graph, parse_spec
from tinyredux.graph import Conv, Graph, Quant, Tensor, macs, output_shape
from tinyredux.int8 import interpret, requantization
from tinyredux.kernels import C_HEAD, Form, Places, print_c
from tinyredux.kernels.rows import template as rows
from tinyredux.kernels.rows.layer import OFFSET, rows_of, steps_of
from tinyredux.kernels.rows.plan import order_loads, plan_rows

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
F469 = find_board("disco_f469ni")


def layer(rng: np.random.Generator, worst: bool = False) -> Graph:
    """Returns a convolution of random geometry; `worst`: all weights +-127, signs in rows or at random."""
    kernel = (int(rng.integers(1, 8)), int(rng.integers(2, 8)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    size = tuple(int(rng.integers(k, k + 14)) for k in kernel)
    padding = tuple(int(rng.integers(0, (kernel[i // 2] + 1) // 2 + 1)) for i in range(4))
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    in_c, out_c = groups * int(rng.integers(1, 12)), groups * int(rng.integers(1, 4))
    zero_point = int(rng.choice([-128, -128, -3, 0, 127, rng.integers(-128, 128)]))
    shape = (out_c, *kernel, in_c // groups)
    weights = np.clip(np.round(rng.normal(0, 36, shape)), -127, 127)
    if worst:
        weights = 127 * np.sign(rng.normal(rng.choice([-3, 0, 3]), 1, shape) + 1e-9)
    scale = 40 / (60 * 36 * (weights.size / out_c) ** 0.5) * 2.0 ** rng.uniform(-1, 1, out_c)
    activation = str(rng.choice(["none", "relu", "relu6"]))
    op = Conv(
        "layer", ("input",), "output", weights="weights", bias="bias", kernel=kernel, stride=stride, padding=padding,
        groups=groups, activation=activation, weight_scale=tuple(float(min(s, 0.4)) for s in scale),
    )  # fmt: skip
    constants = {"weights": weights.astype(np.int8), "bias": rng.integers(-4000, 4000, out_c).astype(np.int32)}
    tensors = {"input": Tensor("input", (*size, in_c), "int8", Quant((0.05,), zero_point))}
    graph = Graph("layer", (op,), tensors, constants, ("input",), ("output",))
    out = Quant((0.05,), int(rng.integers(-128, 128)))
    return replace(graph, tensors={**tensors, "output": Tensor("output", output_shape(graph, op), "int8", out)})


def random_layers(seed: int, count: int, worst: bool = False) -> list[tuple[Graph, Form]]:
    """Returns layers that have a form, each with one of its forms."""
    rng, found = np.random.default_rng(seed), list[tuple[Graph, Form]]()
    while len(found) < count:
        graph = layer(rng, worst)
        offered = rows.forms(graph, graph.ops[0], "cortex-m4") if min(graph.output.shape) > 0 else []
        if offered:
            found.append((graph, offered[int(rng.integers(len(offered)))]))
    return found


def library(folder: Path, cases: list[tuple[Graph, Form]]) -> ctypes.CDLL:
    """Returns the host twins of all cases with their calls, as case_0, case_1 ..."""
    places = Places("out", ("in",), "scratch", {"packed": "packed", "rows": "rows"})
    programs = {program.name: program for _, form in cases for program in form.functions}
    text = C_HEAD + "".join(f"static {program.declaration};\nstatic {print_c(program)}" for program in programs.values())
    for i, (_, form) in enumerate(cases):
        arguments = "int8_t *out, const int8_t *in, int8_t *scratch, const int32_t *packed, const int32_t *rows"
        text += f"void case_{i}({arguments});\nvoid case_{i}({arguments})\n{{\n{form.call(places)}\n}}\n"
    (folder / "cases.c").write_text(text)
    checks = ("-O0", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-shared", "-fPIC")
    return ctypes.CDLL(str(made(host(*checks), folder / "cases.c", suffix=".so")))


def guarded(content: np.ndarray, folder_byte: int = 0x5A) -> tuple[np.ndarray, np.ndarray]:
    """Returns a copy of bytes between two walls of 64 others, and the whole."""
    whole = np.full(content.size + 128, folder_byte, np.uint8).view(np.int8)
    whole[64:-64] = content.reshape(-1).view(np.int8)
    return whole[64:-64], whole


def images(graph: Graph, rng: np.random.Generator) -> np.ndarray:
    """Returns random pixels, extremes at random, both extremes in every pattern that weights can meet."""
    shape = graph.input.shape
    weights = graph.constants["weights"][0]
    pattern = np.resize(np.where(weights > 0, 127, -128), (shape[0] + 8, shape[1] + 8, shape[2]))[: shape[0], : shape[1]]
    return np.stack(
        [
            rng.integers(-128, 128, shape), rng.choice([-128, 127], shape), np.full(shape, -128), np.full(shape, 127),
            pattern, -1 - pattern,
        ]
    ).astype(np.int8)  # fmt: skip


def check(folder: Path, cases: list[tuple[Graph, Form]]) -> None:
    """Fails unless every case writes the interpreter's bytes, and nothing beside its output and its scratch."""
    compiled, rng = library(folder, cases), np.random.default_rng(5)
    for i, (graph, form) in enumerate(cases):
        batch = images(graph, rng)
        expected = interpret.run(graph, batch)
        arrays = [np.ascontiguousarray(form.arrays[key], np.int32) for key in ("packed", "rows")]
        for image, wanted in zip(batch, expected, strict=True):
            out, out_whole = guarded(np.zeros(wanted.size, np.int8))
            scratch, scratch_whole = guarded(rng.integers(-128, 128, form.scratch_bytes).astype(np.int8))
            source = np.ascontiguousarray(image)
            values = (out, source, scratch, *arrays)
            compiled[f"case_{i}"](*(value.ctypes.data_as(ctypes.c_void_p) for value in values))
            np.testing.assert_array_equal(
                out.reshape(wanted.shape), wanted, err_msg=f"{graph.ops[0]} {graph.input.shape} {form.name}"
            )
            for whole in (out_whole, scratch_whole):
                assert (whole[:64] == 0x5A).all() and (whole[-64:] == 0x5A).all(), str(graph.ops[0])


@pytest.mark.parametrize("worst", [False, True])
def test_random_layers_equal_the_interpreter(tmp_path: Path, worst: bool) -> None:
    check(tmp_path, random_layers(7 + worst, 12, worst))


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("text", "board"),
    [
        ("conv5x5:3-4@11x9", "disco_f469ni"), ("conv3x3s2:8-4@12x13", "nucleo_f746zg"), ("conv2x4:5-3@7x6", "nucleo_f746zg"),
        ("conv7x5s3:13-2@20x17", "disco_f469ni"),
    ],
)  # fmt: skip
def test_assembly_equals_the_interpreter(text: str, board: str) -> None:
    """bench_layer raises where the simulated board writes other bytes than the interpreter; the M7 has an order of its own."""
    assert bench_layer(text, find_board(board), "fast").instructions > 0


BARS = {"conv5x5:32-32@16x16": 0.72, "conv5x5:3-32@32x32": 0.90, "conv5x5:32-64@8x8": 0.68, "conv3x3s2:16-32@32x32": 1.20}
SCRATCH = 13 * 1024


@NEEDS_COMPILER
@pytest.mark.parametrize("text", BARS)
def test_core_cycles_per_mac_within_13_kib(text: str) -> None:
    graph = layer_graph(parse_spec(text))
    small = [form for form in rows.forms(graph, graph.ops[0], "cortex-m4") if form.scratch_bytes <= SCRATCH]
    assert min(form.cycles for form in small) <= BARS[text] * macs(graph, graph.ops[0])


@NEEDS_COMPILER
@pytest.mark.parametrize("text", ["conv5x5:3-32@32x32", "conv5x5:32-64@8x8"])
def test_the_simulator_agrees_with_the_prediction(text: str) -> None:
    graph = layer_graph(parse_spec(text))
    predicted = min(form.cycles for form in rows.forms(graph, graph.ops[0], "cortex-m4"))
    assert abs(bench_layer(text, F469, "fast").core_cycles - predicted) < 0.02 * predicted


@pytest.mark.parametrize("zero_point", [-128, -3, 127])
def test_a_chunk_is_as_long_as_the_worst_input_allows(zero_point: int) -> None:
    """Straight from the definition: over all chunks and channels, the largest and smallest middle field."""
    graph = layer_graph(parse_spec("conv5x5:24-3@9x9"))
    weights, bias = graph.constants["weights"], graph.constants["bias"]
    factors = replace(requantization(graph, graph.ops[0]), input_zero_point=zero_point)
    kernel = rows_of(rows.geometry_of(graph, graph.ops[0]), weights, bias, factors)
    assert kernel is not None and 0 < kernel.chunk < kernel.steps // kernel.unroll
    low, high = -128 - zero_point, 127 - zero_point
    steps = steps_of(weights, kernel).astype(np.int64)

    def extremes(length: int) -> tuple[int, int]:
        starts = range(0, kernel.steps - length * kernel.unroll + 1, kernel.unroll)
        chunks = [steps[:, start : start + length * kernel.unroll].reshape(len(steps), -1) for start in starts]
        largest = max(int(np.where(part > 0, part * high, part * low).sum(axis=1).max()) for part in chunks)
        smallest = min(int(np.where(part > 0, part * low, part * high).sum(axis=1).min()) for part in chunks)
        return largest, smallest

    largest, smallest = extremes(kernel.chunk)
    assert largest < OFFSET and smallest >= -OFFSET and kernel.most == max(largest, -smallest)
    largest, smallest = extremes(kernel.chunk + 1)
    assert largest >= OFFSET or smallest < -OFFSET


def test_every_product_is_computed_once_per_step() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        graph = layer(rng)
        plan = plan_rows(rows.geometry_of(graph, graph.ops[0]))
        for block in plan.blocks if plan else ():
            batches = order_loads(block.products, 2, 11 - 2 * block.n)
            macs_done = sorted((a, w[0], w[2], x[2]) for _, products in batches for a, w, x in products if w[0] == x[0])
            assert macs_done == sorted((p.a, step, p.pair, p.column) for step in (0, 1) for p in block.products)


def test_layers_without_a_form() -> None:
    """One kernel column, rows in the padding alone, a requantisation with a left shift, a sum that could overflow."""
    graph = layer_graph(parse_spec("conv3x3:8-4@8x8"))
    op = graph.ops[0]
    assert isinstance(op, Conv) and rows.forms(graph, op, "cortex-m4")
    geometry = rows.geometry_of(graph, op)
    weights, bias, factors = graph.constants["weights"], graph.constants["bias"], requantization(graph, op)
    assert rows_of(replace(geometry, pad_top=3), weights, bias, factors) is None
    assert rows_of(geometry, weights, bias, replace(factors, shift=(2,) * 4)) is None
    assert rows_of(geometry, weights, bias + 2**30, factors) is None
    assert rows.forms(graph, replace(op, kernel=(3, 1)), "cortex-m4") == []
