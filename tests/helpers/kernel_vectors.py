"""Vectors for the firmware's own tests: layers, the calls of their kernels and the interpreter's bytes, as C in a folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from form_cases import TYPES, Case, cases_of
from kernel_calls import OPERATORS, calls
from strategies import KINDS, Layer, random_layers

from tinyredux.codegen.artifact import functions, sources
from tinyredux.graph import Conv, Rearrange
from tinyredux.kernels import Form, Places, by_phases, unpacked

MOST_BYTES = 6000  # of a vector's arrays
PARTIAL = ("direct", "add_s32", "add_s16")
KERNELS = (
    "gemm_conv", "quads_conv", "winograd_conv", "unpacked_conv", "trec_conv", "trec_naive", "phase_take", "attention_pairs",
)  # fmt: skip
GENERATED = [f"tr_{name}_s8" for name in KERNELS]
HEAD = """#include "vectors.h"

void run_case(const int32_t *fields, void *const *arrays, int16_t *scratch);

"""
HEADER = """/* Written by tests/helpers/kernel_vectors.py. */
#include "tinyredux.h"

#define VECTORS {count}
#define VECTORS_MOST_OUTPUT {output}
#define VECTORS_MOST_SCRATCH {scratch}

struct vector {{
    const char *name;
    void (*run)(int8_t *out, int32_t *scratch);
    const int8_t *expected;
    int32_t bytes, scratch_bytes;
}};
extern const struct vector vectors[VECTORS];
"""


@dataclass(frozen=True)
class Vector:
    """A layer computed by one kernel: its arrays and the C that runs it."""

    name: str
    layer: Layer
    arrays: tuple[np.ndarray, ...]
    body: str
    scratch_bytes: int
    form: Form | None = None


def small(kind: str, count: int, seed: int) -> list[Layer]:
    """Returns the first `count` layers of a kind that a board's memory holds many of."""

    def fits(layer: Layer) -> bool:
        size = sum(values.nbytes for values in (*layer.inputs, *layer.graph.constants.values()))
        return layer.graph.output.elements > 8 and size + layer.graph.output.elements < MOST_BYTES

    return [*filter(fits, random_layers(kind, 200, seed))][:count]


def with_small_weights(layer: Layer) -> Layer:
    """Returns a convolution whose sums fit 16 bits: weights of -1, 0 and 1."""
    constants = layer.graph.constants
    weights = np.sign(constants["w"] // 50).astype(np.int8)
    return Layer(replace(layer.graph, constants={"w": weights, "b": np.clip(constants["b"], -99, 99)}), layer.inputs)


def unmoved(layer: Layer) -> Layer:
    """Returns a layer that moves the same map nowhere."""
    shape, out = layer.inputs[0].shape, layer.graph.output
    tensors = layer.graph.tensors | {out.name: replace(out, shape=shape)}
    op = Rearrange(layer.op.name, layer.op.inputs, out.name, shape[:2], shape[2])
    return Layer(replace(layer.graph, ops=(op,), tensors=tensors), layer.inputs)


def reference_vector(name: str, layer: Layer, operator: str | None = None) -> Vector:
    """Returns a vector of a reference kernel: calls of run_case with numbers and arrays."""
    arrays, lines = list[np.ndarray](), list[str]()
    for fields, values in calls(layer):
        numbers = [OPERATORS.index(operator) if operator else fields[0], *fields[1:]]
        places = ["out", *(f"(void *)(uintptr_t)@{len(arrays) + i}@" for i in range(len(values)))]
        arrays += [np.ascontiguousarray(part) if part.size else np.zeros(1, np.int8) for part in values]
        lines.append(f"    static const int32_t fields_{len(lines)}[] = {{{', '.join(map(str, numbers))}}};")
        lines.append(f"    run_case(fields_{len(lines) - 1}, (void *const[]){{{', '.join(places)}}}, (int16_t *)scratch);")
    return Vector(name, layer, tuple(arrays), "\n".join(lines), 16 * 1024)


def form_vector(name: str, case: Case) -> Vector:
    """Returns a vector of a kernel whose inner loops are generated code."""
    keys, inputs = case.form.arrays, len(case.layer.inputs)
    places = {key: f"((const {TYPES[values.dtype.name]} *)@{inputs + i}@)" for i, (key, values) in enumerate(keys.items())}
    maps = (f"(@0@ + {case.offset})", *(f"@{i}@" for i in range(1, inputs)))
    body = case.form.call(Places("out", maps, "((int8_t *)scratch)", places, case.in_row))
    return Vector(name, case.layer, tuple(case.arrays), body, case.form.scratch_bytes, case.form)


def all_vectors(core: str) -> Iterator[Vector]:
    """Yields vectors of every kernel in firmware/kernels."""
    for kind in KINDS:
        for i, layer in enumerate(small(kind, 2, seed=21)):
            yield reference_vector(f"{kind}_{i}", layer)
    for i, layer in enumerate(small("softmax", 2, seed=21)):
        yield reference_vector(f"softmax_once_{i}", Layer(replace(layer.graph, rounding="single"), layer.inputs))
    for i, layer in enumerate(small("rearrange", 2, seed=21)):
        yield reference_vector(f"keep_{i}", unmoved(layer), "keep")
    convolutions = [layer for layer in small("conv", 40, seed=22) if np.prod(layer.graph.constants["w"].shape[1:]) < 120]
    for operator in PARTIAL:
        for i, layer in enumerate(convolutions[:2]):
            assert isinstance(layer.op, Conv) and layer.op.groups == 1
            yield reference_vector(f"{operator}_{i}", with_small_weights(layer) if operator == "add_s16" else layer, operator)
    layers = [layer for kind in ("conv", "pointwise", "trec", "square", "attention") for layer in small(kind, 8, seed=23)]
    layers += [layer for layer in small("depthwise", 40, seed=23) if getattr(layer.op, "dilation", (1, 1)) != (1, 1)]
    generated = cases_of(layers, core)
    generated += [
        Case(layer, form.complete()) for layer in layers for form in by_phases(unpacked.forms)(layer.graph, layer.op, core)
    ]
    for kernel in GENERATED:
        cases = [case for case in generated if f"{kernel}(" in call_text(case)]
        wanted = sorted({case.form.name: case for case in cases if case.form.scratch_bytes < 16 * 1024}.items())
        yield from (form_vector(f"{kernel[3:-3]}_{i}", case) for i, (_, case) in enumerate(wanted[:2]))


def call_text(case: Case) -> str:
    """Returns the C that calls a form."""
    return case.form.call(Places("out", ("in", "other"), "scratch", dict.fromkeys(case.form.arrays, "array")))


def write_vectors(folder: Path, core: str) -> list[str]:
    """Writes vectors.h, vectors.c and the generated code that they call into a folder; returns the vectors' names."""
    vectors = list(all_vectors(core))
    found = functions(vector.form for vector in vectors if vector.form)
    text, rows = [HEAD, *dict.fromkeys(f"{program.declaration};\n" for program in found)], []
    for i, vector in enumerate(vectors):
        text += [_array(f"vector_{i}_{k}", values) for k, values in enumerate((*vector.arrays, vector.layer.expected()))]
        body = re.sub(r"@(\d+)@", rf"vector_{i}_\1", vector.body)
        text.append(f"static void run_{i}(int8_t *out, int32_t *scratch)\n{{\n    (void)scratch;\n{body}\n}}\n\n")
        sizes = f"{vector.layer.graph.output.elements}, {vector.scratch_bytes}"
        rows.append(f'    {{"{vector.name}", run_{i}, vector_{i}_{len(vector.arrays)}, {sizes}}},')
    text.append("const struct vector vectors[VECTORS] = {\n" + "\n".join(rows) + "\n};\n")
    output, scratch = (max(of) for of in zip(*((v.layer.graph.output.elements, v.scratch_bytes) for v in vectors), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vectors.h").write_text(HEADER.format(count=len(vectors), output=output, scratch=scratch))
    (folder / "vectors.c").write_text("".join(text))
    for name, content in sources(found, "").items():
        (folder / name).write_text(content)
    return [vector.name for vector in vectors]


def _array(name: str, values: np.ndarray) -> str:
    numbers = ", ".join("INT32_MIN" if value == -(1 << 31) else str(value) for value in values.ravel().tolist())
    return f"static const {TYPES[values.dtype.name]} {name}[] __attribute__((aligned(4))) = {{{numbers}}};\n"


if __name__ == "__main__":
    write_vectors(Path(sys.argv[1]), sys.argv[2])
