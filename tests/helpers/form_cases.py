"""Forms as functions that tests call: many layers in one program, on this computer under sanitizers or on an emulated core.

Each array of a case has its own allocation of exactly its size, so that AddressSanitizer sees a step outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from compiled import Process, cross, host, kernels, made, objects
from generated import Core
from strategies import Layer, assert_same

from tinyredux.codegen.artifact import functions, sources
from tinyredux.device import build
from tinyredux.int8 import interpret
from tinyredux.kernels import TEMPLATES, Form, Places, by_phases, naive_forms
from tinyredux.kernels.asm.forms import Lies
from tinyredux.kernels.choice import on_core

MOST_SCRATCH = 1 << 19
TYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t"}

MAIN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void read_exactly(void *to, size_t bytes)
{
    if (fread(to, 1, bytes, stdin) != bytes) exit(2);
}
int main(void)
{
    int32_t head[2];
    while (fread(head, sizeof head, 1, stdin) == 1) {
        void *at[16];
        int32_t sizes[16];
        read_exactly(sizes, (size_t)head[1] * sizeof sizes[0]);
        for (int32_t i = 0; i < head[1]; i++) {
            at[i] = malloc((size_t)sizes[i]);
            memset(at[i], 0x55, (size_t)sizes[i]);
            if (i > 1) read_exactly(at[i], (size_t)sizes[i]);
        }
        cases[head[0]](at);
        fwrite(at[0], 1, (size_t)sizes[0], stdout);
        fflush(stdout);
        for (int32_t i = 0; i < head[1]; i++) free(at[i]);
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Case:
    """A layer computed by one of its forms."""

    layer: Layer
    form: Form

    @property
    def arrays(self) -> list[np.ndarray]:
        """What the case reads: inputs, the first as loosely as the form takes it, then the form's arrays."""
        first, *others = self.layer.inputs
        return [np.ascontiguousarray(values) for values in (self.laid(first), *others, *self.form.arrays.values())]

    @property
    def in_row(self) -> int:
        """Values from a row of the first input to the next where there is a gap, which is of 5 values, else 0."""
        _, width, channels = self.layer.inputs[0].shape
        return width * channels + 5 if self.form.lies >= Lies.IN_ROWS else 0

    @property
    def offset(self) -> int:
        """The byte at which the first input begins: none at a word where the form takes it from anywhere."""
        return int(self.form.lies >= Lies.ANYWHERE)

    def laid(self, values: np.ndarray) -> np.ndarray:
        """Returns the first input as it lies, with 85 in the gaps, up to its last value."""
        rows = values.reshape(len(values), -1)
        found = np.pad(rows, ((0, 0), (0, max(0, self.in_row - rows.shape[1]))), constant_values=0x55).reshape(-1)
        return np.pad(found[: found.size - 5 if self.in_row else found.size], (self.offset, 0), constant_values=0x55)


def cases_of(layers: Sequence[Layer], core: str) -> list[Case]:
    """Returns every layer with every form that any template has for it and that the emulator's RAM holds, as the core gets it."""
    found = [
        Case(layer, on_core(form, core))
        for layer in layers
        for template in (*TEMPLATES, naive_forms)
        for form in by_phases(template)(layer.graph, layer.op, core)
    ]
    return [case for case in found if case.form.scratch_bytes < MOST_SCRATCH]


def write_sources(cases: Sequence[Case], folder: Path) -> list[Path]:
    """Writes the C that calls the cases and their Programs. An array of pointers holds output, scratch, inputs, arrays."""
    bodies = []
    for i, case in enumerate(cases):
        first = 2 + len(case.layer.inputs)
        arrays = {
            key: f"((const {TYPES[values.dtype.name]} *)at[{first + k}])"
            for k, (key, values) in enumerate(case.form.arrays.items())
        }
        inputs = tuple(f"((int8_t *)at[{2 + k}]{f' + {case.offset}' * (k == 0)})" for k in range(len(case.layer.inputs)))
        body = case.form.call(Places("((int8_t *)at[0])", inputs, "((int8_t *)at[1])", arrays, case.in_row))
        bodies.append(f"static void case_{i}(void *const *at)\n{{\n{body}\n}}\n")
    programs = functions(case.form for case in cases)
    declarations = [f"{program.declaration};\n" for program in programs]
    table = f"static void (*const cases[])(void *const *) = {{{', '.join(f'case_{i}' for i in range(len(cases)))}}};\n"
    run = "void run_case(int32_t i, void *const *at);\nvoid run_case(int32_t i, void *const *at)\n{\n    cases[i](at);\n}\n"
    text = "".join(['#include "tinyredux.h"\n', *declarations, *bodies, table, run, f"#if !defined(__arm__)\n{MAIN}#endif\n"])
    (folder / "cases.c").write_text(text)
    for name, content in sources(programs, "").items():
        (folder / name).write_text(content)
    return [folder / "cases.c", folder / "fast.S", folder / "fast_host.c"]


class HostForms(Process):
    """Cases in a process of this computer, under sanitizers unless it is compiled in a hurry."""

    def __init__(self, cases: Sequence[Case], folder: Path, sanitize: bool = True) -> None:
        checks = build.option("flags", "sanitize").split() if sanitize else ["-g0"]
        command = host(*checks, "-O0", "-Wa,--noexecstack")  # optimising long programs under sanitizers takes 20 times as long
        super().__init__(made(command, *objects(command, *write_sources(cases, folder)), *kernels(command)))

    def run(self, number: int, case: Case) -> np.ndarray:
        """Returns a case's output (H, W, C)."""
        shape, arrays = case.layer.graph.output.shape, case.arrays
        sizes = [int(np.prod(shape)), case.form.scratch_bytes, *(values.nbytes for values in arrays)]
        return self.output([number, len(sizes), *sizes], arrays, sizes[0]).reshape(shape)


class CoreForms:
    """Cases as machine code of a Cortex-M core in the emulator."""

    def __init__(self, cases: Sequence[Case], folder: Path, core: str) -> None:
        command, link = cross(core), ["-Wl,-Ttext=0x08000000", "-Wl,-e,run_case", "-Wl,--undefined=run_case"]
        files = [*objects(command, *write_sources(cases, folder)), *kernels(command)]
        self.core = Core(made([*command, *build.option("flags", "link").split(), *link], *files, suffix=".elf"), core)

    def run(self, number: int, case: Case) -> np.ndarray:
        """Returns a case's output (H, W, C)."""
        shape = case.layer.graph.output.shape
        size = int(np.prod(shape))
        *pointers, table = self.core.place(
            [b"\x55" * size, b"\x55" * case.form.scratch_bytes, *(a.tobytes() for a in case.arrays)]
        )
        self.core.place_words(table, pointers)
        self.core.call("run_case", number, table)
        return np.frombuffer(self.core.read(pointers[0], size), np.int8).reshape(shape)


def inputs_of(layer: Layer, count: int, seed: int) -> list[tuple[np.ndarray, ...]]:
    """Returns the layer's own inputs; both ends in turn, each alone, and as the signs of its weights are; then random ones."""
    rng = np.random.default_rng(seed)
    signs = layer.graph.constants.get(getattr(layer.op, "weights", ""), np.ones(1)) > 0
    highest = (lambda shape: np.indices(shape).sum(axis=0) % 2, np.zeros, np.ones, lambda shape: np.resize(signs, shape))
    found = [layer.inputs, *(tuple(np.where(at(v.shape), 127, -128) for v in layer.inputs) for at in highest)]
    for i in range(count - len(found)):
        draws = [rng.integers(-128, 128, v.shape) if i % 3 else rng.choice([-128, 127], v.shape) for v in layer.inputs]
        found.append(tuple(draws))
    return [tuple(values.astype(np.int8) for values in each) for each in found[:count]]


def right_cases(cases: Sequence[Case], inputs: int, folder: Path, core: str = "cortex-m4", kinds: str = "sanitized") -> int:
    """Returns how many times forms wrote the interpreter's bytes; fails at the first that does not.

    They run as C twins ("host", or "sanitized": without an access outside an array or undefined arithmetic), as machine code
    ("core"), or as several of these.
    """
    folder.mkdir(exist_ok=True)
    make = {"sanitized": HostForms, "host": partial(HostForms, sanitize=False), "core": partial(CoreForms, core=core)}
    running: list[Any] = [make[kind](cases, folder) for kind in kinds.split()]
    drawn, right = dict[int, list[Any]](), 0
    for number, case in enumerate(cases):
        if id(layer := case.layer) not in drawn:
            some = inputs_of(layer, inputs, number)
            wanted = interpret.run_op(layer.graph, layer.op, [np.stack(values) for values in zip(*some, strict=True)])
            drawn[id(layer)] = list(zip(some, wanted, strict=True))
        for values, expected in drawn[id(layer)]:
            for forms in running:
                written = forms.run(number, replace(case, layer=replace(layer, inputs=values)))
                assert_same(written, expected, layer, case.form.name)
                right += 1
    assert right and not any(forms.close() for forms in running if isinstance(forms, HostForms))
    return right
